"""Hits and 304s, compared with other servers. All servers run at once and are measured in turn."""

import statistics
from collections import defaultdict
from pathlib import Path

from bench.contenders import BARE, BEHIND_NGINX, FLASK, NGINX, NODE, ORDER, OURS, PLAIN, field
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
    (BEHIND_NGINX, NGINX, {"20 KB": 0.9, "100 KB": 0.9, "500 KB": 0.9}),
)
"""Which servers are compared, and the target ratio of their rates for each image size."""

_METHOD = """\
All servers run at the same time, each on its own port, and serve the same files. Each round measures every
server once, for {seconds} s with 32 keep-alive connections, and starts with a different server. Rates and
CPU times are medians of {rounds} rounds. Ratios are medians of the ratios within a round, which are least
affected by disturbances of the machine. *CPU* is user and system time of the server's processes for one
request. It is more meaningful than the rate, since the load generator shares the cores. *Generator* is the
share of one core that the load generator used. Near 100 %, the generator is the limit, and not the
server."""

Measured = dict[tuple[str, str], list[Load]]
"""The loads of all rounds, by server and size."""


def run(plan: Plan) -> Section:
    """Measure all sizes, and 304s of the servers that send them."""
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
    """Raise `RuntimeError` unless all servers send the same bytes, and ours sends them from its cache."""
    for key in keys.values():
        assert_hit(servers[0], servers[0].prefix + key)
        bodies = {server.name: get(server.port, server.prefix + key).body for server in servers}
        differing = [name for name, body in bodies.items() if body != bodies[OURS]]
        if differing:
            raise RuntimeError(f"Different bytes from {', '.join(differing)}")


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
    """Measure 304s with each server's own entity tag. Servers without entity tags are omitted."""
    requested = []
    for server in servers:
        path = server.prefix + key
        condition = {"If-None-Match": get(server.port, path).headers.get("etag", '"none"')}
        if get(server.port, path, condition).status == 304:
            requested.append((server, path, condition))
    measured: Measured = defaultdict(list)
    for number in range(plan.rounds):
        say(f"304s, round {number + 1} of {plan.rounds}")
        for server, path, condition in rotated(requested, number):
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
