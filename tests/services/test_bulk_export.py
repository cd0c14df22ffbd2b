"""Tests of exports of the store's images into a directory."""

import gzip
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core import object_keys as keys
from app.core.object_keys import content_addressed_key
from app.core.objects import FORMATS, ObjectFacts, StoredObject
from app.services.bulk import BulkOutcome, BulkResult
from app.services.bulk_export import Exporter
from app.services.images import ListedImage
from app.stores.base import BaseStore
from tests.pictures import noise

IMMUTABLE = content_addressed_key(noise(1), FORMATS["png"])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The directory to export into, which does not exist yet."""
    return tmp_path / "new" / "target"


@pytest.fixture
def gets(store: BaseStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that were fetched from the store."""
    fetched: list[str] = []
    get = store.get

    def counting(key: str, **options: Any) -> Any:
        fetched.append(key)
        return get(key, **options)

    monkeypatch.setattr(store, "get", counting)
    return fetched


def _put(store: BaseStore, key: str, data: bytes) -> ListedImage:
    facts = store.put(key, data, content_type="image/png").facts
    return ListedImage(key, "image/png", facts.size, facts.last_modified)


def _export(store: BaseStore, target: Path, image: ListedImage) -> BulkResult:
    with Exporter.into(store, target) as exporter:
        return exporter.export_image(image)


def _tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("key", [IMMUTABLE, "users/123/me.png", "top.png"])
def test_an_exported_file_has_the_bytes_and_mtime_and_is_fetched_once(
    store: BaseStore, target: Path, gets: list[str], key: str
) -> None:
    image = _put(store, key, noise(1))
    assert [_export(store, target, image).outcome for _ in range(2)] == [
        BulkOutcome.DONE,
        BulkOutcome.UNCHANGED,
    ]
    assert (target / key).read_bytes() == noise(1)
    assert (target / key).stat().st_mtime == image.last_modified.timestamp()
    assert (_tree(target), gets) == ([key], [key])
    assert list(target.glob(".export-*")) == []


@pytest.mark.parametrize(
    ("key", "size", "older", "outcome"),
    [
        ("named.png", 0, True, BulkOutcome.DONE),
        ("named.png", 0, False, BulkOutcome.UNCHANGED),
        ("named.png", 1, False, BulkOutcome.DONE),
        (IMMUTABLE, 0, True, BulkOutcome.DONE),
        (IMMUTABLE, 0, False, BulkOutcome.UNCHANGED),
        ("generated/2026/11/20261122_080509_" + "0" * 24 + ".png", 0, True, BulkOutcome.DONE),
        (IMMUTABLE, 1, True, BulkOutcome.DONE),
    ],
)
def test_an_image_is_unchanged_if_its_file_has_the_size_and_mtime_or_the_digest(
    store: BaseStore, target: Path, key: str, size: int, older: bool, outcome: BulkOutcome
) -> None:
    image = _put(store, key, noise(1))
    path = target / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * (image.size - size))
    when = image.last_modified.timestamp() - older
    os.utime(path, (when, when))
    assert _export(store, target, image) == BulkResult(key, outcome)
    assert (path.read_bytes() == noise(1)) == (outcome is BulkOutcome.DONE)


def test_a_copy_with_a_different_mtime_is_recognized_by_the_digest_in_its_key(
    store: BaseStore, target: Path
) -> None:
    image = _put(store, IMMUTABLE, noise(1))
    (target / IMMUTABLE).parent.mkdir(parents=True)
    (target / IMMUTABLE).write_bytes(noise(1))
    os.utime(target / IMMUTABLE, (0, 0))
    assert _export(store, target, image).outcome is BulkOutcome.UNCHANGED


def test_an_image_in_the_metadata_directory_is_reported(store: BaseStore, target: Path) -> None:
    image = ListedImage(".metadata/a.png", "image/png", 1, datetime.now(UTC))
    result = _export(store, target, image)
    assert result.outcome is BulkOutcome.FAILED
    assert ".metadata" in result.reason


