"""The format of a variant, by the `Accept` header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.negotiation import FALLBACK, preferred_format
from tests.accept_headers import AVIF, BROWSERS, FALLBACKS, QUALITIES, WEBP


@pytest.mark.parametrize(
    ("accept", "expected"),
    [*BROWSERS.values(), *QUALITIES.values(), *((accept, FALLBACK) for accept in FALLBACKS.values())],
    ids=[*BROWSERS, *QUALITIES, *FALLBACKS],
)
def test_the_preferred_format(accept: str, expected: str) -> None:
    assert preferred_format(accept) == expected


_RANGES = st.builds(
    "{}{}".format,
    st.sampled_from(["image/avif", "image/webp", "image/jpeg", "image/png", "image/*", "*/*", "a/b"]),
    st.sampled_from(["", ";q=0", ";q=0.000", ";q=0.3", "; q=0.7", ";q=1", ";q=1.0"]),
)


@pytest.mark.fuzz
@given(st.lists(_RANGES, max_size=6), st.sampled_from([",", ", "]))
def test_a_format_that_is_not_named_or_not_accepted_is_never_chosen(ranges: list[str], comma: str) -> None:
    chosen = preferred_format(comma.join(ranges))
    if chosen != FALLBACK:
        qualities = [part.partition("q=")[2] or "1" for part in ranges if part.startswith(f"image/{chosen}")]
        assert any(float(quality) > 0 for quality in qualities)
    elif not any("q=" in part for part in ranges):
        assert not {"image/avif", "image/webp"} & set(ranges)


@pytest.mark.fuzz
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_header_gets_a_format(accept: str) -> None:
    assert preferred_format(accept) in (AVIF, WEBP, FALLBACK)
