"""Tests of the URLs of variants."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from app.config.settings import Config
from app.core.errors import InvalidKey, InvalidVariant, VariantNotPermitted
from app.core.variant_keys import split_variant_path
from app.core.variant_specs import parse_spec
from app.services.signing import UrlSigner
from app.services.variant_rules import VariantRules
from app.services.variant_urls import VariantUrls

SIGNER = UrlSigner(["0123456789abcdef"])
PRESETS = {"thumb": parse_spec("w320,h320,cover")}
LADDER = (16, 64, 200, 320, 480, 640, 750, 1080, 1200)
CDN = "https://cdn.example.org/img"


def _urls(mode: str = "on", base_url: str = "", widths: tuple[int, ...] = LADDER) -> VariantUrls:
    return VariantUrls(VariantRules(mode, widths, PRESETS, SIGNER), base_url)


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (("a b.png", "thumb", ""), "/api/images/a%20b.png/thumb"),
        (("a.png", "THUMB", "JPEG"), "/api/images/a.png/thumb.jpg"),
        (("x/a.png", "w0640", "webp"), "/api/images/x/a.png/w640.webp"),
        (("a.png", "still,w640", ""), "/api/images/a.png/w640,still"),
    ],
)
def test_urls_of_listed_variants_have_the_canonical_spelling(
    arguments: tuple[str, str, str], url: str
) -> None:
    assert _urls().url_of(*arguments) == url
    assert _urls().url_of(*arguments, expires_at=2_000_000_000) == url


@pytest.mark.parametrize("base_url", ["", CDN, f"{CDN}/"])
@pytest.mark.parametrize("expires_at", [None, 4_000_000_000])
@pytest.mark.parametrize(("name", "extension"), [("h9,w8,cover", "avif"), ("w641", ""), ("w640", "gif")])
def test_other_urls_have_a_signature_that_the_rules_accept(
    base_url: str, expires_at: int | None, name: str, extension: str
) -> None:
    urls = _urls(base_url=base_url)
    url = urls.url_of("x/a,é.png", name, extension, expires_at)
    parts = urlsplit(url)
    prefix = "/img/" if base_url else "/api/images/"
    assert url.startswith(f"{CDN}/x/a%2C%C3%A9.png/" if base_url else "/api/images/x/a%2C%C3%A9.png/")
    query = dict(parse_qsl(parts.query))
    assert query.get("exp") == (None if expires_at is None else str(expires_at))
    path = split_variant_path(parts.path.removeprefix(prefix).replace("%2C%C3%A9", ",é"))
    assert path is not None
    urls.rules.check(path, query)
    assert urls.rules.canonical(path)[0] == path


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        *[
            (("a.png", name, ""), InvalidVariant)
            for name in ("", "thumbs", "info", "w640.webp", "w0", "../w640")
        ],
        *[(("a.png", "w640", extension), InvalidVariant) for extension in ("bmp", "json", ".webp")],
        *[
            ((key, "w640", ""), InvalidKey)
            for key in ("", "a", "a/b.txt", "../a.png", "a//b.png", "/a.png", "a\n.png")
        ],
    ],
)
def test_invalid_names_and_keys_are_refused(arguments: tuple[str, str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        _urls().url_of(*arguments)


def test_presets_and_a_spread_of_widths_are_offered() -> None:
    assert _urls().urls_of("a b.png", 5000) == {
        "thumb": "/api/images/a%20b.png/thumb",
        "srcset": ", ".join(
            f"/api/images/a%20b.png/w{width} {width}w" for width in (320, 480, 750, 1080, 1200)
        ),
    }


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        *[
            (None, []),
            (1080, [320, 480, 750, 1080]),
            (1079, [320, 480, 750]),
            (320, [320]),
        ],
        *[(319, [200]), (200, [200]), (199, [64]), (16, [16]), (15, []), (1, [])],
    ],
)
def test_no_width_exceeds_that_of_the_image(width: int | None, widths: list[int]) -> None:
    srcset = _urls(base_url=CDN).urls_of("a.png", width).get("srcset", "")
    assert srcset == ", ".join(f"{CDN}/a.png/w{listed} {listed}w" for listed in widths)


def test_widths_below_320_are_offered_only_for_small_images() -> None:
    urls = _urls(widths=(16, 64))
    assert "srcset" not in urls.urls_of("a.png", None)
    assert urls.urls_of("a.png", 1000)["srcset"] == "/api/images/a.png/w64 64w"


def test_every_offered_url_is_one_of_a_listed_variant(config: Config) -> None:
    urls = VariantUrls.from_config(config)
    offered = urls.urls_of("a.png", 5000)
    names = [url.rpartition("/")[2] for url in offered.values() if "," not in url]
    names += [entry.split()[0].rpartition("/")[2] for entry in offered["srcset"].split(", ")]
    assert set(names) <= urls.rules.negotiable
    assert len(names) > 4


def test_with_presets_there_is_no_srcset_and_without_variants_nothing() -> None:
    assert _urls("presets").urls_of("a.png", 5000) == {"thumb": "/api/images/a.png/thumb"}
    assert _urls("off").urls_of("a.png", 5000) == {}
    with pytest.raises(VariantNotPermitted):
        _urls("off").url_of("a.png", "thumb")
    assert "?sig=" in _urls("presets").url_of("a.png", "w640")


@pytest.mark.parametrize("key", ["a", "a.txt", "", "../a.png", "a//b.png"])
def test_nothing_is_offered_for_keys_that_can_have_no_variants(key: str) -> None:
    assert _urls().urls_of(key, 640) == {}


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({}, "/api/images"),
        ({"public_base_url": CDN}, CDN),
        ({"store": "s3", "s3_bucket": "cats", "public_base_url": CDN}, "/api/images"),
        ({"store": "s3", "s3_bucket": "cats", "public_base_url": CDN, "image_urls": "server"}, CDN),
        ({"public_base_url": "https://other.example", "variants_base_url": CDN}, CDN),
        ({"store": "s3", "s3_bucket": "cats", "variants_base_url": CDN}, CDN),
    ],
)
def test_urls_begin_with_a_base_that_leads_to_this_server(
    config: Config, changes: dict[str, Any], prefix: str
) -> None:
    urls = VariantUrls.from_config(replace(config, **changes))
    assert urls.url_of("a.png", "thumb") == f"{prefix}/a.png/thumb"
    assert urls.urls_of("a.png")["card"] == f"{prefix}/a.png/card"


def test_the_keys_in_the_settings_sign(config: Config, tmp_path: Path) -> None:
    urls = VariantUrls.from_config(replace(config, signing_keys=("0123456789abcdef",)))
    assert urls.url_of("a.png", "w641") == f"/api/images/a.png/w641?{SIGNER.sign('/api/images/a.png/w641')}"
    assert not config.state_dir.exists()
