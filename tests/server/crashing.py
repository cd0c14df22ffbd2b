"""Kills gunicorn workers with SIGKILL at random moments, while images are uploaded, cached and evicted."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from app.cache.disk_cache import DiskCache
from app.cache.rebuild import CheckReport
from app.services.urls import IMAGES_PATH
from app.stores.local import LocalStore
from tests.pictures import noise
from tests.server.running import Running, running

CACHE_BYTES = 1_500_000
"""Too small for all images, so that images are cached and evicted all the time."""

IMAGES = 150


@dataclass
class Outcome:
    """The result: kills, responses by status, URLs with wrong bytes, and lost acknowledged images."""

    kills: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    report: CheckReport = field(default_factory=CheckReport)


class _Clients:
    """Threads that upload and read until `stop` is set. Connections that a kill breaks are ignored."""

    def __init__(self, url: str, outcome: Outcome) -> None:
        self._url = url
        self._outcome = outcome
        self.acknowledged: dict[str, bytes] = {}
        self.stop = threading.Event()

    def run(self, seed: int) -> None:
        """Run one client, which also overwrites an image with a chosen name."""
        rng = random.Random(seed)
        named = _Named(self._url, f"client/{seed}.png", self._outcome)
        while not self.stop.is_set():
            dice = rng.random()
            try:
                if dice < 0.3:
                    self._upload(rng.randrange(IMAGES))
                elif dice < 0.5:
                    named.overwrite_and_read(noise(rng.randrange(IMAGES)))
                else:
                    self._read(rng)
            except requests.RequestException:
                time.sleep(0.02)

    def _upload(self, number: int) -> None:
        data = noise(number)
        answer = requests.post(f"{self._url}/api/images", files={"image": ("a.png", data)}, timeout=20)
        self._outcome.statuses[answer.status_code] += 1
        if answer.status_code in (200, 201):
            self.acknowledged[answer.json()["image_url"]] = data

    def _read(self, rng: random.Random) -> None:
        if not self.acknowledged:
            return
        url = rng.choice(list(self.acknowledged))
        answer = requests.get(url, timeout=20)
        self._outcome.statuses[answer.status_code] += 1
        if answer.status_code == 200 and answer.content != self.acknowledged[url]:
            self._outcome.wrong.append(url)


class _Named:
    """An image that one client overwrites. It may have the acknowledged bytes or bytes sent later."""

    def __init__(self, url: str, name: str, outcome: Outcome) -> None:
        self._uploads, self._url = f"{url}/api/images", f"{url}{IMAGES_PATH}{name}"
        self._name = name
        self._outcome = outcome
        self._possible: list[bytes] = []

    def overwrite_and_read(self, data: bytes) -> None:
        """Store different bytes under the name. Once they are acknowledged, only these may be read."""
        self._possible.append(data)
        answer = requests.post(
            self._uploads, files={"image": ("a.png", data)}, data={"name": self._name}, timeout=20
        )
        self._outcome.statuses[answer.status_code] += 1
        if answer.status_code in (200, 201):
            self._possible = [data]
        read = requests.get(self._url, timeout=20)
        self._outcome.statuses[read.status_code] += 1
        if read.status_code == 200 and read.content not in self._possible:
            self._outcome.wrong.append(self._url)


def crash(directory: Path, kills: int, progress: Callable[[int], None] = lambda done: None) -> Outcome:
    """Kill workers `kills` times under load. Then check the acknowledged images and the cache."""
    outcome = Outcome()
    rng = random.Random(kills)
    settings = {"WEB_CONCURRENCY": "2", "CACHE_MAX_BYTES": str(CACHE_BYTES), "LOG_LEVEL": "INFO"}
    with running(directory, **settings) as server, ThreadPoolExecutor(6) as pool:
        clients = _Clients(server.url, outcome)
        tasks = [pool.submit(clients.run, seed) for seed in range(6)]
        while outcome.kills < kills:
            _wait_for_answers(outcome)
            time.sleep(rng.uniform(0.0, 0.15))
            outcome.kills += _kill_one(server, rng)
            progress(outcome.kills)
        clients.stop.set()
        for task in tasks:
            task.result()
    kept = LocalStore(directory / "store")
    outcome.lost = [url for url, data in clients.acknowledged.items() if not _is_kept(kept, url, data)]
    cache = DiskCache(directory / "cache", CACHE_BYTES)
    outcome.report = cache.check()
    cache.close()
    return outcome


def _wait_for_answers(outcome: Outcome) -> None:
    """Wait until some requests were answered, since it would be pointless to kill workers earlier."""
    enough, deadline = outcome.statuses.total() + 6, time.monotonic() + 20
    while outcome.statuses.total() < enough and time.monotonic() < deadline:
        time.sleep(0.005)


def _kill_one(server: Running, rng: random.Random) -> int:
    """Kill one of two running workers. Return 0 if they are not both running."""
    workers = server.workers()
    if len(workers) < 2:
        return 0
    os.kill(rng.choice(workers), signal.SIGKILL)
    return 1


def _is_kept(store: LocalStore, url: str, data: bytes) -> bool:
    """Return whether the store contains the image, since the cache could hide a loss."""
    stored = store.get(url.partition(IMAGES_PATH)[2])
    if stored is None:
        return False
    with stored:
        return stored.body.read() == data
