"""What schemathesis can't know of our calls: which bytes are an image of each type."""

import schemathesis
from hypothesis import strategies as st

from app.formats import FORMATS
from tests.pictures import picture

_COLOURS = st.sampled_from(["red", "green", "blue"])
_SIDES = st.integers(1, 40)

for image_format in FORMATS.values():
    schemathesis.openapi.media_type(
        image_format.content_type,
        st.builds(picture, st.just(image_format.pillow), st.tuples(_SIDES, _SIDES), _COLOURS),
    )
