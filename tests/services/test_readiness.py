"""Tests of readiness during outages of the store, and within the timeout of a Kubernetes probe."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from app.cache.disk_cache import DiskCache
from app.components import components_of
from app.core.errors import NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.core.objects import ObjectFacts
from app.services import readiness
from app.services.readiness import Readiness, ReadinessCheck
from app.stores.local import LocalStore
from tests.pictures import picture
from tests.s3server import S3Server, refusal
from tests.waiting import wait_until

TIMEOUT = readiness._PROBE_TIMEOUT_SECONDS


class FailingStore(LocalStore):
    """A store that fails with the error that a test sets."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.probes = 0
        self.does: Callable[[], None] = lambda: None

    def head(self, key: str) -> ObjectFacts:
        """Fail, or raise `NotFound`."""
        self.probes += 1
        self.does()
        raise NotFound

    def fail(self, error: Exception) -> None:
        """Raise `error` from now on."""

        def does() -> None:
            raise error

        self.does = does


@pytest.fixture(autouse=True)
def _long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the timeout, since a store can be slow on a busy machine."""
    monkeypatch.setattr(readiness, "_PROBE_TIMEOUT_SECONDS", 30)


@pytest.fixture
def store(tmp_path: Path) -> FailingStore:
    """Return a store that works."""
    return FailingStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    """An empty cache."""
    with closing(DiskCache(tmp_path / "cache", 10**6)) as opened:
        yield opened


def _fill(store: LocalStore, cache: DiskCache) -> None:
    result = store.put("a/b.png", b"bytes", content_type="image/png")
    cache.store(result.facts, b"bytes", cache.epoch("a/b.png"))


def _ignored(answer: object) -> None:
    """Ignore a value."""


class Clock:
    """A clock that tests advance."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


FAILURES = [
    (StoreUnreachable(), "unreachable", "store_unreachable"),
    (StoreTimeout(), "unreachable", "store_timeout"),
    (StoreRefused(), "refused", "store_refused"),
    (StoreError(), "failing", "store_error"),
    (ValueError("a plug-in's"), "failing", "internal_error"),
]


@pytest.mark.parametrize(("error", "state", "code"), FAILURES)
def test_with_an_empty_cache_the_server_is_ready_only_if_the_store_is_ok(
    store: FailingStore, cache: DiskCache, error: Exception, state: str, code: str
) -> None:
    store.fail(error)
    assert ReadinessCheck(store, cache).check() == Readiness(False, state, "ok", code)


@pytest.mark.parametrize(("error", "state", "code"), FAILURES)
def test_a_server_that_starts_with_cached_images_is_ready_unless_the_store_refuses_access(
    store: FailingStore, cache: DiskCache, error: Exception, state: str, code: str
) -> None:
    _fill(store, cache)
    store.fail(error)
    assert ReadinessCheck(store, cache).check() == Readiness(state != "refused", state, "ok", code)


@pytest.mark.parametrize(("error", "state", "code"), FAILURES)
def test_a_server_whose_store_was_ok_stays_ready_while_it_has_cached_images(
    store: FailingStore, cache: DiskCache, error: Exception, state: str, code: str
) -> None:
    clock = Clock()
    check = ReadinessCheck(store, cache, clock)
    _fill(store, cache)
    assert check.check() == Readiness(True, "ok", "ok")
    store.fail(error)
    clock.now += 5
    assert check.check() == Readiness(True, state, "ok", code)
    store.does = lambda: None
    clock.now += 5
    assert check.check() == Readiness(True, "ok", "ok")


def test_the_result_of_a_probe_is_reused_for_five_seconds(store: FailingStore, cache: DiskCache) -> None:
    clock = Clock()
    check = ReadinessCheck(store, cache, clock)
    for _ in range(100):
        check.check()
    assert store.probes == 1
    clock.now += 4.9
    check.check()
    assert store.probes == 1
    clock.now += 0.1
    check.check()
    assert store.probes == 2


def test_a_store_that_hangs_delays_no_check_longer_than_the_timeout(
    store: FailingStore, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_PROBE_TIMEOUT_SECONDS", TIMEOUT)
    clock, back = Clock(), threading.Event()
    check = ReadinessCheck(store, cache, clock)
    store.does = lambda: _ignored(back.wait(120))
    began = time.monotonic()
    assert check.check() == Readiness(False, "unreachable", "ok", "store_timeout")
    assert time.monotonic() - began < 20
    for _ in range(6):
        clock.now += 5
        assert not check.check().ready
    wait_until(lambda: store.probes >= 4)
    assert store.probes == 4, "more probes must not hang"
    back.set()

    def is_ready() -> bool:
        clock.now += 5
        return check.check().ready

    wait_until(is_ready)


def test_cache_problems_are_reported_but_do_not_make_the_server_unready(
    store: FailingStore, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ReadinessCheck(store, cache)
    monkeypatch.setattr(cache, "is_writable", lambda: False)
    assert check.check() == Readiness(True, "ok", "unwritable")

    def broken() -> None:
        raise sqlite3.DatabaseError

    monkeypatch.setattr(cache, "totals", broken)
    assert check.check() == Readiness(True, "ok", "unreadable")


def test_each_change_is_logged_once(
    store: FailingStore, cache: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    check = ReadinessCheck(store, cache, clock)
    refused = StoreRefused(detail="HeadObject: 403 Forbidden (allow s3:GetObject)")
    for error in (None, StoreUnreachable(), refused, None):
        store.does = lambda: None
        if error:
            store.fail(error)
        _look_later(check, clock)
        check.check()
    assert [record.getMessage() for record in caplog.records] == [
        "The store is unreachable: store_unreachable",
        "The store is refused: store_refused [HeadObject: 403 Forbidden (allow s3:GetObject)]",
        "The store is ok again",
    ]


def _look_later(check: ReadinessCheck, clock: Clock) -> Readiness:
    """Check after the result of the last probe has expired."""
    clock.now += 5
    return check.check()


def test_a_server_stays_ready_during_an_outage_of_s3(s3: S3Server, s3_app: Flask) -> None:
    parts, clock = components_of(s3_app), Clock()
    check = ReadinessCheck(parts.store, parts.cache, clock)
    parts.images.upload_image(picture())
    assert _look_later(check, clock) == Readiness(True, "ok", "ok")
    s3.fault = refusal("503 Slow Down", "SlowDown", "HEAD")
    assert _look_later(check, clock) == Readiness(True, "unreachable", "ok", "store_unreachable")
    s3.fault = None
    assert _look_later(check, clock) == Readiness(True, "ok", "ok")


def test_a_server_that_starts_with_wrong_credentials_is_not_ready(s3: S3Server, s3_app: Flask) -> None:
    refusals = [refusal("403 Forbidden", "InvalidAccessKeyId", method) for method in ("HEAD", "GET")]
    s3.fault = lambda environ, start: next((a for r in refusals if (a := r(environ, start))), None)
    parts, clock = components_of(s3_app), Clock()
    check = ReadinessCheck(parts.store, parts.cache, clock)
    assert _look_later(check, clock) == Readiness(False, "refused", "ok", "store_refused")
    s3.fault = None
    assert _look_later(check, clock).ready
