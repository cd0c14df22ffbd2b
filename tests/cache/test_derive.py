"""Variants in the cache: freshness, versions, removal with the source, and what happens when things fail."""

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.cache import fill
from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import NotFound, StoreUnreachable, UndecodableImage, VariantFailed
from app.core.objects import ObjectFacts, version_tag
from app.core.variant_keys import VariantPath, variant_etag, variant_keys
from tests.cache.conftest import Clock, MakeCache, Origin, facts, immutable_key, read

KEY = immutable_key(1)
NAMED = "users/123/profile.png"
FOREIGN = "Ferien 2026/Strand & Meer.png"


class Maker:
    """Makes variants, whose bytes say from which bytes they were made. It counts its calls."""

    def __init__(self, cache: DiskCache, origin: Origin) -> None:
        self.cache = cache
        self.origin = origin
        self.made = 0
        self.error: Exception | None = None
        self.before: Callable[[], object] = lambda: None

    def fetch(self, source: str, name: str = "w640", *, is_listed: bool = True) -> CachedObject:
        """Return the variant `name` of an image."""
        keys = variant_keys(VariantPath(source, name, "webp"), is_listed=is_listed)

        def make(original: CachedObject) -> tuple[ObjectFacts, bytes]:
            self.made += 1
            self.before()
            if self.error is not None:
                raise self.error
            data = name.encode() + b" of " + original.body.read()
            found = original.facts
            tag = version_tag(found.last_modified, len(data))
            etag = tag if found.is_immutable else variant_etag(found.etag, len(data))
            modified, is_immutable = found.last_modified, found.is_immutable
            made = ObjectFacts(keys[0], len(data), "image/webp", etag, modified, is_immutable=is_immutable)
            return made, data

        return self.cache.derive(keys, lambda: self.cache.fetch(source, self.origin.load(source)), make)


@pytest.fixture
def maker(cache: DiskCache, origin: Origin) -> Maker:
    """A maker whose store has three images."""
    origin.objects |= {KEY: b"image", NAMED: b"old", FOREIGN: b"old"}
    return Maker(cache, origin)


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_variant_is_made_once_from_one_fetch(maker: Maker, key: str, is_listed: bool) -> None:
    first, second = (maker.fetch(key, is_listed=is_listed) for _ in range(2))
    assert (first.status, second.status) == (CacheStatus.MISS, CacheStatus.HIT)
    assert read(first) == read(second) == b"w640 of " + maker.origin.objects[key]
    assert (first.facts.etag, first.facts.size) == (second.facts.etag, second.facts.size)
    assert first.facts.is_immutable == second.facts.is_immutable == (key == KEY)
    read(maker.fetch(key, "thumb"))
    assert (maker.made, len(maker.origin.calls)) == (2, 1)
    assert maker.cache.check().is_clean


def test_only_listed_variants_of_immutable_images_are_in_the_directory_for_front_servers(
    maker: Maker, tmp_path: Path
) -> None:
    for key in (KEY, NAMED, FOREIGN):
        read(maker.fetch(key))
        read(maker.fetch(key, "w7", is_listed=False))
    served = [path for path in (tmp_path / "cache" / "variants").rglob("*") if path.is_file()]
    assert served == [tmp_path / "cache" / "variants" / KEY / "w640.webp"]
    assert (tmp_path / "cache" / "guarded" / KEY / "w7.webp").is_file()


def test_a_variant_of_a_mutable_image_is_fresh_only_as_long_as_the_image(maker: Maker, clock: Clock) -> None:
    read(maker.cache.fetch(NAMED, maker.origin.load(NAMED)))
    clock.now += 200
    read(maker.fetch(NAMED))
    clock.now += 99
    assert maker.fetch(NAMED).status is CacheStatus.HIT
    clock.now += 2
    renewed = maker.fetch(NAMED)
    assert (renewed.status, read(renewed)) == (CacheStatus.REVALIDATED, b"w640 of old")
    assert maker.fetch(NAMED).status is CacheStatus.HIT
    assert (maker.made, len(maker.origin.calls)) == (1, 2)


@pytest.mark.parametrize("key", [NAMED, FOREIGN])
def test_the_variants_of_an_older_version_are_gone_for_all_processes_when_the_image_is_revalidated(
    maker: Maker, make_cache: MakeCache, clock: Clock, key: str
) -> None:
    other = Maker(make_cache(), maker.origin)
    for name in ("w640", "thumb"):
        read(maker.fetch(key, name))
        read(other.fetch(key, name))
    maker.origin.objects[key] = b"new"
    clock.now += 301
    assert read(maker.cache.fetch(key, maker.origin.load(key))) == b"new"
    assert maker.cache.totals().entries == 1
    for name in ("w640", "thumb"):
        assert read(other.fetch(key, name)) == name.encode() + b" of new"
    assert maker.cache.check().is_clean


