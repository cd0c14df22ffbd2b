"""The rules for object keys."""

import string
from collections.abc import Callable
from datetime import datetime
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidKey
from app.core.object_keys import (
    MAX_KEY_BYTES,
    cache_control,
    check_readable,
    content_addressed_key,
    generated_key,
    imported_key,
    is_canonical,
    looks_immutable,
    named_key,
    url_path,
)
from app.core.objects import FORMATS

PNG, JPEG = FORMATS["png"], FORMATS["jpeg"]
NOW = datetime(2026, 11, 22, 8, 5, 9)
GENERATED = "generated/2026/11/20261122_080509_" + "0" * 24 + ".png"


def test_content_addressed_keys_contain_the_hash() -> None:
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # SHA-256 of "a", FIPS 180-4
    assert content_addressed_key(b"a", PNG) == f"images/ca/{digest[2:32]}.png"
    assert content_addressed_key(b"a", JPEG, "users/123") == f"users/123/ca/{digest[2:32]}.jpg"


def test_generated_keys_are_dated_and_unguessable() -> None:
    keys = {generated_key(NOW, PNG) for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("generated/2026/11/20261122_080509_")
        assert len(key.rpartition("_")[2]) == 24 + len(".png")


@pytest.mark.parametrize(
    "make",
    [
        partial(content_addressed_key, b"a", PNG),
        partial(content_addressed_key, b"a", PNG, "a/b"),
        partial(generated_key, NOW, JPEG, "x"),
    ],
    ids=["hash", "hash in a folder", "generated"],
)
def test_keys_created_by_the_server_look_immutable(make: Callable[[], str]) -> None:
    key = make()
    assert is_canonical(key)
    assert looks_immutable(key)
    assert cache_control(immutable=looks_immutable(key)) == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("key", ["a.png", "users/123/profile.png", "images/ab/short.png", "2026/11/x.png"])
def test_named_keys_are_mutable(key: str) -> None:
    assert is_canonical(key)
    assert not looks_immutable(key)
    assert cache_control(immutable=looks_immutable(key)) == "public, no-cache"


@pytest.mark.parametrize(
    "name",
    ["ab/" + "0" * 30 + ".png", "ab/" + "0" * 30, "2026/11/20261122_080509_" + "0" * 24],
)
def test_a_name_that_looks_immutable_is_rejected(name: str) -> None:
    with pytest.raises(InvalidKey):
        named_key(name, PNG, "folder")


def test_the_message_says_when_the_whole_key_is_too_long() -> None:
    parts = ["x" * 200] * 5
    with pytest.raises(InvalidKey, match="1042 bytes long, but S3 allows at most 1024"):
        content_addressed_key(b"x", PNG, "/".join(parts))
    with pytest.raises(InvalidKey, match="bytes long, but S3 allows at most 1024"):
        named_key("y" * 100, PNG, "/".join(parts))
    with pytest.raises(InvalidKey, match="1 to 255 characters"):
        named_key("y" * 256, PNG)
    assert is_canonical(named_key("y" * 251 + ".png", PNG))


@pytest.mark.parametrize(
    ("path", "folder", "key"),
    [
        ("a.png", None, "a.png"),
        ("a.PNG", "users/1", "users/1/a.png"),
        ("a.jpg", None, "a.png"),
        (content_addressed_key(b"x", PNG), None, content_addressed_key(b"x", PNG)),
        (content_addressed_key(b"x", PNG), "deep", "deep/" + content_addressed_key(b"x", PNG)),
        (GENERATED, None, GENERATED),
        ("Trip 2026/IMG 1.PNG", "me", "me/Trip-2026/IMG-1.png"),
    ],
)
def test_imported_keys(path: str, folder: str | None, key: str) -> None:
    assert imported_key(path, b"x", PNG, folder) == key


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("../a.png", None),
        ("a\\b.png", None),
        ("a.png", "../up"),
        ("a.png/b.png", None),
        (content_addressed_key(b"other", PNG), None),
        ("ab/" + "0" * 30 + ".png", "images"),
    ],
)
def test_paths_that_cannot_be_imported(path: str, folder: str | None) -> None:
    with pytest.raises(InvalidKey):
        imported_key(path, b"x", PNG, folder)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a",
        "a.txt",
        "a.PNG",
        ".png",
        "/a.png",
        "a//b.png",
        "a/./b.png",
        "../a.png",
        "a/../b.png",
        "a/.b.png",
        "a.png/b.png",
        "a.JpG/b.png",
        "a/b.png/",
        "a\\b.png",
        "a b.png",
        "ä.png",
        "a\n.png",
        "a.png\n",
        "a\0.png",
        "~a.png",
        "x" * 201 + ".png",
        "d/" * 600 + "a.png",
    ],
)
def test_keys_that_are_not_canonical(key: str) -> None:
    assert not is_canonical(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "a//b",
        "a/",
        "/a",
        ".",
        "..",
        "a/..",
        "../a",
        "a/./b",
        "a\0",
        "a\nb",
        "a\\b",
        "a\x7f",
        "\ud800",
        "x" * 1025,
    ],
)
def test_keys_that_are_not_readable(key: str) -> None:
    with pytest.raises(InvalidKey):
        check_readable(key)


@pytest.mark.parametrize("key", ["a", "a b", "Ä/ö.PNG", "...", ".hidden", "a+b&c=d?e#f", "ü" * 512])
def test_readable_keys(key: str) -> None:
    check_readable(key)


def test_url_path_encodes_reserved_characters() -> None:
    assert url_path("a b/ü?#%+.png") == "a%20b/%C3%BC%3F%23%25%2B.png"
    assert url_path("a-b_c.d~e/f.png") == "a-b_c.d~e/f.png"


@pytest.mark.fuzz
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_name_and_folder_result_in_a_canonical_key_or_an_error(name: str, folder: str) -> None:
    makers = [
        partial(named_key, name, PNG, folder),
        partial(content_addressed_key, b"a", PNG, folder or None),
    ]
    for make in makers:
        try:
            key = make()
        except InvalidKey:
            continue
        assert is_canonical(key)
        assert key.endswith(".png")
        check_readable(key)


@pytest.mark.fuzz
@given(st.lists(st.text(string.ascii_letters + string.digits + "._-/", min_size=1), min_size=1, max_size=6))
def test_no_key_is_both_a_file_and_a_directory(parts: list[str]) -> None:
    key = "/".join(parts)
    if is_canonical(key):
        assert not is_canonical(f"{key}/x.png")
        assert len(key.encode()) <= MAX_KEY_BYTES
        assert all(part not in ("", ".", "..") for part in key.split("/"))
