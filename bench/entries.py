"""Caches of a thousand and a million entries, compared: hits, fills that evict, and the start."""

import os
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack

from app.cache.disk_cache import DiskCache
from app.cache.lookup import MAX_KNOWN_FILES, CacheStatus
from bench.load import put_load, shuffled
from bench.objects import facts_of, key_of, loading
from bench.plan import LARGE, SMALL, Plan, rotated
from bench.population import EVICTED, OWN_FILES, SIZE, Population
from bench.product import assert_hit, our_server
from bench.progress import say
from bench.report import Section, Table, at_most, median_ratio

_HOT = 400
"""Number of keys in the smaller of the two access patterns."""

_HTTP_ROUNDS_FACTOR = 3
"""How many times more rounds there are over HTTP.

The ratio of a single round is off by 10 % or more, which is the whole tolerance.
"""

_LOOKUPS = 20_000
_FILLS = 400

_METHOD = f"""\
Both caches contain objects of {SIZE // 1000} KB, each with a row in the index and a file. Objects that are
requested or evicted have separate files. The files of all other objects are hard links to a few files
(bench/population.py). *Same keys*: {_HOT} keys of each cache are requested in turn. *Keys from all over*:
all keys with separate files are requested in turn, 500 of the thousand and {OWN_FILES - EVICTED:,} of the
million. These are more than twice as many as fit into the table in memory ({MAX_KNOWN_FILES:,}), so each
entry was removed from the table before it is requested again. Over HTTP, both servers run at the same time
and are measured in turn, in {{rounds}} rounds of {{seconds}} s."""

_Times = dict[str, dict[int, list[float]]]
"""Measurements by name and number of entries."""


def run(plan: Plan) -> Section:
    """Measure both caches. Fills are measured last, since they evict entries."""
    populations = [plan.population(SMALL), plan.population(LARGE)]
    times: _Times = defaultdict(lambda: defaultdict(list))
    _over_http(plan, populations, times)
    _in_process(plan, populations, times)
    _fills(populations, times)
    section = Section(
        "A million entries", _METHOD.format(rounds=_HTTP_ROUNDS_FACTOR * plan.rounds, seconds=plan.seconds)
    )
    rows = [_row(what, by_entries) for what, by_entries in times.items()]
    head = ("what", f"{SMALL:,} entries", f"{LARGE:,} entries", "ratio")
    section.tables = [Table("Cost by number of entries (medians)", head, rows)]
    for what in times:
        if what.startswith("hit over HTTP") and what.endswith("CPU, µs"):
            ratio = median_ratio(times[what][LARGE], times[what][SMALL])
            section.figures.append(at_most(f"{what}: {LARGE:,} entries against {SMALL:,}", ratio, 1.1, "×"))
    fills = median_ratio(times["fill that evicts, µs"][LARGE], times["fill that evicts, µs"][SMALL])
    section.figures.append(at_most(f"fill that evicts: {LARGE:,} entries against {SMALL:,}", fills, 1.5, "×"))
    ready = statistics.median(times["ready after start, s"][LARGE])
    section.figures.append(at_most(f"ready after start, {LARGE:,} entries", ready, 1, "s"))
    return section


def _patterns(population: Population) -> dict[str, list[str]]:
    return {"same keys": population.keys[:_HOT], "keys from all over": shuffled(population.keys)}


def _over_http(plan: Plan, populations: list[Population], times: _Times) -> None:
    with ExitStack() as stack:
        servers = []
        for population in populations:
            settings = {"CACHE_MAX_BYTES": f"{population.max_bytes * 2}"}
            for last in (False, False, True):
                with ExitStack() as once:
                    server = once.enter_context(our_server(population.directory, settings))
                    times["ready after start, s"][population.entries].append(server.startup)
                    if last:
                        stack.enter_context(once.pop_all())
            servers.append(server)
        loads = [
            (server, population, pattern)
            for server, population in zip(servers, populations, strict=True)
            for pattern in _patterns(population).items()
        ]
        rounds = _HTTP_ROUNDS_FACTOR * plan.rounds
        for number in range(rounds):
            say(f"entries, round {number + 1} of {rounds}")
            for server, population, (name, keys) in rotated(loads, number):
                paths = [server.prefix + key for key in keys]
                assert_hit(server, paths[number % len(paths)])
                load = put_load(server, paths, plan.seconds)
                times[f"hit over HTTP, {name}: CPU, µs"][population.entries].append(load.cpu)
                times[f"hit over HTTP, {name}: time, µs"][population.entries].append(1e6 / load.rate)


def _in_process(plan: Plan, populations: list[Population], times: _Times) -> None:
    caches = [DiskCache(population.cache_dir, population.max_bytes * 2) for population in populations]
    for number in range(plan.rounds):
        say(f"lookups, round {number + 1} of {plan.rounds}")
        for cache, population in zip(caches, populations, strict=True):
            for name, keys in _patterns(population).items():
                took = _lookups(cache, keys)
                times[f"lookup in process, {name}, µs"][population.entries].append(took * 1e6)
    for cache in caches:
        cache.close()


def _lookups(cache: DiskCache, keys: list[str]) -> float:
    """Return the average time of a hit in seconds."""
    sequence = [keys[number % len(keys)] for number in range(_LOOKUPS)]
    began = time.perf_counter()
    for key in sequence:
        found = cache.lookup(key)
        if found is None:
            raise RuntimeError(f"no hit: {key}")
        found.body.close()
    return (time.perf_counter() - began) / len(sequence)


def _fills(populations: list[Population], times: _Times) -> None:
    """Add objects to both full caches in turn, so that each new object evicts an old object."""
    say(f"{_FILLS} fills that evict")
    caches = [DiskCache(population.cache_dir, population.max_bytes) for population in populations]
    data = os.urandom(SIZE)
    for number in range(_FILLS):
        for cache, population in zip(caches, populations, strict=True):
            key = key_of(-1 - number)
            began = time.perf_counter()
            cached = cache.fetch(key, loading(facts_of(key, SIZE), data))
            took = time.perf_counter() - began
            cached.body.close()
            if cached.status is not CacheStatus.MISS:
                raise RuntimeError(f"a fill ended as {cached.status}")
            if number >= _FILLS // 4:
                times["fill that evicts, µs"][population.entries].append(took * 1e6)
    for cache, population in zip(caches, populations, strict=True):
        gone = population.entries + _FILLS - cache.totals().entries
        cache.close()
        if not _FILLS // 2 < gone < EVICTED:
            raise RuntimeError(f"{gone} of {population.entries} entries were evicted by {_FILLS} fills")


def _row(what: str, by_entries: dict[int, list[float]]) -> tuple[str, ...]:
    small, large = by_entries[SMALL], by_entries[LARGE]
    ratio = f"{median_ratio(large, small):.2f} ×"
    return what, f"{statistics.median(small):.3g}", f"{statistics.median(large):.3g}", ratio
