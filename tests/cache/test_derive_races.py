"""Variants that are made while their image is removed, replaced, revalidated or evicted."""

import threading

import pytest

from app.cache.lookup import CachedObject, CacheStatus, Load
from app.core.errors import NotFound, StoreUnreachable
from tests.cache.conftest import Clock, MakeCache, Origin, facts, read
from tests.cache.test_derive import FOREIGN, KEY, NAMED, Maker

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def maker(make_cache: MakeCache, origin: Origin) -> Maker:
    """A maker whose three images are cached."""
    origin.objects |= {KEY: b"image", NAMED: b"old", FOREIGN: b"old"}
    maker = Maker(make_cache(), origin)
    for key in origin.objects:
        read(maker.cache.fetch(key, origin.load(key)))
    return maker


def _status(cached: CachedObject) -> CacheStatus:
    cached.body.close()
    return cached.status


class SlowVariant:
    """A request for a variant, which has opened its image but does not end until `finish` is called."""

    def __init__(self, maker: Maker, key: str) -> None:
        self._opened, self._may_end = threading.Event(), threading.Event()
        maker.before = self._wait
        self._thread = threading.Thread(target=lambda: read(maker.fetch(key)))
        self._thread.start()
        assert self._opened.wait(30)
        maker.before = lambda: None

    def _wait(self) -> None:
        self._opened.set()
        assert self._may_end.wait(30)

    def finish(self) -> None:
        """Let the variant be made, and wait until the request has ended."""
        self._may_end.set()
        self._thread.join()


def _begin_during_removal(
    maker: Maker, key: str, monkeypatch: pytest.MonkeyPatch, *, ends_at_once: bool
) -> list[SlowVariant]:
    """Begin a variant of the image when its files are about to be removed.

    `ends_at_once` says whether it ends right after they have been removed. Return a list that will
    contain it.
    """
    begun: list[SlowVariant] = []
    remove = maker.cache._space.remove

    def removing(removed: str) -> bool:
        monkeypatch.setattr(maker.cache._space, "remove", remove)
        begun.append(SlowVariant(maker, key))
        was_cached = remove(removed)
        if ends_at_once:
            begun[0].finish()
        return was_cached

    monkeypatch.setattr(maker.cache._space, "remove", removing)
    return begun


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
@pytest.mark.parametrize("ends_at_once", [True, False])
def test_a_deleted_image_does_not_survive_as_a_variant(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, key: str, ends_at_once: bool
) -> None:
    begun = _begin_during_removal(maker, key, monkeypatch, ends_at_once=ends_at_once)
    del maker.origin.objects[key]
    maker.cache.forget(key)
    begun[0].finish()
    assert maker.made == 1
    with pytest.raises(NotFound):
        maker.fetch(key)
    assert maker.cache.check().is_clean


@pytest.mark.parametrize("ends_at_once", [True, False])
def test_a_replaced_image_does_not_survive_as_a_variant(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, ends_at_once: bool
) -> None:
    begun = _begin_during_removal(maker, NAMED, monkeypatch, ends_at_once=ends_at_once)
    epoch = maker.cache.epoch(NAMED)
    maker.origin.objects[NAMED] = b"new"
    maker.cache.store(facts(NAMED, b"new"), b"new", epoch)
    assert _status(maker.cache.fetch(NAMED, maker.origin.load(NAMED))) is CacheStatus.HIT
    begun[0].finish()
    assert read(maker.fetch(NAMED)) == b"w640 of new"
    assert maker.cache.check().is_clean


def test_a_variant_that_is_made_while_its_image_is_revalidated_is_no_newer_than_its_image(
    maker: Maker, make_cache: MakeCache, clock: Clock
) -> None:
    other = make_cache()
    slow = SlowVariant(maker, FOREIGN)
    maker.origin.objects[FOREIGN] = b"new"
    clock.now += 301
    assert read(other.fetch(FOREIGN, maker.origin.load(FOREIGN))) == b"new"
    slow.finish()
    assert read(maker.fetch(FOREIGN)) == b"w640 of new"
    assert read(Maker(other, maker.origin).fetch(FOREIGN)) == b"w640 of new"


def test_a_variant_whose_image_was_evicted_meanwhile_is_not_fresh_for_longer_than_its_image(
    maker: Maker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = maker.cache.fetch

    def evicted_once_opened(key: str, load: Load) -> CachedObject:
        found = fetch(key, load)
        with maker.cache._index.transaction() as db:
            maker.cache._space.drop_entry(db, key)
        return found

    clock.now += 299
    with monkeypatch.context() as patch:
        patch.setattr(maker.cache, "fetch", evicted_once_opened)
        read(maker.fetch(FOREIGN))
    maker.origin.objects[FOREIGN] = b"new"
    clock.now += 2
    assert read(maker.fetch(FOREIGN)) == b"w640 of new"


def test_stale_variants_are_hits_until_the_store_is_called_again(maker: Maker, clock: Clock) -> None:
    read(maker.fetch(FOREIGN))
    clock.now += 301
    maker.origin.error = StoreUnreachable()
    assert _status(maker.fetch(FOREIGN)) is CacheStatus.STALE
    calls = len(maker.origin.calls)
    for _ in range(3):
        assert _status(maker.fetch(FOREIGN)) is CacheStatus.STALE
    assert len(maker.origin.calls) == calls
    maker.origin.error = None
    clock.now += 6
    assert _status(maker.fetch(FOREIGN)) is CacheStatus.REVALIDATED


def test_old_workers_keep_no_variants_of_presets_that_have_changed(
    maker: Maker, make_cache: MakeCache
) -> None:
    """While a server reloads its settings, its old workers still make variants from the old presets."""
    maker.cache.bind_to_variants({"thumb": "w320", "card": "w640"})
    slow = SlowVariant(maker, KEY)
    new = Maker(make_cache(), maker.origin)
    new.cache.bind_to_variants({"thumb": "w200", "card": "w640"})
    slow.finish()
    assert _status(maker.fetch(KEY, "thumb")) is CacheStatus.BYPASS
    assert _status(new.fetch(KEY, "thumb")) is CacheStatus.MISS
    assert _status(maker.fetch(KEY, "thumb")) is CacheStatus.HIT
    read(maker.fetch(KEY, "card"))
    assert [_status(new.fetch(KEY, name)) for name in ("card", "w640")] == [CacheStatus.HIT] * 2


@pytest.mark.parametrize("source", [f"{'a' * 300}.jpg", f"{'a/' * 2300}a.jpg", "Strand & Meer.png", "me.png"])
def test_sources_that_can_not_be_immutable_are_no_paths_of_files(maker: Maker, source: str) -> None:
    assert maker.cache.lookup_immutable(f"/variants/{source}/w640.webp") is None
    assert not maker.cache._health.has_failed
