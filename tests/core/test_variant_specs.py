"""Tests of the grammar of variants: each spec has one canonical spelling."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.core.errors import InvalidVariant
from app.core.variant_specs import FITS, MAX_SIDE, SIDES, VariantSpec, parse_spec

CANONICAL = {
    "w640": "w640",
    "W640": "w640",
    "w00640": "w640",
    "h480": "h480",
    "still,w640": "w640,still",
    "h128,w128": "w128,h128",
    "w128,h64,cover": "w128,h64,cover",
    "cover,w128,h64,contain": None,
    "w128,h64,contain": "w128,h64",
    "w128,h64,center,cover": "w128,h64,cover",
    "w128,h64,cover,North": "w128,h64,cover,north",
    "w128,h64,cover,smart": "w128,h64,cover,smart",
    "w128,h64,pad,bgFFFFFF": "w128,h64,pad",
    "q80,bg112233,pad,h64,w128,still": "w128,h64,pad,bg112233,q80,still",
    "w128,cover": "w128",
    "w128,cover,smart": "w128",
    "h64,pad": "h64",
    "w128,h64,smart": "w128,h64",
    "w128,h64,pad,north": "w128,h64,pad",
    "w128,h64,cover,fp.5x.25": "w128,h64,cover,fp0.5x0.25",
    "w128,h64,cover,fp1.0x0": "w128,h64,cover,fp1x0",
    "w128,h64,cover,fp0.123456x0.2000": "w128,h64,cover,fp0.123x0.2",
    "w128,h64,cover,fp0.9999x0.0001": "w128,h64,cover,fp1x0",
    "w128,h64,cover,fp0.50x.5": "w128,h64,cover",
    "w128,h64,cover,fp0.4996x0.5": "w128,h64,cover",
    "w64,q080": "w64,q80",
    "q40": "q40",
    "q95": "q95",
    f"w{MAX_SIDE}": f"w{MAX_SIDE}",
    "still": "still",
    "contain": "",
}
"""Spellings of variants, and their canonical spelling, or None if the spelling is invalid."""


@pytest.mark.parametrize(("text", "canonical"), [pair for pair in CANONICAL.items() if pair[1] is not None])
def test_each_variant_has_one_canonical_spelling(text: str, canonical: str) -> None:
    assert str(parse_spec(text)) == canonical


INVALID = [
    *["", ",", "w640,", ",w640", "w640,,h480", "w640, h480", " w640", "w640\n", "w640.webp"],
    *[
        "w",
        "w0",
        "w-1",
        "w+1",
        "w1.5",
        "w16384",
        "w99999",
        "w123456",
        "h0",
        "w1e3",
        "w٦٤٠",
        "w６４０",
        "w0x10",
    ],
    *["q39", "q96", "q0", "q100", "q", "bgfff", "bg12345g", "bg1122334", "bg#112233", "bg"],
    *[
        "fp",
        "fpx",
        "fp0.5",
        "fp0.5x",
        "fpx0.5",
        "fp1.1x0",
        "fp0x1.001",
        "fp-0.1x0",
        "fp2x0",
        "fp.x.",
        "fpnanx0",
    ],
    *[
        "w640,w640",
        "w640,w320",
        "cover,contain,w1",
        "north,south",
        "smart,fp0.5x0.3",
        "still,still",
        "q80,q80",
    ],
    *["fit", "thumb", "info", "../w640", "w640/..", "%77640", "w640;h480", "w640\0", "w640" + "0" * 100],
]


@pytest.mark.parametrize("text", INVALID)
def test_other_specs_are_invalid(text: str) -> None:
    with pytest.raises(InvalidVariant) as caught:
        parse_spec(text)
    assert len(caught.value.message) < 400


specs = st.builds(
    VariantSpec,
    width=st.integers(0, MAX_SIDE),
    height=st.integers(0, MAX_SIDE),
    fit=st.sampled_from(FITS),
    gravity=st.sampled_from([*SIDES, "smart", "fp0.5x0.5", "fp0.333x1", "fp0x0"]),
    background=st.sampled_from(["ffffff", "112233", "000000"]),
    quality=st.sampled_from([0, 40, 80, 95]),
    still=st.booleans(),
)


@given(specs)
def test_the_canonical_spelling_stands_for_the_same_variant(spec: VariantSpec) -> None:
    assume(str(spec))
    assert parse_spec(str(spec)) == spec._normalized()
    assert str(parse_spec(str(spec))) == str(spec)


@given(st.lists(st.sampled_from(str(VariantSpec(9, 8, "cover", "fp0.2x1", "a1b2c3", 70, True)).split(","))))
def test_the_order_of_words_changes_nothing(words: list[str]) -> None:
    assume(words and len(set(words)) == len(words))
    assert parse_spec(",".join(words)) == parse_spec(",".join(sorted(words)))


@pytest.mark.parametrize(
    ("text", "point"),
    [("w1,h1,cover,fp0.2x1", (0.2, 1.0)), ("w1,h1,cover,smart", None), ("w1,h1,cover,fp0.5x0.5", None)],
)
def test_focal_points(text: str, point: tuple[float, float] | None) -> None:
    assert parse_spec(text).focal_point() == point
