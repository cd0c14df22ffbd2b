"""Many clients that request the same variant at once: how many GetObjects and encodings they cause."""

import asyncio
import hashlib
import json
import random
import statistics
from pathlib import Path

from app.services.urls import IMAGES_PATH
from bench.crowd import crowd
from bench.miss import BUCKET, origin_server, settings_for
from bench.origin import COUNTS, DELAY
from bench.pictures import copies, photo
from bench.plan import Plan
from bench.product import our_server
from bench.progress import say
from bench.report import Figure, Section, Table
from bench.servers import get
from bench.variants.ours import WIDTH, made, path_of
from bench.variants.refusals import unknown_key
from bench.variants.requests import request_all

_CLIENTS = 200
_WORKERS = 4
_EXTENSION = "webp"

_METHOD = f"""\
{_CLIENTS} clients are connected and request the same variant at the same moment. Neither the variant nor its
source, a JPEG of 12 megapixels, is in the cache. The origin is `bench/origin.py`, 50 ms away, and has no
metadata of the source. The server also looks for an object of other software under the path of the variant.
Numbers of requests and encodings are the highest of {{rounds}} sources. The wait ends when a client has
received the whole variant. Waits are medians over all clients and sources."""


def run(plan: Plan) -> Section:
    """Send a crowd to a variant of each source."""
    directory = plan.new_directory("variants/crowds")
    objects = directory / "origin"
    chance = random.Random(1)
    waits: list[float] = []
    of_source, gets, heads, encodings = [], [], [], []
    with origin_server(directory, objects) as origin:
        keys = _make_objects(objects, plan.rounds)
        get(origin.port, f"{DELAY}50")
        with our_server(directory, settings_for(origin, _WORKERS)) as server:
            # Each worker's first request to the store opens its client.
            asyncio.run(request_all(server.port, [IMAGES_PATH + unknown_key(chance) for _ in range(100)]))
            for key in keys:
                say(f"{_CLIENTS} clients on one cold variant")
                before = made(server)
                waits += asyncio.run(crowd(server.port, path_of(key, f"w{WIDTH}.{_EXTENSION}"), _CLIENTS))
                encodings.append(made(server) - before)
                counts = json.loads(get(origin.port, COUNTS).body)
                of_source.append(counts[f"/{BUCKET}/{key}"])
                gets.append(sum(counts[path] for path in counts if path.startswith(f"/{BUCKET}/{key}")))
                heads.append(sum(counts[path] for path in counts if path.startswith(f"HEAD /{BUCKET}/{key}")))
    section = Section("Crowds on one variant", _METHOD.format(rounds=plan.rounds))
    worst = statistics.quantiles(waits, n=20)[-1] * 1000
    row = (
        str(max(of_source)),
        str(max(gets)),
        str(max(heads)),
        str(max(encodings)),
        f"{statistics.median(waits) * 1000:.0f} ms",
        f"{worst:.0f} ms",
    )
    head = (
        "GetObjects of the source",
        "all GetObjects",
        "HeadObjects",
        "encodings",
        "median wait",
        "95 % wait",
    )
    section.tables = [Table(f"{_CLIENTS} clients, {_WORKERS} workers", head, [row])]
    what = f"{_CLIENTS} clients, one cold variant, {_WORKERS} workers"
    section.figures = [
        Figure(f"{what}: GetObjects", "1", str(max(gets)), set(gets) == {1}),
        Figure(f"{what}: encodings", "1", str(max(encodings)), set(encodings) == {1}),
    ]
    return section


def _make_objects(objects: Path, count: int) -> list[str]:
    """Write photos that differ into the directory of the origin, and return their content-addressed keys."""
    keys = []
    for data in copies(photo(0), count):
        digest = hashlib.sha256(data).hexdigest()
        keys.append(f"images/{digest[:2]}/{digest[2:32]}.jpg")
        path = objects / keys[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return keys
