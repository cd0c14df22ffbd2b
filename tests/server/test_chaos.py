"""Test that workers and honest clients survive a random attack with thousands of connections.

Two workers use an S3 server that is sometimes slow and sometimes fails. A round lasts a minute. `make chaos`
runs CHAOS_MINUTES rounds, and CHAOS_SEED repeats one. Before each round, the same attack is run against a
tarpit on the same machine. The rate of honest hits is measured in both cases, with the same client on the
same cores, and the rates are compared.
"""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.pictures import long_png, noise
from tests.ports import free_port
from tests.s3server import CREDENTIALS, S3Server
from tests.server.chaos import Target, as_argument
from tests.server.descriptors import client_connections, open_files
from tests.server.honest import ResponseLog
from tests.server.running import ROOT, Running, running
from tests.waiting import wait_until

MINUTES = int(os.environ.get("CHAOS_MINUTES", "1"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(2**32))))

ALONE = "CHAOS_MINUTES" in os.environ
"""Whether this was started by `make chaos`. While other tests run on the same cores, the results are
worse."""

HEALTH_SECONDS = 1.0 if ALONE else 3.0
"""Maximum duration of `/healthz` at the 99th percentile."""

HITS_RATIO = 0.5 if ALONE else 0.3
"""Minimum rate of honest hits, relative to the rate while the tarpit is attacked."""

WORKERS = 2
THREADS = 4
_ROUND = 60.0
_BASELINE = 8.0
_STARVED = 3.0
_RELOAD = 6.0
"""Seconds in which old workers end and new ones start. Measurements from this time are ignored."""

_BAD = re.compile(r"Traceback|WORKER TIMEOUT|exited with code|was sent SIG|Unhandled|Exception in", re.I)


@dataclass
class Scene:
    """The server, the target of the attack, and a file with the bytes of the small image."""

    server: Running
    target: Target
    image: Path

    @property
    def port(self) -> int:
        """The port of the server."""
        return self.target.port


def _hesitating(seed: int) -> Callable[..., Iterable[bytes] | None]:
    """Return a fault with which S3 is sometimes slow, sometimes fails, and sometimes does not respond."""
    chance = random.Random(seed)

    def fault(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] == "GET":
            time.sleep(chance.choices((0.02, 0.3, 4), (80, 18, 2))[0])
            if chance.random() < 0.05:
                start_response("503 Slow Down", [("Content-Length", "0")])
                return [b""]
        return None

    return fault


@pytest.fixture
def scene(tmp_path: Path, s3: S3Server, bucket: str) -> Iterator[Scene]:
    """Return a server with a small and a large image in the cache, and other images only in S3."""
    settings = {
        "WEB_CONCURRENCY": str(WORKERS),
        "THREADS": str(THREADS),
        "S3_BUCKET": bucket,
        "AWS_ENDPOINT_URL_S3": s3.url,
        "AWS_REGION": "us-east-1",
        "IMAGE_URLS": "server",
        "ACCESS_LOG": "false",
        "MAX_UPLOAD_BYTES": "64MiB",
        **CREDENTIALS,
    }
    client = s3.client()
    cold = [f"images/{number:02x}/{'c' * 30}.png" for number in range(200)]
    for number, key in enumerate(cold):
        client.put_object(Bucket=bucket, Key=key, Body=noise(number, (80, 80)), ContentType="image/png")
    client.close()
    with running(tmp_path, **settings) as server:
        small, large = (_upload(server, data) for data in (noise(7, (80, 80)), long_png(8, 1700)))
        (tmp_path / "small.png").write_bytes(requests.get(server.url + small, timeout=60).content)
        assert requests.get(server.url + large, timeout=60).ok
        port = urlsplit(server.url).port
        assert port
        s3.fault = _hesitating(SEED)
        target = Target(port, SEED, small, large, tuple(f"/api/images/{key}" for key in cold))
        yield Scene(server, target, tmp_path / "small.png")
        s3.reset()


def _upload(server: Running, data: bytes) -> str:
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, timeout=60)
    return str(urlsplit(answer.json()["image_url"]).path)


