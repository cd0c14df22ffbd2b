"""Tests of the paths and the cache keys of variants."""

import pytest

from app.core.object_keys import is_canonical
from app.core.objects import FORMATS
from app.core.variant_keys import (
    VariantPath,
    can_have_variants,
    is_first_frame,
    is_variant_key,
    is_variant_of,
    requested_path,
    source_of,
    split_variant_path,
    variant_etag,
    variant_keys,
)

PATHS = {
    "a.jpg/w640.webp": ("a.jpg", "w640", "webp"),
    "images/05/4e.jpg/w640": ("images/05/4e.jpg", "w640", ""),
    "a.JPEG/w128,h128,cover.AVIF": ("a.JPEG", "w128,h128,cover", "avif"),
    "a.png/w9,h9,cover,fp0.5x0.3": ("a.png", "w9,h9,cover,fp0.5x0.3", ""),
    "a.png/w9,h9,cover,fp0.5x0.3.png": ("a.png", "w9,h9,cover,fp0.5x0.3", "png"),
    "a.png/thumb.gif": ("a.png", "thumb", "gif"),
    "a.png/info": ("a.png", "info", ""),
    "a.png/.webp": ("a.png", ".webp", ""),
    "a.png/w640.bmp": ("a.png", "w640.bmp", ""),
    "a.png/b.png/w640.webp": ("a.png/b.png", "w640", "webp"),
    "a b\nc.png/w640": ("a b\nc.png", "w640", ""),
}


@pytest.mark.parametrize(("path", "parts"), PATHS.items())
def test_the_path_of_a_variant_is_the_key_and_a_name(path: str, parts: tuple[str, str, str]) -> None:
    found = split_variant_path(path)
    assert found == VariantPath(*parts)
    assert str(found).lower() == path.lower()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a.jpg",
        "a.jpg/",
        "/w640",
        "a/w640.webp",
        "a.jpg/x/w640",
        ".jpg/w640",
        "a/.jpg/w640",
        "a.jpgx/w640",
    ],
)
def test_other_paths_are_no_paths_of_variants(path: str) -> None:
    assert split_variant_path(path) is None


@pytest.mark.parametrize("path", [path for path in PATHS if path.endswith((".webp", ".png", ".gif"))])
def test_no_path_of_a_variant_is_a_key_that_the_server_creates(path: str) -> None:
    assert not is_canonical(path)


def test_the_extension_names_the_format() -> None:
    formats = {
        extension: VariantPath("a.png", "w1", extension).format for extension in ("jpeg", "jpg", "avif", "")
    }
    assert formats == {"jpeg": FORMATS["jpeg"], "jpg": FORMATS["jpeg"], "avif": FORMATS["avif"], "": None}


@pytest.mark.parametrize(
    ("key", "can"), [("a.png", True), ("A.JPG", True), ("a", False), (".png", False), ("", False)]
)
def test_images_whose_key_has_an_image_extension_can_have_variants(key: str, can: bool) -> None:
    assert can_have_variants(key) is can


PATH = VariantPath("a/b.png", "w640", "webp")


@pytest.mark.parametrize(
    ("is_listed", "keys"),
    [
        (True, ("/variants/a/b.png/w640.webp", "/guarded/a/b.png/w640+first.webp")),
        (False, ("/guarded/a/b.png/w640.webp", "/guarded/a/b.png/w640+first.webp")),
    ],
)
def test_cache_keys_lead_back_to_the_source_and_to_the_path(is_listed: bool, keys: tuple[str, str]) -> None:
    assert variant_keys(PATH, is_listed=is_listed) == keys
    assert [is_first_frame(key) for key in keys] == [False, True]
    for key in keys:
        assert is_variant_key(key)
        assert source_of(key) == PATH.source
        assert requested_path(key) == str(PATH)


@pytest.mark.parametrize("key", ["a/b.png", "variants/a.png/w640.webp", "a.png/w1+first.webp"])
def test_keys_of_objects_are_not_keys_of_variants(key: str) -> None:
    assert not is_variant_key(key)
    assert not is_first_frame(key)
    assert source_of(key) == requested_path(key) == key


def test_the_entity_tag_identifies_the_version_of_the_source() -> None:
    tag = variant_etag('"v1"', 255)
    assert tag.endswith('-ff"')
    assert is_variant_of(tag, '"v1"')
    assert not is_variant_of(tag, '"v2"')
    assert not is_variant_of('"v1"', '"v1"')
