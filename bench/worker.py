"""Our gunicorn worker compared with gunicorn's gthread, alone and behind nginx.

The application, its middleware and all settings are the same. Only the worker class differs.
"""

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from app.services.urls import IMAGES_PATH
from bench import nginx
from bench.hits import SIZES
from bench.load import Load, put_load
from bench.plan import Plan, rotated
from bench.processes import ROOT, running
from bench.product import environment, gunicorn, our_parts, our_server, upload_noise
from bench.progress import say
from bench.report import Section, Table, median_ratio
from bench.servers import Server, Start, get, serving
from tests.server.honest import ResponseLog

OURS = "our worker"
GTHREAD = "gthread"
BEHIND_NGINX = "gthread behind nginx (deploy/nginx.conf)"

LARGE = 8_500_000

CALM = "no attack"
ATTACKS = {
    CALM: None,
    "500 slow heads": ("heads", "20 KB", 500),
    "500 slow readers": ("readers", "large", 500),
    "24 unsent bodies": ("bodies", "20 KB", 24),
    "500 unsent bodies": ("bodies", "20 KB", 500),
}
"""For each attack: its kind in `bench.attack`, the image that it requests, and the number of connections."""

_RAMP_SECONDS = 3.0
"""How long an attack runs before the measurement starts."""

_MEASURED_SECONDS = 8.0

_METHOD = """\
Each server has two workers with eight threads each. *Hits*: all servers run at the same time and are
measured in turn, as in *Hits* above, in {rounds} rounds of {seconds} s. nginx sends hits itself, so *CPU* is
the CPU time of nginx alone. *Under attack*: each server runs alone, and is restarted for each attack. After
{ramp:.0f} s of attack, honest clients send requests for {measured:.0f} s (tests/server/honest.py): one
requests `/healthz`, at most fifty times a second, and two request a cached image of 20 KB, as fast as they
get responses. *Slow heads* send a byte per second. *Slow readers* read a byte per second of a cached image
of 8.5 MB. *Unsent bodies* are GETs of a cached image with `Content-Length: 10` and no body. Connections that
are closed are opened again (bench/attack.py). A request without a response after 20 s counts as 20 s, and as
wrong."""


@dataclass(frozen=True)
class ClientFigures:
    """What the honest clients measured.

    `health` contains the times of requests to `/healthz` in seconds, `rate` is the number of hits per second,
    and `wrong` is the number of wrong responses.
    """

    health: list[float]
    rate: float
    wrong: int

    def row(self, attack: str, server: str, calm: "ClientFigures") -> tuple[str, ...]:
        """Return the table row. `calm` has the figures without an attack."""
        p50, p99 = (f"{self._percentile(share) * 1e3:,.1f} ms" for share in (0.5, 0.99))
        share = f"{self.rate / calm.rate:.2f} ×" if calm.rate else "–"
        return attack, server, p50, p99, f"{self.rate:,.0f}", share, str(self.wrong)

    def _percentile(self, share: float) -> float:
        return sorted(self.health)[int(share * (len(self.health) - 1))] if self.health else float("inf")


def run(plan: Plan) -> Section:
    """Measure hits, then each server under each attack."""
    directory = plan.new_directory("worker")
    with our_parts(directory) as parts:
        keys = {name: upload_noise(parts, size) for name, size in {**SIZES, "large": LARGE}.items()}
    image = directory / "image"
    shutil.copy(directory / "cache" / "objects" / keys["20 KB"], image)
    starts = _starts(directory)
    method = _METHOD.format(
        rounds=plan.rounds, seconds=plan.seconds, ramp=_RAMP_SECONDS, measured=_MEASURED_SECONDS
    )
    section = Section("Our worker and gthread", method)
    if BEHIND_NGINX not in starts:
        section.notes.append("nginx is not installed.")
    section.tables = [_hits(plan, starts, keys), _attacked(starts, keys, image)]
    return section


_Starts = dict[str, Callable[[], AbstractContextManager[Server]]]


def _starts(directory: Path) -> _Starts:
    starts: _Starts = {
        OURS: lambda: our_server(directory, name=OURS),
        GTHREAD: lambda: _gthread(directory),
        BEHIND_NGINX: lambda: _behind_nginx(directory),
    }
    if not shutil.which("nginx"):
        del starts[BEHIND_NGINX]
    return starts


