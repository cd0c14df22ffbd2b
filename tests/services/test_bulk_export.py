"""From the store into a directory."""

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
from app.services.bulk import Outcome, Result
from app.services.bulk_export import Exporter, Wanted
from app.stores.base import BaseStore
from tests.pictures import noise

IMMUTABLE = content_addressed_key(noise(1), FORMATS["png"])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to, not there yet."""
    return tmp_path / "new" / "target"


@pytest.fixture
def gets(store: BaseStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that the store was asked for."""
    asked: list[str] = []
    get = store.get

    def counting(key: str, **options: Any) -> Any:
        asked.append(key)
        return get(key, **options)

    monkeypatch.setattr(store, "get", counting)
    return asked


def _put(store: BaseStore, key: str, data: bytes) -> Wanted:
    facts = store.put(key, data, content_type="image/png").facts
    return Wanted(key, facts.size, facts.last_modified)


def _bring(store: BaseStore, target: Path, wanted: Wanted) -> Result:
    with Exporter.into(store, target) as exporter:
        return exporter.bring(wanted)


def _tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("key", [IMMUTABLE, "users/123/me.png", "top.png"])
def test_a_file_has_the_bytes_and_the_time_and_is_fetched_once(
    store: BaseStore, target: Path, gets: list[str], key: str
) -> None:
    wanted = _put(store, key, noise(1))
    assert [_bring(store, target, wanted).outcome for _ in range(2)] == [Outcome.DONE, Outcome.THERE]
    assert (target / key).read_bytes() == noise(1)
    assert (target / key).stat().st_mtime == wanted.last_modified.timestamp()
    assert (_tree(target), gets) == ([key], [key])
    assert list(target.glob(".export-*")) == []


@pytest.mark.parametrize(
    ("key", "size", "older", "outcome"),
    [
        ("named.png", 0, True, Outcome.DONE),
        ("named.png", 0, False, Outcome.THERE),
        ("named.png", 1, False, Outcome.DONE),
        (IMMUTABLE, 0, True, Outcome.DONE),
        (IMMUTABLE, 0, False, Outcome.THERE),
        ("generated/2026/11/20261122_080509_" + "0" * 24 + ".png", 0, True, Outcome.DONE),
        (IMMUTABLE, 1, True, Outcome.DONE),
    ],
)
def test_what_counts_as_there_already(
    store: BaseStore, target: Path, key: str, size: int, older: bool, outcome: Outcome
) -> None:
    wanted = _put(store, key, noise(1))
    path = target / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * (wanted.size - size))
    when = wanted.last_modified.timestamp() - older
    os.utime(path, (when, when))
    assert _bring(store, target, wanted) == Result(key, outcome)
    assert (path.read_bytes() == noise(1)) == (outcome is Outcome.DONE)


def test_a_copy_without_its_time_counts_by_the_digest_in_its_key(store: BaseStore, target: Path) -> None:
    wanted = _put(store, IMMUTABLE, noise(1))
    (target / IMMUTABLE).parent.mkdir(parents=True)
    (target / IMMUTABLE).write_bytes(noise(1))
    os.utime(target / IMMUTABLE, (0, 0))
    assert _bring(store, target, wanted).outcome is Outcome.THERE


def test_an_image_where_an_import_looks_for_metadata_is_not_lost_in_silence(
    store: BaseStore, target: Path
) -> None:
    wanted = Wanted(".metadata/a.png", 1, datetime.now(UTC))  # in a bucket there may be such a key
    result = _bring(store, target, wanted)
    assert result.outcome is Outcome.FAILED
    assert ".metadata" in result.reason


