"""Hits and 304s: our server beside its peers, all running at once, measured in turn."""

import statistics
from collections import defaultdict
from pathlib import Path

from bench.contenders import BARE, FLASK, FRONT, NGINX, NODE, ORDER, OURS, PLAIN, field
from bench.load import Load, put_load
from bench.plan import Plan, rotated
from bench.product import assert_hit, our_parts, upload_noise
from bench.progress import say
from bench.report import Figure, Section, Table, at_least, median_ratio
from bench.servers import Server, get

SIZES = {"20 KB": 20_000, "100 KB": 100_000, "500 KB": 500_000}

TARGETS = (
    (OURS, BARE, {"20 KB": 0.9, "100 KB": 0.9, "500 KB": 0.9}),
    (OURS, PLAIN, {"20 KB": 1.2, "100 KB": 1.2}),
    (OURS, FLASK, {"20 KB": 2.0}),
    (OURS, NODE, {"20 KB": 1.3, "100 KB": 2.0, "500 KB": 3.0}),
    (FRONT, NGINX, {"20 KB": 0.9, "100 KB": 0.9, "500 KB": 0.9}),
)
"""Who against whom, and the least ratio of their rates by size."""

_METHOD = """\
All servers run side by side, each on its own port, over the same files; every round measures each of them
once for {seconds} s at 32 keep-alive connections, and begins with another one. Rates and CPU are medians of
{rounds} rounds; ratios are medians of those within a round, which disturbances of the machine touch least.
*CPU* is user and system time of the server's processes for one request: with the load generator on the same
cores it says more than the rate. *Generator* is how much of one core that took; near 100 % it, not the
server, is the limit."""

Measured = dict[tuple[str, str], list[Load]]
"""The loads, one for each round, by server's name and size."""


def run(plan: Plan) -> Section:
    """Measure all sizes, and 304s for those who answer them."""
    directory = plan.new_directory("hits")
    keys = _upload(directory)
    with field(directory) as started:
        _check(started.servers, keys)
        measured = _measure(plan, started.servers, keys)
        unmodified = _measure_unmodified(plan, started.servers, keys["20 KB"])
    section = Section("Hits", _METHOD.format(seconds=plan.seconds, rounds=plan.rounds), notes=started.missing)
    section.tables = [_table(f"200, {size}", size, measured) for size in SIZES]
    section.tables.append(_table("304", "304", unmodified))
    section.figures = _figures(measured)
    return section


def _upload(directory: Path) -> dict[str, str]:
    with our_parts(directory) as parts:
        return {name: upload_noise(parts, size) for name, size in SIZES.items()}


def _check(servers: list[Server], keys: dict[str, str]) -> None:
    """All must send the same bytes, and ours from the cache."""
    for key in keys.values():
        assert_hit(servers[0], servers[0].prefix + key)
        bodies = {server.name: get(server.port, server.prefix + key).body for server in servers}
        differing = [name for name, body in bodies.items() if body != bodies[OURS]]
        if differing:
            raise RuntimeError(f"other bytes from {', '.join(differing)}")


def _measure(plan: Plan, servers: list[Server], keys: dict[str, str]) -> Measured:
    measured: Measured = defaultdict(list)
    for number in range(plan.rounds):
        say(f"hits, round {number + 1} of {plan.rounds}")
        for size, key in keys.items():
            for server in rotated(servers, number):
                measured[server.name, size].append(put_load(server, [server.prefix + key], plan.seconds))
            assert_hit(servers[0], servers[0].prefix + key)
    return measured


def _measure_unmodified(plan: Plan, servers: list[Server], key: str) -> Measured:
    """304s to each server's own entity tag; who has none takes no part."""
    asked = []
    for server in servers:
        path = server.prefix + key
        condition = {"If-None-Match": get(server.port, path).headers.get("etag", '"none"')}
        if get(server.port, path, condition).status == 304:
            asked.append((server, path, condition))
    measured: Measured = defaultdict(list)
    for number in range(plan.rounds):
        say(f"304s, round {number + 1} of {plan.rounds}")
        for server, path, condition in rotated(asked, number):
            measured[server.name, "304"].append(put_load(server, [path], plan.seconds, condition))
    return measured


def _table(title: str, size: str, measured: Measured) -> Table:
    ours = measured[OURS, size]
    names = sorted((name for name, of in measured if of == size), key=ORDER.index)
    head = ("server", "requests/s", "CPU µs", "generator", "ours, by rate", "ours, by CPU")
    return Table(title, head, [_row(name, measured[name, size], ours) for name in names])


def _row(name: str, loads: list[Load], ours: list[Load]) -> tuple[str, ...]:
    rates, cpus = [load.rate for load in loads], [load.cpu for load in loads]
    return (
        name,
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
        f"{statistics.median(cpus):.0f}",
        f"{statistics.median(load.generator for load in loads):.0%}",
        f"{median_ratio([load.rate for load in ours], rates):.2f} ×",
        f"{median_ratio(cpus, [load.cpu for load in ours]):.2f} ×",
    )


def _figures(measured: Measured) -> list[Figure]:
    figures = []
    for ours, theirs, targets in TARGETS:
        for size, target in targets.items():
            if (ours, size) in measured and (theirs, size) in measured:
                rates = [[load.rate for load in measured[name, size]] for name in (ours, theirs)]
                figures.append(
                    at_least(f"hit of {size}: {ours} against {theirs}", median_ratio(*rates), target)
                )
    return figures
