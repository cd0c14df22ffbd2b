"""Tests of the tally of hits, which is exact even with many threads."""

import sys
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter

from app.observability.metrics import HitTally


@pytest.fixture
def counter() -> Counter:
    """Return a counter with the labels of the request counter."""
    return Counter("requests_total", "Requests.", ["route", "status"], registry=CollectorRegistry())


@pytest.fixture
def variants() -> Counter:
    """Return a counter of variants."""
    return Counter("variants_total", "Variants.", registry=CollectorRegistry())


def _value(counter: Counter, status: str, route: str = "images.serve") -> float:
    (family,) = counter.collect()
    found = [s.value for s in family.samples if s.labels == {"route": route, "status": status}]
    return found[0] if found else 0


def _total(variants: Counter) -> float:
    (family,) = variants.collect()
    return next(sample.value for sample in family.samples if sample.name == "variants_total")


def test_hits_are_added_to_the_counter_once_a_second(
    counter: Counter, variants: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    tally = HitTally(counter, variants)
    tally.add("200 OK")
    tally.add("304 Not Modified")
    assert _value(counter, "200") == 0
    tally.flush()
    assert (_value(counter, "200"), _value(counter, "304"), _value(counter, "206")) == (1, 1, 0)
    tally.add("200 OK")
    tally.flush()
    assert _value(counter, "200") == 1, "flushed again within a second"
    now[0] += 1
    tally.flush()
    tally.flush(at_once=True)
    assert _value(counter, "200") == 2


def _hit(tally: HitTally, times: int) -> None:
    for _ in range(times):
        tally.add("200 OK")


def test_hits_of_variants_have_their_own_route_and_counter(counter: Counter, variants: Counter) -> None:
    tally = HitTally(counter, variants)
    tally.add("200 OK")
    for status in ("200 OK", "304 Not Modified", "304 Not Modified"):
        tally.add_variant(status)
    tally.flush()
    assert (_value(counter, "200"), _value(counter, "304")) == (1, 0)
    route = "images.serve_variant"
    assert (_value(counter, "200", route), _value(counter, "304", route)) == (1, 2)
    assert _total(variants) == 3
    tally.flush(at_once=True)
    assert _total(variants) == 3, "counted a second time"


def test_no_hit_is_lost_with_many_threads(counter: Counter, variants: Counter) -> None:
    tally = HitTally(counter, variants)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        work = [threading.Thread(target=_hit, args=(tally, 10_000)) for _ in range(8)]
        for thread in work:
            thread.start()
        while any(thread.is_alive() for thread in work):
            tally.flush(at_once=True)
    finally:
        sys.setswitchinterval(interval)
    tally.flush(at_once=True)
    assert _value(counter, "200") == 80_000
