"""Misses: the time that the server adds to GetObject, and how many GetObjects simultaneous clients cause."""

import asyncio
import hashlib
import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from app.services.urls import IMAGES_PATH
from bench.crowd import crowd
from bench.origin import COUNTS, DELAY
from bench.plan import Plan
from bench.product import our_server
from bench.progress import say
from bench.report import Figure, Section, Table, at_most
from bench.servers import Server, Start, get, serving

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "bench"
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
_OBJECT_BYTES = 100_000
_SINGLE = 100
"""Number of misses that are measured one after the other."""

_WARM_UP = 700
"""Number of misses that are enough to create most of the cache's directories."""

_CROWDS = {200: 4, 50: 2}
"""Maps numbers of simultaneous clients to numbers of workers."""

_METHOD = f"""\
The origin is `bench/origin.py`, which answers GetObject with {_OBJECT_BYTES // 1000} KB. For a single miss,
boto3 first reads a new key with `get_object`, and then a client requests the same key from our server.
Figures are medians over {_SINGLE} keys. In a crowd, all clients are connected and request the same uncached
key at the same moment. The wait ends when a client has received the whole image. Figures are medians over
all clients, for {{rounds}} keys. In an empty cache, almost every miss creates a directory. In a used cache,
few misses do. For a minute after many files were deleted, ext4 creates files slowly, so results are worse
right after a previous run."""


def run(plan: Plan) -> Section:
    """Measure single misses, then crowds."""
    directory = plan.new_directory("miss")
    objects = directory / "origin"
    section = Section("Misses", _METHOD.format(rounds=plan.rounds))
    with origin_server(directory, objects) as origin:
        _singles(section, directory, origin, objects)
        for clients, workers in _CROWDS.items():
            keys = _make_objects(objects, plan.rounds)
            _crowds(section, plan.new_directory(f"miss/{clients}"), origin, keys, clients, workers)
    return section


@contextmanager
def origin_server(directory: Path, objects: Path) -> Iterator[Server]:
    objects.mkdir()

    def start(port: int) -> Start:
        return Start((sys.executable, "-m", "bench.origin", str(port), str(objects)))

    with serving("origin", start, directory / "origin.log", ready=COUNTS) as server:
        yield server


def _make_objects(objects: Path, number: int) -> list[str]:
    """Create objects of random bytes, and return their content-addressed keys."""
    keys = []
    for _ in range(number):
        data = os.urandom(_OBJECT_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        keys.append(f"images/{digest[:2]}/{digest[2:32]}.png")
        path = objects / keys[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return keys


def settings_for(origin: Server, workers: int) -> dict[str, str]:
    return {
        "STORE": "s3",
        "S3_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{origin.port}",
        "AWS_REGION": "us-east-1",
        "WEB_CONCURRENCY": str(workers),
        **_CREDENTIALS,
    }


def _singles(section: Section, directory: Path, origin: Server, objects: Path) -> None:
    """Measure single misses in an empty cache, and again when the cache has directories."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{origin.port}",
        region_name="us-east-1",
        aws_access_key_id=_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    rows = []
    with our_server(directory, settings_for(origin, 1)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for name in ("empty cache", "used cache"):
            get(origin.port, f"{DELAY}20")
            say(f"{_SINGLE} single misses, {name}")
            bare, ours = _single(client, connection, _make_objects(objects, _SINGLE + 5))
            added = (ours / bare - 1) * 100
            rows.append((name, f"{bare:.2f} ms", f"{ours:.2f} ms", f"{ours - bare:.2f} ms", f"{added:.1f} %"))
            what = f"miss of 100 KB, origin 20 ms away, {name}: added to `get_object`"
            section.figures.append(at_most(what, added, 15, "%"))
            get(origin.port, f"{DELAY}0")
            for key in _make_objects(objects, _WARM_UP):
                _fetch(connection, IMAGES_PATH + key)
        connection.close()
    head = ("state", "bare `get_object`", "ours", "added", "of it")
    section.tables.append(Table("One miss, origin 20 ms away (medians)", head, rows))


def _single(
    client: "S3Client", connection: http.client.HTTPConnection, keys: list[str]
) -> tuple[float, float]:
    """Return the median times of `get_object` and of our server, in milliseconds.

    The first few requests are not counted, because they open connections.
    """
    bare, ours = [], []
    for key in keys:
        began = time.perf_counter()
        client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        between = time.perf_counter()
        _fetch(connection, IMAGES_PATH + key)
        bare.append(between - began)
        ours.append(time.perf_counter() - between)
    return statistics.median(bare[-_SINGLE:]) * 1000, statistics.median(ours[-_SINGLE:]) * 1000


def _fetch(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    status = response.getheader("Cache-Status", "")
    if response.status != 200 or "fwd=uri-miss; stored" not in status:
        raise RuntimeError(f"{path}: {response.status}, Cache-Status {status}")


def _crowds(
    section: Section, directory: Path, origin: Server, keys: list[str], clients: int, workers: int
) -> None:
    waits, requests = [], []
    get(origin.port, f"{DELAY}50")
    with our_server(directory, settings_for(origin, workers)) as server:
        # Each worker's first request to the store opens its client.
        asyncio.run(crowd(server.port, "/readyz", clients))
        for key in keys:
            say(f"{clients} clients on one cold key")
            waits += asyncio.run(crowd(server.port, IMAGES_PATH + key, clients))
            counts = json.loads(get(origin.port, COUNTS).body)
            requests.append(counts[f"/{BUCKET}/{key}"])
    wait = statistics.median(waits) * 1000
    worst = statistics.quantiles(waits, n=20)[-1] * 1000
    rows = [(f"{clients}", f"{workers}", f"{max(requests)}", f"{wait:.0f} ms", f"{worst:.0f} ms")]
    head = ("clients", "workers", "GetObjects (most)", "median wait", "95 % wait")
    section.tables.append(Table(f"{clients} clients on one cold key, origin 50 ms away", head, rows))
    name = f"{clients} clients, one cold key, {workers} workers"
    section.figures.append(Figure(f"{name}: GetObjects", "1", f"{max(requests)}", max(requests) == 1))
    if clients == 50:
        section.figures.append(at_most(f"{name}: median wait, origin 50 ms away", wait, 120, "ms"))
