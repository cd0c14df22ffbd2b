"""The hit ratio on a Zipf stream, compared with the simulation of an exact LRU."""

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
"""Number of requests in each second of the simulated clock."""

_METHOD = f"""\
{_REQUESTS:,} requests for {_OBJECTS:,} objects of 4 to 96 KiB, whose probability is inversely proportional
to their rank to the power of {_EXPONENT}. The size limit is a tenth of the size of all objects. The exact
LRU gets as much space as the cache's objects took at most, which is the limit minus the index and a reserve.
The cache records accesses every 0.1 s, so the clock matters. The stream runs once with a simulated clock at
{_PER_SECOND} requests per second, and once as fast as the machine can, which replaces the whole cache within
a second."""


def run(plan: Plan) -> Section:
    """Run the stream with both clocks, and compare each with the simulation."""
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
    """Return the hit ratio, and the maximum of bytes that objects and directories took."""
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
    """Return the hit ratio of an exact LRU of `space` bytes. Each directory in use counts as one block."""
    cached: OrderedDict[int, None] = OrderedDict()
    objects_in: dict[str, int] = {}
    folder = [key_of(number).rpartition("/")[0] for number in range(_OBJECTS)]
    used, hits = _BLOCK, 0
    for number in stream:
        if number in cached:
            hits += 1
            cached.move_to_end(number)
            continue
        cached[number] = None
        objects_in[folder[number]] = objects_in.get(folder[number], 0) + 1
        used += sizes[number] + (_BLOCK if objects_in[folder[number]] == 1 else 0)
        while used > space:
            oldest, _ = cached.popitem(last=False)
            objects_in[folder[oldest]] -= 1
            used -= sizes[oldest] + (0 if objects_in[folder[oldest]] else _BLOCK)
    return hits / len(stream)


@contextmanager
def _clock(pace: int | None) -> Iterator["_Tick"]:
    """Yield a tick function. If `pace` is given, each tick advances a simulated clock inside the block."""
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
    """A simulated clock. Calling it before each request advances the time."""

    def __init__(self, pace: int | None) -> None:
        self._now = time.time_ns()
        self._step = 10**9 // pace if pace else 0

    def __call__(self) -> None:
        self._now += self._step

    def now_ns(self) -> int:
        """Return the simulated time. Each call advances it by a nanosecond."""
        self._now += 1
        return self._now