@contextmanager
def _gthread(directory: Path) -> Iterator[Server]:
    command = (*gunicorn("wsgi:app"), "--worker-class", "gthread")
    started = serving(
        GTHREAD,
        lambda port: Start(command, environment(directory, port)),
        directory / "gthread.log",
        prefix=IMAGES_PATH,
        ready="/readyz",
    )
    with started as server:
        yield server


@contextmanager
def _behind_nginx(directory: Path) -> Iterator[Server]:
    with _gthread(directory) as upstream:
        started = serving(
            BEHIND_NGINX,
            lambda port: nginx.in_front(
                directory / f"nginx-{port}", port, upstream=upstream.port, cache_dir=directory / "cache"
            ),
            directory / "nginx.log",
            prefix=IMAGES_PATH,
            ready="/readyz",
        )
        with started as server:
            yield server


def _hits(plan: Plan, starts: _Starts, keys: dict[str, str]) -> Table:
    loads: dict[tuple[str, str], list[Load]] = defaultdict(list)
    with ExitStack() as stack:
        servers = [stack.enter_context(start()) for start in starts.values()]
        for server in servers:
            for key in keys.values():
                if get(server.port, server.prefix + key).status != 200:
                    raise RuntimeError(f"{server.name} does not serve {key}")
        for number in range(plan.rounds):
            say(f"hits, round {number + 1} of {plan.rounds}")
            for size in SIZES:
                for server in rotated(servers, number):
                    load = put_load(server, [server.prefix + keys[size]], plan.seconds)
                    loads[size, server.name].append(load)
    rows = [_hit_row(size, name, loads[size, name], loads[size, OURS]) for size in SIZES for name in starts]
    head = ("size", "server", "requests/s", "CPU µs", "ours, by rate", "ours, by CPU")
    return Table("Hits", head, rows)


def _hit_row(size: str, name: str, loads: list[Load], ours: list[Load]) -> tuple[str, ...]:
    rates, cpus = [load.rate for load in loads], [load.cpu for load in loads]
    by_rate = median_ratio([load.rate for load in ours], rates)
    by_cpu = median_ratio(cpus, [load.cpu for load in ours])
    return (
        size,
        name,
        f"{statistics.median(rates):,.0f}",
        f"{statistics.median(cpus):.0f}",
        f"{by_rate:.2f} ×",
        f"{by_cpu:.2f} ×",
    )


def _attacked(starts: _Starts, keys: dict[str, str], image: Path) -> Table:
    rows = []
    calm: dict[str, ClientFigures] = {}
    for attack, spec in ATTACKS.items():
        for name, start in starts.items():
            say(f"{attack}: {name}")
            with start() as server:
                figures = _measure(server, spec, keys, image)
            calm.setdefault(name, figures)
            rows.append(figures.row(attack, name, calm[name]))
    head = ("attack", "server", "/healthz p50", "p99", "honest hits/s", "of those without attack", "wrong")
    return Table("Under attack", head, rows)


def _measure(
    server: Server, attack: tuple[str, str, int] | None, keys: dict[str, str], image: Path
) -> ClientFigures:
    small = server.prefix + keys["20 KB"]
    get(server.port, small)
    log_path = image.with_name("clients.log")
    attacking: AbstractContextManager[object] = nullcontext()
    if attack:
        kind, size, count = attack
        command = (sys.executable, "-m", "bench.attack", kind)
        path = server.prefix + keys[size]
        attacking = running((*command, str(server.port), path, str(count)), log_path)
    with attacking:
        time.sleep(_RAMP_SECONDS)
        port = str(server.port)
        clients = [
            _client(port, "/healthz"),
            _client(port, small, str(image)),
            _client(port, small, str(image)),
        ]
        begin = time.monotonic()
        time.sleep(_MEASURED_SECONDS)
        end = time.monotonic()
        for client in clients:
            client.send_signal(signal.SIGTERM)
        health, *hits = (ResponseLog(**json.loads(client.communicate()[0])) for client in clients)
    rate = sum(len(log.between(begin, end)) for log in hits) / (end - begin)
    wrong = sum(len(log.wrong) for log in (health, *hits))
    return ClientFigures([took for _, took in health.answers], rate, wrong)


def _client(*arguments: str) -> "subprocess.Popen[str]":
    command = (sys.executable, "-m", "tests.server.honest", *arguments)
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