def test_a_variant_whose_image_was_evicted_is_made_again_if_the_image_has_changed(
    maker: Maker, clock: Clock
) -> None:
    read(maker.fetch(NAMED))
    with maker.cache._index.transaction() as db:
        maker.cache._space.drop_entry(db, NAMED)
    clock.now += 301
    assert maker.fetch(NAMED).status is CacheStatus.REVALIDATED
    with maker.cache._index.transaction() as db:
        maker.cache._space.drop_entry(db, NAMED)
    maker.origin.objects[NAMED] = b"new"
    clock.now += 301
    assert read(maker.fetch(NAMED)) == b"w640 of new"


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
def test_a_removed_image_takes_its_variants_along(
    maker: Maker, make_cache: MakeCache, tmp_path: Path, key: str
) -> None:
    other = Maker(make_cache(), maker.origin)
    read(maker.fetch(key))
    read(maker.fetch(key, "w7", is_listed=False))
    read(other.fetch(key))
    neighbours = ("users/123/profile.png.png", "users/123/profile.pn/g.png")
    maker.origin.objects |= dict.fromkeys(neighbours, b"another image")
    for neighbour in neighbours:
        read(maker.fetch(neighbour))
    assert maker.cache.forget(key)
    assert not [path for path in (tmp_path / "cache").rglob("w640.webp") if key in str(path)]
    assert maker.cache.totals().entries == 2 * len(neighbours)
    del maker.origin.objects[key]
    for process in (maker, other):
        with pytest.raises(NotFound):
            process.fetch(key)
    assert maker.cache.check().is_clean


def test_an_overwritten_image_takes_its_variants_along(maker: Maker) -> None:
    read(maker.fetch(NAMED))
    epoch = maker.cache.epoch(NAMED)
    maker.origin.objects[NAMED] = b"new"
    maker.cache.store(facts(NAMED, b"new"), b"new", epoch)
    assert read(maker.fetch(NAMED)) == b"w640 of new"
    assert maker.cache.check().is_clean


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
def test_a_variant_that_was_being_made_during_a_delete_is_not_cached(maker: Maker, key: str) -> None:
    maker.before = lambda: maker.cache.forget(key)
    assert read(maker.fetch(key)) == b"w640 of " + maker.origin.objects[key]
    assert maker.cache.totals().entries == 0
    assert maker.cache.check().is_clean


def test_variants_of_an_image_that_is_gone_from_the_store_are_removed(maker: Maker, clock: Clock) -> None:
    read(maker.fetch(NAMED))
    with maker.cache._index.transaction() as db:
        maker.cache._space.drop_entry(db, NAMED)
    del maker.origin.objects[NAMED]
    clock.now += 301
    with pytest.raises(NotFound):
        maker.fetch(NAMED)
    assert maker.cache.totals().entries == 0


def test_clients_that_ask_at_once_get_one_variant(maker: Maker, make_cache: MakeCache) -> None:
    makers = [maker, Maker(make_cache(), maker.origin)]
    ready = threading.Barrier(16)

    def ask(number: int) -> bytes:
        ready.wait()
        return read(makers[number % 2].fetch(KEY))

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(ask, range(16))) == {b"w640 of image"}
    assert sum(maker.made for maker in makers) == 1
    assert len(maker.origin.calls) == 1


def test_an_image_that_can_not_be_decoded_is_remembered_for_all_its_variants(
    maker: Maker, clock: Clock
) -> None:
    maker.error = UndecodableImage("damaged")
    for name in ("w640", "w640", "thumb"):
        with pytest.raises(UndecodableImage, match="damaged"):
            maker.fetch(KEY, name)
    assert maker.made == 1
    clock.now += 6
    maker.error = None
    assert read(maker.fetch(KEY)) == b"w640 of image"


def test_a_variant_that_can_not_be_made_does_not_affect_the_others(maker: Maker) -> None:
    maker.error = VariantFailed()
    for _ in range(2):
        with pytest.raises(VariantFailed):
            maker.fetch(KEY)
    assert maker.made == 1
    maker.error = None
    assert read(maker.fetch(KEY, "thumb")) == b"thumb of image"


