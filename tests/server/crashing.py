"""Kills gunicorn workers with SIGKILL at random moments, while images and variants are made and evicted."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import requests

from app.cache.disk_cache import DiskCache
from app.cache.rebuild import CheckReport
from app.config.settings import Config
from app.core.variant_specs import parse_spec
from app.imaging.survey import ImageLimits
from app.imaging.variants import VariantRequest, make_variant
from app.services.urls import IMAGES_PATH
from app.stores.local import LocalStore
from tests.pictures import noise
from tests.server.running import Running, running

CACHE_BYTES = 1_500_000
"""Too small for all images, so that images are cached and evicted all the time."""

IMAGES = 150


VARIANTS = ("/w16.png", "/w32.png")


@lru_cache
def _variant(data: bytes, name: str) -> bytes:
    spec, image_format = name[1:].split(".")
    limits = ImageLimits.from_config(Config.from_env({}))
    return make_variant(data, VariantRequest(parse_spec(spec), image_format, 10**6), limits).data


def rendition(data: bytes, name: str) -> bytes:
    """Return the variant with this name, or the image itself if the name is empty."""
    return _variant(data, name) if name else data


@dataclass
class Outcome:
    """The result: kills, responses by status, URLs with wrong bytes, and lost acknowledged images.

    `largest_cache` is the largest size on disk that the cache was seen to have.
    """

    kills: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    largest_cache: int = 0
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
                if dice < 0.35:
                    self._upload(rng.randrange(IMAGES))
                elif dice < 0.45:
                    self._delete(rng)
                elif dice < 0.65:
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
        url, data = rng.choice(list(self.acknowledged.items()))
        name = rng.choice(["", *VARIANTS])
        answer = requests.get(f"{url}{name}", timeout=20)
        self._outcome.statuses[answer.status_code] += 1
        if answer.status_code == 200 and answer.content != rendition(data, name):
            self._outcome.wrong.append(f"{url}{name}")

    def _delete(self, rng: random.Random) -> None:
        """Delete an image that no other client uploads. Then neither it nor its variants may be read."""
        data = noise(IMAGES + rng.randrange(10**6))
        answer = requests.post(f"{self._url}/api/images", files={"image": ("a.png", data)}, timeout=20)
        if answer.status_code != 201:
            return
        url = answer.json()["image_url"]
        name = rng.choice(VARIANTS)
        requests.get(f"{url}{name}", timeout=20)
        self._outcome.statuses[status := requests.delete(url, timeout=20).status_code] += 1
        if status == 200 and {requests.get(f"{url}{end}", timeout=20).status_code for end in ("", name)} != {
            404
        }:
            self._outcome.wrong.append(f"{url} was deleted")


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
        for name in ("", *VARIANTS):
            read = requests.get(f"{self._url}{name}", timeout=20)
            self._outcome.statuses[read.status_code] += 1
            possible = [rendition(sent, name) for sent in self._possible]
            if read.status_code == 200 and read.content not in possible:
                self._outcome.wrong.append(f"{self._url}{name}")


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
            outcome.largest_cache = max(outcome.largest_cache, _bytes_on_disk(directory / "cache"))
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


def _bytes_on_disk(directory: Path) -> int:
    """Return the size of a directory that is changing. A file that is moved meanwhile counts once."""
    found: dict[int, int] = {}
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            facts = path.lstat()
            found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


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
