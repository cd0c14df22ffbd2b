"""The memory of a worker: with small and large images, and with few and many cache entries."""

from bench.load import put_load, shuffled
from bench.plan import LARGE, SMALL, Plan
from bench.processes import resident_bytes, tree
from bench.product import assert_hit, our_parts, our_server, upload_noise
from bench.progress import say
from bench.report import Section, Table, at_most
from bench.servers import Server

_MIB = 1 << 20
_SECONDS = 4

_METHOD = f"""\
The anonymous resident memory of the largest worker (`RssAnon` in /proc), after its first request and after
{_SECONDS} seconds of hits on 32 connections. Each row is from a newly started server."""


def run(plan: Plan) -> Section:
    """Measure with two image sizes and with two numbers of entries."""
    directory = plan.new_directory("memory")
    with our_parts(directory) as parts:
        keys = {f"hits of {size // 1000} KB": [upload_noise(parts, size)] for size in (20_000, 500_000)}
    after = {}
    rows = []
    for name, paths in keys.items():
        with our_server(directory) as server:
            after[name], row = _measure(server, name, paths)
        rows.append(row)
    for entries in (SMALL, LARGE):
        population = plan.population(entries)
        name = f"hits spread over {entries:,} entries"
        settings = {"CACHE_MAX_BYTES": f"{population.max_bytes * 2}"}
        with our_server(population.directory, settings) as server:
            after[name], row = _measure(server, name, shuffled(population.keys))
        rows.append(row)
    section = Section("Memory", _METHOD)
    section.tables = [
        Table("Memory of a worker", ("what", "after the first request", "after the hits"), rows)
    ]
    small, large, few, many = after.values()
    section.figures = [
        at_most("memory of a worker: 500 KB images minus 20 KB images", (large - small) / _MIB, 8, "MiB"),
        at_most(f"memory of a worker: {LARGE:,} entries minus {SMALL:,}", (many - few) / _MIB, 16, "MiB"),
    ]
    return section


def _measure(server: Server, name: str, keys: list[str]) -> tuple[int, tuple[str, ...]]:
    say(f"memory, {name}")
    paths = [server.prefix + key for key in keys]
    assert_hit(server, paths[0])
    first = _largest(server)
    put_load(server, paths, _SECONDS)
    after = _largest(server)
    return after, (name, f"{first / _MIB:.1f} MiB", f"{after / _MIB:.1f} MiB")


def _largest(server: Server) -> int:
    return max(resident_bytes(pid) for pid in tree(server.pid)[1:])