@pytest.mark.parametrize("name", ["w640", ""], ids=["variant", "image"])
def test_no_request_gets_an_old_version_because_another_could_not_keep_the_new_one(
    maker: Maker, clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fetch() -> bytes:
        if name:
            return read(maker.fetch(NAMED, name))
        return read(maker.cache.fetch(NAMED, maker.origin.load(NAMED)))

    fetch()
    maker.origin.objects[NAMED] = b"new"
    maker.origin.delay = 0.1
    clock.now += 1000
    monkeypatch.setattr(fill, "_check_free_space", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda _: fetch(), range(4)))
    assert got == [f"{name} of new".encode() if name else b"new"] * 4


def test_a_damaged_image_that_was_replaced_is_tried_again_at_once(maker: Maker) -> None:
    maker.error = UndecodableImage("damaged")
    with pytest.raises(UndecodableImage):
        maker.fetch(NAMED)
    maker.error = None
    maker.cache.store(facts(NAMED, b"new"), b"new", maker.cache.epoch(NAMED))
    assert read(maker.fetch(NAMED)) == b"w640 of new"


def test_a_stale_variant_is_served_while_the_store_is_away(maker: Maker, clock: Clock) -> None:
    read(maker.fetch(NAMED))
    maker.origin.error = StoreUnreachable()
    clock.now += 301
    for evict_source in (False, True):
        if evict_source:
            with maker.cache._index.transaction() as db:
                maker.cache._space.drop_entry(db, NAMED)
            clock.now += 10
        stale = maker.fetch(NAMED)
        assert (stale.status, read(stale)) == (CacheStatus.STALE, b"w640 of old")
    assert maker.made == 1
    with pytest.raises(StoreUnreachable):
        maker.fetch(NAMED, "thumb")


def test_a_variant_that_does_not_fit_is_made_and_returned(make_cache: MakeCache, origin: Origin) -> None:
    origin.objects[KEY] = os.urandom(10_000)
    maker = Maker(make_cache(max_object_bytes=1000), origin)
    for _ in range(2):
        made = maker.fetch(KEY)
        assert (made.status, read(made)) == (CacheStatus.BYPASS, b"w640 of " + origin.objects[KEY])
    assert maker.made == 2


def test_a_variant_is_made_even_if_the_cache_directory_can_not_be_used(maker: Maker, tmp_path: Path) -> None:
    directory = tmp_path / "cache" / "tmp"
    directory.rename(tmp_path / "away")
    directory.write_bytes(b"")
    assert read(maker.fetch(KEY)) == b"w640 of image"
    directory.unlink()
    (tmp_path / "away").rename(directory)


def test_variants_that_are_not_listed_any_more_or_whose_preset_has_changed_are_removed(
    maker: Maker, make_cache: MakeCache
) -> None:
    maker.cache.bind_to_variants({"thumb": "w320", "card": "w640", "w320": "w320"})
    for name in ("thumb", "card", "w320", "w7"):
        for key in (KEY, NAMED):
            read(maker.fetch(key, name))
    changed = Maker(make_cache(), maker.origin)
    changed.cache.bind_to_variants({"thumb": "w200", "card": "w640"})
    for name, made in (("thumb", 2), ("card", 0), ("w320", 2), ("w7", 0)):
        changed.made = 0
        for key in (KEY, NAMED):
            read(changed.fetch(key, name))
        assert changed.made == made, name
    assert changed.cache.check().is_clean


def test_variants_of_immutable_images_survive_the_loss_of_the_index(
    maker: Maker, make_cache: MakeCache, tmp_path: Path
) -> None:
    for key in (KEY, NAMED):
        read(maker.fetch(key))
    maker.cache.close()
    for path in (tmp_path / "cache").glob("index.sqlite3*"):
        path.unlink()
    rebuilt = Maker(make_cache(), maker.origin)
    report = rebuilt.cache.check()
    assert (report.is_clean, report.entries) == (True, 2)  # the image and its variant
    for key, status in ((KEY, CacheStatus.HIT), (NAMED, CacheStatus.MISS)):
        found = rebuilt.fetch(key)
        assert (found.status, read(found)) == (status, b"w640 of " + maker.origin.objects[key])


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_variants_are_evicted_like_other_objects(make_cache: MakeCache, origin: Origin, key: str) -> None:
    cache = make_cache(max_bytes=1_000_000)
    maker = Maker(cache, origin)
    origin.objects[key] = os.urandom(10_000)
    for number in range(1, 200):
        read(maker.fetch(key, f"w{number}"))
    used = sum(path.lstat().st_blocks * 512 for path in cache._layout.root.rglob("*"))
    assert used <= 1_000_000
    assert cache.counts.totals().evicted > 100
    assert cache.check().is_clean
