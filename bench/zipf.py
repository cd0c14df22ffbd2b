"""The hit ratio on a Zipf stream, against an exact LRU that is only simulated."""

import bisect
import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CacheStatus
from bench.objects import facts_of, key_of, loading
from bench.plan import Plan
from bench.progress import say
from bench.report import Section, Table, at_most

_OBJECTS = 3_000
_REQUESTS = 40_000
_EXPONENT = 0.9
_BLOCK = 4096
_PER_SECOND = 100
"""Requests in a second of the simulated clock."""

_METHOD = f"""\
{_REQUESTS:,} requests for {_OBJECTS:,} objects of 4 to 100 KB (in blocks), chances falling with rank to the
power of {_EXPONENT}; the bound is a tenth of the set. The exact LRU has the space that the cache itself had
at its fullest: the bound less index and reserve. Accesses are recorded every 0.1 s, so the clock matters:
the stream runs once at {_PER_SECOND} requests a second of a simulated clock, once as fast as this machine
goes, where the whole cache is exchanged within a second."""


def run(plan: Plan) -> Section:
    """Run the stream twice, and the simulation beside it."""
    chance = random.Random(20261122)
    sizes = [chance.randrange(1, 25) * _BLOCK for _ in range(_OBJECTS)]
    stream = _stream(chance)
    bound = sum(sizes) // 10
    rows, points = [], []
    for name, pace in ((f"{_PER_SECOND} requests a second", _PER_SECOND), ("as fast as it goes", None)):
        say(f"Zipf stream, {name}")
        ours, space = _cached(plan.new_directory(f"zipf/{pace}"), bound, sizes, stream, pace)
        exact = _exact(space, sizes, stream)
        points.append(abs(ours - exact) * 100)
        whole = _exact(bound, sizes, stream)
        rows.append((name, f"{ours:.2%}", f"{exact:.2%}", f"{(ours - exact) * 100:+.2f}", f"{whole:.2%}"))
    section = Section("Hit ratio on a Zipf stream", _METHOD)
    head = ("clock", "ours", "exact LRU, same space", "points", "exact LRU, whole bound")
    section.tables = [Table("Hit ratio", head, rows)]
    section.figures = [at_most("Zipf hit ratio: away from exact LRU", points[0], 0.5, "points")]
    return section


def _stream(chance: random.Random) -> list[int]:
    sums = list(itertools.accumulate((rank + 1) ** -_EXPONENT for rank in range(_OBJECTS)))
    return [bisect.bisect_left(sums, chance.random() * sums[-1]) for _ in range(_REQUESTS)]


def _cached(
    root: Path, bound: int, sizes: Sequence[int], stream: Sequence[int], pace: int | None
) -> tuple[float, int]:
    """Our hit ratio, and the most bytes of objects and directories that were there at once."""
    keys = [key_of(number) for number in range(_OBJECTS)]
    hits = most = 0
    with _clock(pace) as tick:
        cache = DiskCache(root / "cache", bound)
        for number in stream:
            tick()
            facts = facts_of(keys[number], sizes[number])
            cached = cache.fetch(facts.key, loading(facts, bytes(facts.size)))
            cached.body.close()
            if cached.status is CacheStatus.HIT:
                hits += 1
            elif cached.status is CacheStatus.MISS:
                most = max(most, cache.totals().taken)
            else:
                raise RuntimeError(f"neither hit nor miss: {cached.status}")
        cache.close()
    return hits / len(stream), most


def _exact(space: int, sizes: Sequence[int], stream: Sequence[int]) -> float:
    """The hit ratio of an LRU over `space` bytes, directories counted as ours are: a block while in use."""
    kept: OrderedDict[int, None] = OrderedDict()
    inhabitants: dict[str, int] = {}
    folder = [key_of(number).rpartition("/")[0] for number in range(_OBJECTS)]
    used, hits = _BLOCK, 0
    for number in stream:
        if number in kept:
            hits += 1
            kept.move_to_end(number)
            continue
        kept[number] = None
        inhabitants[folder[number]] = inhabitants.get(folder[number], 0) + 1
        used += sizes[number] + (_BLOCK if inhabitants[folder[number]] == 1 else 0)
        while used > space:
            oldest, _ = kept.popitem(last=False)
            inhabitants[folder[oldest]] -= 1
            used -= sizes[oldest] + (0 if inhabitants[folder[oldest]] else _BLOCK)
    return hits / len(stream)


@contextmanager
def _clock(pace: int | None) -> Iterator["_Tick"]:
    """Within the block, where `pace` is given, time passes with each tick alone."""
    tick = _Tick(pace)
    if pace is None:
        yield tick
        return
    original = time.time_ns, time.time
    time.time_ns, time.time = tick.now_ns, lambda: tick.now_ns() / 1e9
    try:
        yield tick
    finally:
        time.time_ns, time.time = original


class _Tick:
    """Called before each request."""

    def __init__(self, pace: int | None) -> None:
        self._now = time.time_ns()
        self._step = 10**9 // pace if pace else 0

    def __call__(self) -> None:
        self._now += self._step

    def now_ns(self) -> int:
        """The simulated time; every look at it takes a nanosecond."""
        self._now += 1
        return self._now