def _encoded(store: BaseStore, codings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    get = store.get

    def encoded(key: str) -> StoredObject:
        stored = get(key)
        assert stored is not None
        return replace(stored, facts=replace(stored.facts, content_encoding=codings))

    monkeypatch.setattr(store, "get", encoded)


def test_an_encoded_object_is_not_written_as_an_image(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _put(store, "a.png", gzip.compress(noise(1)))
    _encoded(store, "gzip", monkeypatch)
    result = _export(store, target, image)
    assert result.outcome is BulkOutcome.FAILED
    assert "Content-Encoding: gzip" in result.reason
    assert _tree(target) == []


@pytest.mark.parametrize("codings", ["base64", "utf-8", "binary", "none", "gzip"])
def test_an_image_with_a_wrong_content_encoding_is_written(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch, codings: str
) -> None:
    image = _put(store, "a.png", noise(1))
    _encoded(store, codings, monkeypatch)
    assert _export(store, target, image) == BulkResult("a.png", BulkOutcome.DONE)
    assert (target / "a.png").read_bytes() == noise(1)


@pytest.mark.parametrize(
    "key",
    [
        "../out.png",
        "a/../../out.png",
        "/etc/out.png",
        "a//b.png",
        "./a.png",
        "a\x00.png",
        "a\\b.png",
        "\ud800.png",
    ],
)
def test_keys_that_are_not_paths_are_reported(
    store: BaseStore, target: Path, gets: list[str], key: str
) -> None:
    image = ListedImage(key, "image/png", 1, datetime.now(UTC))
    assert _export(store, target, image) == BulkResult(key, BulkOutcome.FAILED, keys._INVALID_KEY_MESSAGE)
    assert (_tree(target.parent), gets) == ([], [])


def test_a_name_too_long_for_the_file_system_is_reported(target: Path, store: BaseStore) -> None:
    image = ListedImage("x" * 300 + ".png", "image/png", 1, datetime.now(UTC))
    assert _export(store, target, image).reason == "File name too long"


def test_a_symbolic_link_to_outside_the_directory_is_not_followed(
    store: BaseStore, target: Path, tmp_path: Path, gets: list[str]
) -> None:
    image = _put(store, "users/123/me.png", noise(1))
    outside = tmp_path / "outside"
    outside.mkdir()
    target.mkdir(parents=True)
    (target / "users").symlink_to(outside)
    reason = "A symbolic link in its path leads outside the directory."
    assert _export(store, target, image) == BulkResult("users/123/me.png", BulkOutcome.FAILED, reason)
    assert (list(outside.iterdir()), gets) == ([], [])


def test_a_symbolic_link_in_place_of_the_file_is_replaced(
    store: BaseStore, target: Path, tmp_path: Path
) -> None:
    image = _put(store, "me.png", noise(1))
    (tmp_path / "outside").write_bytes(noise(2))
    target.mkdir(parents=True)
    (target / "me.png").symlink_to(tmp_path / "outside")
    assert _export(store, target, image).outcome is BulkOutcome.DONE
    assert (target / "me.png").read_bytes() == noise(1)
    assert (tmp_path / "outside").read_bytes() == noise(2)


@pytest.mark.parametrize("there", ["a.png", "a.png/b.png"])
def test_a_path_that_needs_a_directory_in_place_of_a_file_is_reported(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    class Empty:
        def read(self, size: int = -1, /) -> bytes:
            return b""

        def close(self) -> None: ...

    now = datetime.now(UTC)

    def get(key: str) -> StoredObject:
        return StoredObject(ObjectFacts(key, 0, "image/png", '"x"', now), Empty())

    monkeypatch.setattr(store, "get", get)
    (target / there).parent.mkdir(parents=True)
    (target / there).write_bytes(b"")
    (other,) = {"a.png", "a.png/b.png"} - {there}
    result = _export(store, target, ListedImage(other, "image/png", 0, now))
    assert (result.outcome, result.reason[:26]) == (BulkOutcome.FAILED, "its path needs a directory")
    assert _tree(target) == [there]


def test_an_incomplete_body_leaves_no_file(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _put(store, "me.png", noise(1))
    get = store.get

    def longer(key: str) -> StoredObject:
        stored = get(key)
        assert stored is not None
        facts = stored.facts
        grown = ObjectFacts(key, facts.size + 1, facts.content_type, facts.etag, facts.last_modified)
        return StoredObject(grown, stored.body)

    monkeypatch.setattr(store, "get", longer)
    assert _export(store, target, image).outcome is BulkOutcome.FAILED
    assert _tree(target) == []


def test_an_image_deleted_in_the_meantime_is_reported(store: BaseStore, target: Path) -> None:
    image = ListedImage("gone.png", "image/png", 1, datetime.now(UTC))
    assert _export(store, target, image).reason.startswith("There is no image with this key.")


@pytest.mark.parametrize("key", [IMMUTABLE, "users/123/me.png"])
@pytest.mark.parametrize("size", [0, 1])
def test_an_image_with_a_different_size_than_listed_fails(
    store: BaseStore, target: Path, key: str, size: int
) -> None:
    """A backup must not silently contain a different image than the listing."""
    image = _put(store, key, noise(1))
    result = _export(store, target, replace(image, size=size))
    assert result.outcome is BulkOutcome.FAILED
    assert f"{image.size} bytes, but {size} in the listing" in result.reason
    assert _tree(target) == []


def test_an_image_replaced_since_it_was_listed_is_exported(store: BaseStore, target: Path) -> None:
    image = _put(store, "users/123/me.png", noise(1))
    listed = replace(image, size=1, last_modified=image.last_modified - timedelta(seconds=2))
    assert _export(store, target, listed).outcome is BulkOutcome.DONE
    assert (target / image.key).read_bytes() == noise(1)