def _encoded(store: BaseStore, codings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    get = store.get

    def encoded(key: str) -> StoredObject:
        stored = get(key)
        assert stored is not None
        return replace(stored, facts=replace(stored.facts, content_encoding=codings))

    monkeypatch.setattr(store, "get", encoded)


def test_an_encoded_object_is_not_written_as_if_it_were_an_image(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _put(store, "a.png", gzip.compress(noise(1)))
    _encoded(store, "gzip", monkeypatch)
    result = _bring(store, target, wanted)
    assert result.outcome is Outcome.FAILED
    assert "Content-Encoding: gzip" in result.reason
    assert _tree(target) == []


@pytest.mark.parametrize("codings", ["base64", "utf-8", "binary", "none", "gzip"])
def test_an_image_that_is_not_encoded_but_says_so_is_written(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch, codings: str
) -> None:
    wanted = _put(store, "a.png", noise(1))
    _encoded(store, codings, monkeypatch)
    assert _bring(store, target, wanted) == Result("a.png", Outcome.DONE)
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
def test_keys_that_are_no_paths_are_reported(
    store: BaseStore, target: Path, gets: list[str], key: str
) -> None:
    wanted = Wanted(key, 1, datetime.now(UTC))
    assert _bring(store, target, wanted) == Result(key, Outcome.FAILED, keys._UNSAFE)
    assert (_tree(target.parent), gets) == ([], [])


def test_a_name_too_long_for_the_file_system_is_reported(target: Path, store: BaseStore) -> None:
    wanted = Wanted("x" * 300 + ".png", 1, datetime.now(UTC))
    assert _bring(store, target, wanted).reason == "File name too long"


def test_no_symbolic_link_leads_out(store: BaseStore, target: Path, tmp_path: Path, gets: list[str]) -> None:
    wanted = _put(store, "users/123/me.png", noise(1))
    outside = tmp_path / "outside"
    outside.mkdir()
    target.mkdir(parents=True)
    (target / "users").symlink_to(outside)
    reason = "A symbolic link leads out of the directory there."
    assert _bring(store, target, wanted) == Result("users/123/me.png", Outcome.FAILED, reason)
    assert (list(outside.iterdir()), gets) == ([], [])


def test_a_link_in_the_file_s_place_is_replaced_not_written_through(
    store: BaseStore, target: Path, tmp_path: Path
) -> None:
    wanted = _put(store, "me.png", noise(1))
    (tmp_path / "outside").write_bytes(noise(2))
    target.mkdir(parents=True)
    (target / "me.png").symlink_to(tmp_path / "outside")
    assert _bring(store, target, wanted).outcome is Outcome.DONE
    assert (target / "me.png").read_bytes() == noise(1)
    assert (tmp_path / "outside").read_bytes() == noise(2)


@pytest.mark.parametrize("there", ["a.png", "a.png/b.png"])
def test_a_key_that_needs_a_directory_where_a_file_is_and_the_other_way_round(
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
    result = _bring(store, target, Wanted(other, 0, now))
    assert (result.outcome, result.reason[:26]) == (Outcome.FAILED, "its path needs a directory")
    assert _tree(target) == [there]


def test_a_body_that_breaks_off_leaves_no_file(
    store: BaseStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _put(store, "me.png", noise(1))
    get = store.get

    def longer(key: str) -> StoredObject:
        stored = get(key)
        assert stored is not None
        facts = stored.facts
        grown = ObjectFacts(key, facts.size + 1, facts.content_type, facts.etag, facts.last_modified)
        return StoredObject(grown, stored.body)

    monkeypatch.setattr(store, "get", longer)
    assert _bring(store, target, wanted).outcome is Outcome.FAILED
    assert _tree(target) == []


def test_one_deleted_meanwhile_is_reported(store: BaseStore, target: Path) -> None:
    wanted = Wanted("gone.png", 1, datetime.now(UTC))
    assert _bring(store, target, wanted).reason.startswith("There is no image under this key.")


@pytest.mark.parametrize("key", [IMMUTABLE, "users/123/me.png"])
@pytest.mark.parametrize("size", [0, 1])
def test_an_image_of_another_size_than_the_store_listed_fails(
    store: BaseStore, target: Path, key: str, size: int
) -> None:
    """A backup compares what it was told with what it did."""
    wanted = _put(store, key, noise(1))
    result = _bring(store, target, replace(wanted, size=size))
    assert result.outcome is Outcome.FAILED
    assert f"{wanted.size} bytes, but {size} in the listing" in result.reason
    assert _tree(target) == []


def test_an_image_that_was_replaced_since_it_was_listed_is_taken(store: BaseStore, target: Path) -> None:
    wanted = _put(store, "users/123/me.png", noise(1))
    listed = replace(wanted, size=1, last_modified=wanted.last_modified - timedelta(seconds=2))
    assert _bring(store, target, listed).outcome is Outcome.DONE
    assert (target / wanted.key).read_bytes() == noise(1)
