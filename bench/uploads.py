"""Uploads into a full cache, compared with the code that guides to S3 show."""

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.cache.disk_cache import DiskCache
from bench.miss import origin_server, settings_for
from bench.objects import facts_of, key_of, proven
from bench.plan import Plan, rotated
from bench.processes import ROOT
from bench.product import WORKERS, our_server
from bench.progress import say
from bench.report import Section, Table, at_least, at_most, median_ratio
from bench.servers import Server, Start, serving
from bench.uploaders import CLIENTS, Uploads

_SIZES = {"20 KB": 20_000, "100 KB": 100_000, "500 KB": 500_000}
_CACHE_BYTES = 96_000_000
_MIN_SECONDS = 3
"""Minimum duration of a measurement. A 99th percentile needs some hundred uploads."""

OURS = "ours"
GUIDE = "guide: Pillow, `upload_fileobj`"

_METHOD = f"""\
{CLIENTS} clients upload distinct PNGs of soft shapes with noise as multipart forms. The store is
`bench/origin.py`. The other server is `bench/apps/guide_upload.py` on gunicorn's gthread, which decodes each
image in the worker and has no cache. Both have {WORKERS} workers with 8 threads each. Our cache has room for
{_CACHE_BYTES // 10**6} MB and is full, so uploads evict others. The servers are measured in turn, in
{{rounds}} rounds of {{seconds}} s. *CPU* includes the processes that decode images. Rates, CPU times and
percentiles are medians over the rounds, and ratios are medians of the ratios within each round."""


def run(plan: Plan) -> Section:
    """Measure each size with a cache that is full of images of that size."""
    seconds = max(plan.seconds, _MIN_SECONDS)
    section = Section("Uploads into a full cache", _METHOD.format(rounds=plan.rounds, seconds=seconds))
    rows = []
    for name, size in _SIZES.items():
        runs = _measure(plan, name.replace(" ", ""), size, seconds)
        ours, guide = runs[OURS], runs[GUIDE]
        rows += [_row(name, OURS, ours, guide), _row(name, GUIDE, guide, guide)]
        rate = median_ratio([*map(_rate, ours)], [*map(_rate, guide)])
        slow = median_ratio([_percentile(run, 99) for run in ours], [_percentile(run, 99) for run in guide])
        section.figures.append(
            at_least(f"uploads of {name}, full cache: rate, against the guide's code", rate, 0.9)
        )
        section.figures.append(
            at_most(f"uploads of {name}, full cache: p99, against the guide's code", slow, 2, "×")
        )
    head = ("size", "server", "uploads/s", "CPU ms", "p50 ms", "p99 ms", "rate", "CPU", "p99")
    section.tables = [Table("Uploads", head, rows)]
    return section


def _measure(plan: Plan, name: str, size: int, seconds: int) -> dict[str, list[Uploads]]:
    directory = plan.new_directory(f"uploads/{name}")
    _fill_cache(directory / "cache", size)
    runs = defaultdict(list)
    with ExitStack() as stack:
        origin = stack.enter_context(origin_server(directory, directory / "origin"))
        settings = {**settings_for(origin, WORKERS), "CACHE_MAX_BYTES": str(_CACHE_BYTES)}
        servers = [
            stack.enter_context(our_server(directory, settings, OURS)),
            stack.enter_context(_guide(directory, settings)),
        ]
        for number in range(plan.rounds):
            say(f"uploads of {name}, round {number + 1} of {plan.rounds}")
            for server in rotated(servers, number):
                runs[server.name].append(_uploads(server, size, seconds))
    return runs


def _fill_cache(root: Path, size: int) -> None:
    cache = DiskCache(root, _CACHE_BYTES)
    data = os.urandom(size)
    for number in range(round(1.1 * _CACHE_BYTES / size)):
        facts = proven(facts_of(key_of(number), size), data)
        cache.store(facts, data, cache.epoch(facts.key))
    cache.close()
    os.sync()  # otherwise the measurements would compete with these writes


@contextmanager
def _guide(directory: Path, settings: dict[str, str]) -> Iterator[Server]:
    def start(port: int) -> Start:
        options = f"-c /dev/null --no-control-socket -b 127.0.0.1:{port} -w {WORKERS} --threads 8 -k gthread"
        application = "bench.apps.guide_upload:application"
        return Start((sys.executable, "-m", "gunicorn", *options.split(), application), settings)

    with serving(GUIDE, start, directory / "guide.log") as server:
        yield server


def _uploads(server: Server, size: int, seconds: int) -> Uploads:
    command = (sys.executable, "-m", "bench.uploaders", *map(str, (server.port, server.pid, size, seconds)))
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    return Uploads(**json.loads(output))


def _row(size: str, name: str, runs: list[Uploads], guide: list[Uploads]) -> tuple[str, ...]:
    rates, cpus = [*map(_rate, runs)], [*map(_cpu, runs)]
    p50, p99 = ([_percentile(run, share) for run in runs] for share in (50, 99))
    return (
        size,
        name,
        f"{statistics.median(rates):,.0f}",
        f"{statistics.median(cpus):.1f}",
        f"{statistics.median(p50):.0f}",
        f"{statistics.median(p99):.0f}",
        f"{median_ratio(rates, [*map(_rate, guide)]):.2f} ×",
        f"{median_ratio(cpus, [*map(_cpu, guide)]):.2f} ×",
        f"{median_ratio(p99, [_percentile(run, 99) for run in guide]):.2f} ×",
    )


def _rate(run: Uploads) -> float:
    return len(run.times) / run.elapsed


def _cpu(run: Uploads) -> float:
    return run.cpu / len(run.times) * 1000


def _percentile(run: Uploads, share: int) -> float:
    """Return a percentile of the times, in milliseconds."""
    return statistics.quantiles(run.times, n=100)[share - 1] * 1000
