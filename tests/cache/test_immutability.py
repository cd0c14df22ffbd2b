"""Which objects the cache treats as immutable, and where it stores their files."""

import hashlib
import os
import sqlite3
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.index import Index
from app.cache.lookup import CacheStatus
from app.cache.rebuild import Rebuild
from app.core.objects import StoredObject
from tests.cache.conftest import Clock, MakeCache, Origin, facts, immutable_key, read

GENERATED = immutable_key(1)
FOREIGN = "avatars/ab/" + "0" * 30 + ".png"


def _addressed(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"images/{digest[:2]}/{digest[2:32]}.png"


def _files(root: Path) -> set[str]:
    """Return the paths of all objects' files, relative to the cache directory."""
    folders = [root / name for name in ("objects", "named", "opaque", "unproven")]
    return {str(p.relative_to(root)) for folder in folders for p in folder.rglob("*") if p.is_file()}


def _without_proof(origin: Origin, key: str) -> object:
    """Load an object that someone else put into the store, without our metadata."""

    def load(etag: str | None) -> StoredObject | None:
        stored = origin.load(key)(etag)
        return stored and replace(stored, facts=replace(stored.facts, metadata={}))

    return load


@pytest.mark.parametrize("key", [GENERATED, FOREIGN])
def test_an_object_that_only_looks_immutable_is_revalidated(
    cache: DiskCache, origin: Origin, clock: Clock, tmp_path: Path, key: str
) -> None:
    origin.objects[key] = b"old"
    load = _without_proof(origin, key)
    statuses = []
    for wait in (0, 1, 300, 1):
        clock.now += wait
        cached = cache.fetch(key, load)  # type: ignore[arg-type]
        statuses.append(cached.status)
        assert (read(cached), cached.facts.is_immutable) == (b"old", False)
    assert statuses == [CacheStatus.MISS, CacheStatus.HIT, CacheStatus.REVALIDATED, CacheStatus.HIT]
    assert _files(tmp_path / "cache") == {f"named/{key}"}
    origin.objects[key] = b"newer"
    clock.now += 301
    assert read(cache.fetch(key, load)) == b"newer"  # type: ignore[arg-type]
    assert cache.check().is_clean


def test_lookup_immutable_does_not_read_the_index(
    make_cache: MakeCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache()
    origin.objects |= {FOREIGN: b"foreign", GENERATED: b"ours"}
    for key in (FOREIGN, GENERATED):
        read(cache.fetch(key, origin.load(key)))
    caches = (cache, make_cache())
    monkeypatch.setattr(Index, "_read", None)
    for one in caches:
        assert one.lookup_immutable(FOREIGN) is None
        found = one.lookup_immutable(GENERATED)
        assert found is not None
        assert read(found) == b"ours"
    monkeypatch.undo()


def test_an_object_that_becomes_immutable_is_found_by_every_process(
    make_cache: MakeCache, origin: Origin, clock: Clock
) -> None:
    """This includes a process that knows the file of the mutable version."""
    one, other = make_cache(ttl=10), make_cache(ttl=10)
    key = _addressed(b"right")
    origin.objects[key] = b"wrong"
    for cache in (one, other):
        assert read(cache.fetch(key, origin.load(key))) == b"wrong"
    origin.objects[key] = b"right"
    clock.now += 11
    assert read(one.fetch(key, origin.load(key))) == b"right"
    found = other.lookup(key)
    assert found is not None
    assert (read(found), found.facts.is_immutable) == (b"right", True)
    assert one.totals().entries == 1
    assert one.check().is_clean


def test_a_damaged_file_is_removed_from_where_front_servers_look(
    cache: DiskCache, origin: Origin, tmp_path: Path
) -> None:
    """The object was replaced in the store in the meantime, so it is mutable when it is fetched again."""
    key, root = _addressed(b"right"), tmp_path / "cache"
    origin.objects[key] = b"right"
    read(cache.fetch(key, origin.load(key)))
    (root / "objects" / key).write_bytes(b"damaged")
    origin.objects[key] = b"wrong"
    assert read(cache.fetch(key, origin.load(key))) == b"wrong"
    assert _files(root) == {f"named/{key}"}
    assert (cache.totals().entries, cache.check().is_clean) == (1, True)


@pytest.mark.parametrize("key", [GENERATED, FOREIGN])
@pytest.mark.parametrize("end", ["forget", "clear", "evict"])
def test_a_mutable_object_whose_key_looks_immutable_can_be_removed(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, key: str, end: str
) -> None:
    cache = make_cache(1024 * 1024)
    origin.objects[key] = b"image"
    read(cache.fetch(key, _without_proof(origin, key)))  # type: ignore[arg-type]
    before = cache.totals().entries
    if end == "forget":
        assert cache.forget(key)
    elif end == "clear":
        assert cache.clear() == 1
    else:
        for number in range(100, 140):
            origin.objects[immutable_key(number)] = bytes(50_000)
            read(cache.fetch(immutable_key(number), origin.load(immutable_key(number))))
    assert before == 1
    assert cache.lookup(key) is None
    assert f"named/{key}" not in _files(tmp_path / "cache")
    assert cache.check().is_clean


@pytest.mark.parametrize("data", [b"right", bytes(2 * 1024 * 1024)], ids=["cached", "no room"])
def test_an_upload_replaces_a_foreign_object_with_the_same_key(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, data: bytes
) -> None:
    """The foreign object was deleted from the bucket before ours was uploaded."""
    cache, other = make_cache(1024 * 1024), make_cache(1024 * 1024)
    key = _addressed(data)
    origin.objects[key] = b"foreign"
    for one in (cache, other):
        read(one.fetch(key, origin.load(key)))
    origin.objects[key] = data
    cache.store(facts(key, data), data, cache.epoch(key))
    for one in (cache, other):
        found = one.fetch(key, origin.load(key))
        assert found.facts.size == len(data)
        found.body.close()
    assert f"named/{key}" not in _files(tmp_path / "cache")


@pytest.mark.parametrize(
    ("digest", "is_immutable"),
    [("", True), (hashlib.sha256(b"image").hexdigest(), True), (hashlib.sha256(b"other").hexdigest(), False)],
)
def test_an_upload_is_immutable_if_the_digest_from_the_caller_matches(
    cache: DiskCache, digest: str, is_immutable: bool
) -> None:
    key = immutable_key(1)
    cache.store(facts(key, b"image"), b"image", cache.epoch(key), digest)
    found = cache.lookup(key)
    assert found is not None
    assert (found.facts.is_immutable, read(found)) == (is_immutable, b"image")


@pytest.mark.parametrize(
    ("key", "sha256", "immutable"),
    [
        (_addressed(b"image"), "", False),
        (_addressed(b"image"), hashlib.sha256(b"image").hexdigest(), True),
        (_addressed(b"image"), "0" * 64, False),
        (GENERATED, "", False),
        (GENERATED, hashlib.sha256(b"image").hexdigest(), True),
        ("named.png", hashlib.sha256(b"image").hexdigest(), False),
    ],
)
def test_an_uncached_object_is_immutable_if_the_stores_digest_matches(
    make_cache: MakeCache, key: str, sha256: str, immutable: bool
) -> None:
    def load(etag: str | None) -> StoredObject:
        return StoredObject(replace(facts(key, b"image"), sha256=sha256), BytesIO(b"image"))

    cached = make_cache(max_object_bytes=1).fetch(key, load)
    assert (cached.status, read(cached)) == (CacheStatus.BYPASS, b"image")
    assert cached.facts.is_immutable is immutable


@pytest.mark.parametrize(
    "unlike",
    [{"content_encoding": "gzip"}, {"content_type": "image/jpeg"}, {"content_type": "image/webp"}],
    ids=str,
)
def test_an_object_whose_facts_do_not_follow_from_its_key_is_mutable(
    cache: DiskCache, tmp_path: Path, unlike: dict[str, str]
) -> None:
    for key in (_addressed(b"image"), GENERATED):
        stored = replace(facts(key, b"image"), **unlike)  # type: ignore[arg-type]
        first = cache.fetch(key, lambda etag, stored=stored: StoredObject(stored, BytesIO(b"image")))  # type: ignore[misc]
        second = cache.lookup(key)
        assert second is not None
        assert (read(first), read(second)) == (b"image", b"image")
        assert first.facts == second.facts == replace(stored, metadata={})
    assert {file.partition("/")[0] for file in _files(tmp_path / "cache")} == {"named"}


# A directory that an older version left behind, which looked only at the shape of the keys.

RIGHT = {_addressed(data): data for data in (b"right", b"right, too")}
OLD = {
    **RIGHT,
    FOREIGN: b"foreign",
    _addressed(b"original"): b"replaced",
    GENERATED: b"generated",
    immutable_key(2): b"foreign, too",
}
_WHEN = 1_780_000_000


def _create_old_directory(root: Path, *, with_index: bool) -> None:
    for key, data in OLD.items():
        path = root / "objects" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        stamp = zlib.crc32(f"{key} {_WHEN} {len(data)}".encode()) % 10**9
        os.utime(path, ns=(_WHEN * 10**9, _WHEN * 10**9 + stamp))
    cut = next(iter(RIGHT)).replace("images/", "cut/")
    (root / "objects" / cut).parent.mkdir(parents=True)
    (root / "objects" / cut).write_bytes(b"right")
    (root / "named").mkdir()
    (root / "named" / "me.png").write_bytes(b"named")
    if with_index:
        with sqlite3.connect(root / "index.sqlite3") as db:
            db.execute("CREATE TABLE entry (key TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID")
            db.execute("PRAGMA user_version = 1")
        db.close()


@pytest.mark.parametrize("with_index", [True, False])
def test_files_of_an_older_version_are_kept_only_if_verified(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, with_index: bool
) -> None:
    root = tmp_path / "cache"
    _create_old_directory(root, with_index=with_index)
    cache = make_cache()
    assert cache.check().is_clean  # waits for the rebuild
    assert _files(root) == {f"objects/{key}" for key in RIGHT}
    assert not (root / "unproven").exists()
    assert cache.totals().entries == len(RIGHT)
    for key, data in RIGHT.items():
        found = cache.lookup_immutable(key)
        assert found is not None
        assert (read(found), found.facts.last_modified.timestamp()) == (data, _WHEN)
    for key in OLD.keys() - RIGHT.keys():
        assert cache.lookup(key) is None
    cache.close()
    again = make_cache()
    assert (again.totals().entries, again.check().is_clean) == (len(RIGHT), True)


def test_files_of_an_older_version_are_not_served_before_they_are_verified(
    make_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes front servers, which read the directory without the application."""
    root = tmp_path / "cache"
    _create_old_directory(root, with_index=True)
    monkeypatch.setattr(Rebuild, "_run", lambda self: None)
    cache = make_cache()
    assert {file for file in _files(root) if file.startswith("objects/")} == set()
    assert [cache.lookup(key) for key in OLD] == [None] * len(OLD)
    cache.close()
    monkeypatch.undo()
    assert make_cache().check().entries == len(RIGHT)  # a later start continues the rebuild
