"""Tests of the rules that say which variants are permitted."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.config.settings import Config
from app.core.errors import InvalidVariant, SignatureRefused, VariantNotPermitted
from app.core.variant_keys import VariantPath, split_variant_path
from app.core.variant_specs import parse_spec
from app.services.signing import UrlSigner
from app.services.variant_rules import QUERY_NAMES, VariantRules, asks_for_variant

ROOT = Path(__file__).parents[2]
SIGNER = UrlSigner(["0123456789abcdef"])
PRESETS = {
    "thumb": parse_spec("w320,h320,cover"),
    "first": parse_spec("w64,still"),
    "full": parse_spec("contain"),
}


def _rules(mode: str = "on") -> VariantRules:
    return VariantRules(mode, (640, 64, 320), PRESETS, SIGNER)


def _path(name: str, source: str = "a/b.png") -> VariantPath:
    path = split_variant_path(f"{source}/{name}")
    assert path is not None
    return path


def _query(name: str, expires_at: int | None = None, source: str = "a/b.png") -> dict[str, str]:
    signed = SIGNER.sign(f"/api/images/{source}/{name}", expires_at)
    return dict(part.split("=") for part in signed.split("&"))


def test_the_listed_variants_are_the_widths_and_the_presets() -> None:
    rules = VariantRules("on", (64,), {"thumb": PRESETS["thumb"]}, SIGNER)
    assert rules.listed == {
        *("w64.avif", "w64.webp", "w64.jpg", "w64.png"),
        *("w64,still.avif", "w64,still.webp", "w64,still.png"),
        *("thumb.avif", "thumb.webp", "thumb.jpg", "thumb.png", "thumb.gif"),
    }
    assert rules.negotiable == {"w64", "w64,still", "thumb"}


def test_with_presets_only_these_are_listed() -> None:
    rules = _rules("presets")
    assert rules.negotiable == PRESETS.keys()
    assert len(rules.listed) == 5 * len(PRESETS)
    assert rules.widths == ()


def test_if_variants_are_off_none_is_listed_or_permitted() -> None:
    rules = _rules("off")
    assert (rules.listed, rules.negotiable) == (frozenset(), frozenset())
    for name in ("thumb.webp", "w640.webp", "w9,h9,cover.webp"):
        path, _ = rules.canonical(_path(name))
        with pytest.raises(VariantNotPermitted, match="switched off"):
            rules.check(path, _query(name))


def test_the_documentation_says_how_many_variants_strangers_can_make(config: Config) -> None:
    listed = VariantRules.from_config(config).listed
    text = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"at most (\d+) variants of an image", text)
    assert len(listed) == int(documented) < 200
    (of_presets,) = re.findall(r"`VARIANTS=presets`\s+reduces it to (\d+)", text)
    assert sum(not re.match(r"w\d", name) for name in listed) == int(of_presets)


@pytest.mark.parametrize("mode", ["on", "presets"])
def test_every_listed_variant_has_the_canonical_spelling_and_is_permitted(mode: str) -> None:
    rules = _rules(mode)
    for name in rules.listed | rules.negotiable:
        path, _ = rules.canonical(_path(name))
        assert str(path) == f"a/b.png/{name}"
        assert rules.is_listed(path)
        rules.check(path, {})


CANONICAL = {
    "w640.webp": "w640.webp",
    "W0640.WEBP": "w640.webp",
    "w640.jpeg": "w640.jpg",
    "still,w640": "w640,still",
    "w640,still.jpg": "w640.jpg",
    "w640,still.JPEG": "w640.jpg",
    "w640,still.webp": "w640,still.webp",
    "still.jpg": "still.jpg",
    "Thumb.PNG": "thumb.png",
    "thumb": "thumb",
    "first.jpg": "first.jpg",
    "full.jpeg": "full.jpg",
    "h9,w8,center,cover,q080.avif": "w8,h9,cover,q80.avif",
    "w9,h9,cover,fp.5x.3": "w9,h9,cover,fp0.5x0.3",
}


@pytest.mark.parametrize(("name", "canonical"), CANONICAL.items())
def test_each_variant_has_one_path(name: str, canonical: str) -> None:
    path, spec = _rules().canonical(_path(name))
    assert str(path) == f"a/b.png/{canonical}"
    assert spec == PRESETS.get(path.name) or str(spec) == path.name
    assert _rules().canonical(path) == (path, spec)


@pytest.mark.parametrize(
    "name",
    [
        "info",
        "info.json",
        "thumbs.webp",
        "w640.bmp",
        "w640.webp.webp",
        "contain.webp",
        "center",
        "w1,,h1",
        "é",
    ],
)
def test_other_names_are_invalid(name: str) -> None:
    with pytest.raises(InvalidVariant):
        _rules().canonical(_path(name))


def test_an_unknown_extension_is_invalid() -> None:
    with pytest.raises(InvalidVariant, match="avif, webp, jpg, png or gif"):
        _rules().canonical(VariantPath("a.png", "w640", "bmp"))


def test_the_message_for_an_unknown_name_lists_the_presets() -> None:
    with pytest.raises(InvalidVariant, match=r"out of range: 'thumbb'.* The presets are thumb, first, full,"):
        _rules().canonical(_path("thumbb.webp"))


UNLISTED = [
    "w641.webp",
    "w640.gif",
    "h640.webp",
    "w640,h640.webp",
    "w640,q80.webp",
    "q80",
    "w9,h9,cover,smart",
    "still.jpg",
]


@pytest.mark.parametrize("name", UNLISTED)
@pytest.mark.parametrize("mode", ["on", "presets"])
def test_other_variants_need_a_signature(mode: str, name: str) -> None:
    rules = _rules(mode)
    path, _ = rules.canonical(_path(name))
    assert not rules.is_listed(path)
    with pytest.raises(VariantNotPermitted):
        rules.check(path, {})
    with pytest.raises(VariantNotPermitted):
        rules.check(path, {"exp": "1900000000"})
    rules.check(path, _query(name))
    rules.check(path, _query(name, int(time.time()) + 60) | {"v": "2"})


def test_widths_need_a_signature_if_only_presets_are_listed() -> None:
    path = _path("w640.webp")
    with pytest.raises(VariantNotPermitted, match=r"signature\. The permitted presets are thumb"):
        _rules("presets").check(path, {})
    _rules("presets").check(path, _query("w640.webp"))


@pytest.mark.parametrize(
    "query",
    [
        *[{"sig": ""}, {"sig": "x"}, {"sig": "A" * 43}],
        *[_query("w641.avif"), _query("w641"), _query("w642.webp"), _query("w641.webp", source="a/c.png")],
        *[_query("w641.webp", 1_000_000_000), _query("w641.webp") | {"exp": "1900000000"}],
    ],
)
def test_a_signature_of_something_else_is_refused(query: Mapping[str, str]) -> None:
    with pytest.raises(SignatureRefused):
        _rules().check(_path("w641.webp"), query)


def test_the_key_is_percent_encoded_in_what_is_signed() -> None:
    path = _path("w641,h9.webp", "a,b é?.png")
    _rules().check(path, _query("w641,h9.webp", source="a%2Cb%20%C3%A9%3F.png"))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("w650.webp", 640),
        ("w9999.webp", 640),
        ("w1.webp", 64),
        ("w191.webp", 64),
        ("w193.webp", 320),
        ("h300.webp", 320),
    ],
)
def test_the_message_names_the_nearest_width_and_the_presets(name: str, width: int) -> None:
    with pytest.raises(VariantNotPermitted) as caught:
        _rules().check(_path(name), {})
    assert caught.value.message == (
        f"This variant is not permitted without a signature. The nearest permitted width is w{width}. "
        "The permitted presets are thumb, first, full. To sign a URL, run: flask images sign"
    )


QUERIES = [
    ({}, None),
    ({"v": "2", "sig": "x", "exp": "1"}, None),
    ({"w": "640"}, ("w640", "")),
    ({"w": "0640", "format": "auto", "v": "2"}, ("w640", "")),
    ({"w": "640", "format": "JPEG"}, ("w640", "jpg")),
    ({"w": "640", "format": "jpg", "still": "1"}, ("w640", "jpg")),
    ({"w": "640", "format": "webp", "still": "true"}, ("w640,still", "webp")),
    ({"w": "640", "still": "0", "h": "480"}, ("w640,h480", "")),
    (
        {"w": "8", "h": "9", "fit": "COVER", "gravity": "fp.5x.25", "q": "80", "format": "avif"},
        ("w8,h9,cover,fp0.5x0.25,q80", "avif"),
    ),
    ({"w": "8", "h": "9", "fit": "cover", "gravity": "smart"}, ("w8,h9,cover,smart", "")),
    ({"w": "8", "h": "9", "fit": "cover", "gravity": "north"}, ("w8,h9,cover,north", "")),
    ({"h": "9", "w": "8", "fit": "pad", "bg": "#A1B2C3"}, ("w8,h9,pad,bga1b2c3", "")),
    ({"preset": "Thumb"}, ("thumb", "")),
    ({"preset": "thumb", "format": "gif"}, ("thumb", "gif")),
    ({"q": "80"}, ("q80", "")),
    ({"still": "1"}, ("still", "")),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES)
def test_queries_describe_variants(query: dict[str, str], expected: tuple[str, str] | None) -> None:
    assert _rules().from_query(query) == expected


INVALID_QUERIES = [
    *[{"w": value} for value in ("", "0", "-1", "1.5", "640px", "est", "99999", "640,h480", "٣", "1" * 300)],
    *[{"w": "9", "h": "9", "fit": value} for value in ("", "smart", "crop", "cover,smart")],
    *[
        {"w": "9", "h": "9", "gravity": value}
        for value in ("", "cover", "fp", "fp2x2", "fp0.5", "w7", "north,still")
    ],
    *[{"w": "9", "bg": value} for value in ("", "red", "#fff", "112233,still", "##112233")],
    *[{"w": "9", "q": value} for value in ("", "0", "39", "96")],
    *[{"w": "9", "still": value} for value in ("", "2", "still")],
    *[{"w": "9", "format": value} for value in ("", "bmp", "svg")],
    *[{"format": "webp"}, {"still": "0"}, {"fit": "cover"}],
    *[{"preset": value} for value in ("", "none", "w640")],
    {"preset": "thumb", "w": "9"},
]


@pytest.mark.parametrize("query", INVALID_QUERIES)
def test_invalid_queries_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(InvalidVariant) as caught:
        _rules().from_query(query)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("query_string", "asks"),
    [
        ("", False),
        ("v=2", False),
        ("sig=x&exp=1", False),
        ("width=9&ww=1", False),
        ("=w", False),
        ("v=w", False),
    ]
    + [(f"v=2&{name}=", True) for name in sorted(QUERY_NAMES)]
    + [("%77=9", True), ("w", True), ("w&v=2", True), ("%ff&w=9", True)],
)
def test_query_strings_that_ask_for_a_variant_are_recognised(query_string: str, asks: bool) -> None:
    assert asks_for_variant(query_string) is asks
