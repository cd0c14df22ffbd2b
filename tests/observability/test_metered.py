"""Tests of the metered store and the metered generator, and of what they count."""

import inspect
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.core.errors import AppError, NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.core.objects import ObjectFacts, StoredObject
from app.generators.base import BaseGenerator
from app.observability.metrics import MeteredGenerator, MeteredStore, Metrics
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from tests.contracts import StoreContract


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    """Return metrics with an empty cache."""
    with closing(DiskCache(tmp_path / "cache", 10**6)) as cache:
        yield Metrics(cache)


class TestMeteredStore(StoreContract):
    """The wrapper behaves like the store that it wraps."""

    @pytest.fixture
    def store(self, tmp_path: Path, metrics: Metrics) -> BaseStore:
        """Return a metered store in an empty directory."""
        return MeteredStore(LocalStore(tmp_path / "store"), metrics)


def _counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    (family,) = metrics.store_calls.collect()
    return {
        (sample.labels["call"], sample.labels["outcome"]): sample.value
        for sample in family.samples
        if sample.name == "s3image_store_calls_total"
    }


def _timed(metrics: Metrics) -> dict[str, float]:
    (family,) = metrics.store_seconds.collect()
    return {s.labels["call"]: s.value for s in family.samples if s.name.endswith("_count")}


def test_every_call_is_counted_and_measured(tmp_path: Path, metrics: Metrics) -> None:
    store = MeteredStore(LocalStore(tmp_path / "store"), metrics)
    put = store.put("a/b.png", b"bytes", content_type="image/png", overwrite=False)
    assert put.created
    stored = store.get("a/b.png")
    assert stored is not None
    stored.body.close()
    assert store.get("a/b.png", if_none_match=stored.facts.etag) is None
    assert store.exists("a/b.png")
    assert not store.exists("a/c.png")
    assert len(store.list("a/").objects) == 1
    store.delete("a/b.png")
    assert _counted(metrics) == {
        ("put", "ok"): 1,
        ("get", "ok"): 2,
        ("head", "ok"): 1,
        ("head", "not_found"): 1,
        ("list", "ok"): 1,
        ("delete", "ok"): 1,
    }
    assert _timed(metrics) == {"put": 1, "get": 2, "head": 2, "list": 1, "delete": 1}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotFound(), "not_found"),
        (StoreRefused(), "store_refused"),
        (StoreUnreachable(), "store_unreachable"),
        (StoreTimeout(), "store_timeout"),
        (StoreError(), "store_error"),
        (ValueError("from a plug-in"), "internal_error"),
    ],
)
def test_errors_are_counted_by_their_codes(
    tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
) -> None:
    inner = LocalStore(tmp_path / "store")

    def fail(key: str) -> ObjectFacts:
        raise error

    monkeypatch.setattr(inner, "head", fail)
    with pytest.raises(type(error)):
        MeteredStore(inner, metrics).head("a/b.png")
    assert _counted(metrics) == {("head", outcome): 1}
    assert _timed(metrics) == {"head": 1}


class _Breaking:
    """A body that fails while it is read."""

    def read(self, size: int = -1, /) -> bytes:
        """Raise."""
        raise StoreUnreachable

    def close(self) -> None:
        """Do nothing."""


def test_a_body_that_fails_counts_as_a_failed_read(
    tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = LocalStore(tmp_path / "store")
    facts = inner.put("a/b.png", b"bytes", content_type="image/png").facts
    monkeypatch.setattr(inner, "get", lambda key, if_none_match: StoredObject(facts, _Breaking()))
    stored = MeteredStore(inner, metrics).get("a/b.png")
    assert stored is not None
    with stored, pytest.raises(AppError):
        stored.body.read()
    assert _counted(metrics) == {("get", "ok"): 1, ("read", "store_unreachable"): 1}


@pytest.mark.parametrize(
    ("base", "wrapper", "inherited"),
    [(BaseStore, MeteredStore, {"exists"}), (BaseGenerator, MeteredGenerator, set())],
)
def test_wrappers_forward_every_method(base: type, wrapper: type, inherited: set[str]) -> None:
    """A missing method would use the default of the base class. `exists` calls `head`."""
    methods = {name for name, _ in inspect.getmembers(base, inspect.isfunction) if not name.startswith("_")}
    assert methods - vars(wrapper).keys() == inherited