@contextmanager
def _process(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a client in its own process, so that it does not share the GIL with pytest."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _stop(process: "subprocess.Popen[str]") -> Any:
    """Stop a client and return its output."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    return json.loads(output)


@contextmanager
def _honest(scene: Scene) -> Iterator[Callable[[], list[ResponseLog]]]:
    """Run one client that requests `/healthz` and two that request hits. Yield a function that stops them."""
    port, image = str(scene.port), str(scene.image)
    with ExitStack() as stack:
        clients = [stack.enter_context(_process("tests.server.honest", port, "/healthz"))]
        for _ in range(2):
            command = ("tests.server.honest", port, scene.target.small, image)
            clients.append(stack.enter_context(_process(*command)))
        yield lambda: [ResponseLog(**_stop(process)) for process in clients]


def _rate(logs: list[ResponseLog], windows: list[tuple[float, float]]) -> float:
    """Return the total number of responses per second of these clients in these time windows."""
    count = sum(len(log.between(*window)) for log in logs for window in windows)
    return count / sum(end - begin for begin, end in windows)


def _baseline(scene: Scene) -> float:
    """Return the honest hits per second while the same attack is run against a tarpit."""
    port = free_port()
    target = Target(**{**vars(scene.target), "port": port})
    with (
        _process("tests.server.tarpit", str(port)),
        _honest(scene) as stop_honest,
        _process("tests.server.chaos", as_argument(target)) as attack,
    ):
        time.sleep(2)
        begin = time.monotonic()
        time.sleep(_BASELINE)
        window = (begin, time.monotonic())
        _stop(attack)
        return _rate(stop_honest()[1:], [window])


def _starve(pid: int) -> None:
    """Let the worker open hardly any files for some seconds."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(open_files(pid)) + 5, limits[1]))
    time.sleep(_STARVED)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@dataclass
class Round:
    """The result of a round. `measured` are the windows in which only the attack disturbed the server."""

    attacks: Counter[str]
    health: ResponseLog
    hits: list[ResponseLog]
    measured: list[tuple[float, float]]
    starved: tuple[float, float]
    died: list[str]


def _attack(scene: Scene, seed: int) -> Round:
    """Attack for a round. In the middle, a worker runs out of descriptors and the server is reloaded."""
    target = Target(**{**vars(scene.target), "seed": seed})
    died: list[str] = []
    with _honest(scene) as stop_honest, _process("tests.server.chaos", as_argument(target)) as attack:
        first = _watch(scene, 0.4 * _ROUND, died)
        starved_at = time.monotonic()
        _starve(scene.server.workers()[0])
        starved = (starved_at, time.monotonic() + 1)
        before = scene.server.workers()
        scene.server.process.send_signal(signal.SIGHUP)
        time.sleep(_RELOAD)
        wait_until(lambda: not set(before) & set(scene.server.workers()), seconds=60)
        second = _watch(scene, 0.4 * _ROUND, died)
        attacks = Counter(_stop(attack))
        health, *hits = stop_honest()
    return Round(attacks, health, hits, [first, second], starved, died)


def _watch(scene: Scene, seconds: float, died: list[str]) -> tuple[float, float]:
    """Record every change of the workers for some seconds. Return the time window."""
    begin = time.monotonic()
    workers = scene.server.workers()
    while time.monotonic() - begin < seconds:
        time.sleep(0.2)
        now = scene.server.workers()
        if now != workers:
            died.append(f"{workers} became {now} after {time.monotonic() - begin:.1f} s")
            workers = now
    return begin, time.monotonic()


def _left_open(scene: Scene) -> dict[int, list[str]]:
    """Return the open connections and images of each worker, by process ID."""
    held = {}
    for pid in scene.server.workers():
        images = [path for path in open_files(pid) if "/objects/" in path or "/partial" in path]
        held[pid] = images + ["a client"] * client_connections(pid, scene.port)
    return {pid: what for pid, what in held.items() if what}


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


@pytest.mark.timeout(150 + 120 * MINUTES)
def test_a_random_attack_kills_no_worker_and_starves_no_client(scene: Scene) -> None:
    sys.stderr.write(f"\nCHAOS_SEED={SEED}\n")
    for number in range(MINUTES):
        calm = _baseline(scene)
        _check_round(scene, _attack(scene, SEED + number), calm)
    with _process("tests.server.chaos", as_argument(scene.target)):
        time.sleep(4)
        scene.server.process.send_signal(signal.SIGTERM)
        assert scene.server.process.wait(60) == 0
    assert not _bad_lines(scene), f"CHAOS_SEED={SEED}"


def _bad_lines(scene: Scene) -> list[str]:
    return [line for line in scene.server.log.splitlines() if _BAD.search(line)][:10]


def _check_round(scene: Scene, found: Round, calm: float) -> None:
    with suppress(AssertionError):
        wait_until(lambda: not _left_open(scene), seconds=60)
    took = [seconds for window in found.measured for seconds in found.health.between(*window)]
    logs = (found.health, *found.hits)
    wrong = [what for log in logs for what in log.wrong if not _within(what[0], found.starved)]
    rate = _rate(found.hits, found.measured)
    p99 = _percentile(took, 0.99) if took else float("inf")
    dropped = sum(log.dropped for log in logs)
    sys.stderr.write(
        f"/healthz p50 {_percentile(took or [0], 0.5):.3f} s, p99 {p99:.3f} s; {rate:.0f} honest hits/s, "
        f"{calm:.0f} while a tarpit is attacked; {dropped} connections dropped; {dict(found.attacks)}\n"
    )
    faults = {
        "workers died": found.died,
        "log": _bad_lines(scene),
        "wrong answers": wrong[:10],
        "left open": _left_open(scene),
        f"/healthz p99 {p99:.2f} s": p99 > HEALTH_SECONDS,
        f"{rate:.0f} of {calm:.0f} hits/s": rate < HITS_RATIO * calm,
    }
    assert not {what: fault for what, fault in faults.items() if fault}, f"CHAOS_SEED={SEED}"


def _within(moment: float, window: tuple[float, float]) -> bool:
    return window[0] <= moment < window[1]
