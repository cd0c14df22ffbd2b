"""Which images are accepted, which format and size are reported, and which bytes are returned."""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from app.core.errors import UndecodableImage
from app.core.objects import FORMATS
from app.imaging.survey import ImageLimits

from .samples import (
    ICC,
    KINDS,
    LIMITS,
    NAMES,
    RAW_LIMITS,
    SIZE,
    check,
    exif,
    picture,
    sample,
    saved,
)


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
def test_every_format_is_detected_from_its_bytes(name: str, animated: bool, limits: ImageLimits) -> None:
    checked = check(sample(name, animated), limits)
    assert checked.format is FORMATS[name]
    assert (checked.width, checked.height) == SIZE
    assert checked.frames == (3 if animated else 1)


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("png", picture(mode="1"), {}),
        ("png", picture(mode="P"), {"transparency": 3}),
        ("png", picture(mode="RGBA"), {"icc_profile": ICC}),
        ("png", picture().convert("I;16"), {}),
        ("jpeg", picture(mode="L"), {}),
        ("jpeg", picture(mode="CMYK"), {}),
        ("jpeg", picture(), {"progressive": True, "icc_profile": ICC}),
        ("jpeg", picture(size=(300, 200)), {"restart_marker_rows": 1}),
        ("gif", picture(mode="L"), {"interlace": 0}),
        ("webp", picture(mode="RGBA"), {"lossless": True}),
        ("webp", picture(), {"icc_profile": ICC}),
        ("avif", picture(mode="RGBA"), {"icc_profile": ICC}),
        ("avif", picture(mode="L"), {}),
    ],
)
def test_images_without_metadata_are_returned_unchanged(
    name: str, image: Image.Image, options: dict[str, Any]
) -> None:
    data = saved(image, name, **options)
    assert check(data).data is data


@pytest.mark.parametrize(("name", "animated"), [kind for kind in KINDS if kind != ("avif", True)])
def test_samples_without_metadata_are_returned_unchanged(name: str, animated: bool) -> None:
    assert check(sample(name, animated)).data is sample(name, animated)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
def test_strip_metadata_false_returns_the_bytes_unchanged(name: str) -> None:
    data = saved(picture(), name, exif=exif(6)) + b"<script>tail</script>"
    checked = check(data, RAW_LIMITS)
    assert checked.data is data
    # Only AVIF has a rotation of its own, which Pillow writes. EXIF has no effect here.
    assert (checked.width, checked.height) == (SIZE[::-1] if name == "avif" else SIZE)


def test_the_size_of_a_rotated_avif_is_its_displayed_size() -> None:
    data = saved(picture(), "avif", exif=exif(6))
    checked = check(data)
    assert (checked.width, checked.height) == SIZE[::-1]


@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
def test_a_multi_picture_jpeg_counts_as_its_first_picture(limits: ImageLimits) -> None:
    buffer = BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture(1)])
    multi = buffer.getvalue()
    checked = check(multi, limits)
    assert (checked.format.name, checked.frames, checked.width) == ("jpeg", 1, SIZE[0])
    assert checked.data == (sample("jpeg") if limits.strip_metadata else multi)


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_without_an_image_is_undecodable(name: str) -> None:
    with pytest.raises(UndecodableImage):
        check(sample(name)[:16])
