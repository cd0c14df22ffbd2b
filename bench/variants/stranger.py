"""The hit ratio of others while a stranger requests all listed variants of an image again and again."""

import bisect
import http.client
import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.config.settings import Config
from bench.pictures import jpeg, photo
from bench.plan import Plan
from bench.product import HIT, our_parts, our_server, upload_noise
from bench.progress import say
from bench.report import Section, Table, at_most
from bench.servers import Server
from bench.variants.ours import listed_names, made, path_of, upload

_IMAGES = 1_500
_IMAGE_BYTES = (50_000, 250_000)
_EXPONENT = 0.9
_CACHE_BYTES = 64 << 20
_PER_SECOND = 250
_CLIENTS = 4
_SECONDS = 20
"""Duration of each of the three phases: a warm-up, without the stranger, and with the stranger."""

_MAX_POINTS = 5

_METHOD = f"""\
{_CLIENTS} clients request {_PER_SECOND} images a second, of {_IMAGES:,} images with 50 to 250 KB. The
probability of an image is inversely proportional to its rank to the power of {_EXPONENT}. The cache has room
for {_CACHE_BYTES >> 20} MiB, about a third of the images. After a warm-up, hits are counted for {_SECONDS} s.
Then a stranger requests all variants of a 12-megapixel JPEG that need no signature, over and over, and hits
are counted for another {_SECONDS} s. The stranger sends the next request at once, or after 0.1 s if the
server is busy."""


@dataclass
class _Crowd:
    """What the clients received: hits, and all responses."""

    hits: int = 0
    responses: int = 0


@dataclass
class _Stranger:
    """What the stranger received: variants, their bytes, and refusals because the server was busy."""

    variants: int = 0
    size: int = 0
    busy: int = 0


def run(plan: Plan) -> Section:
    """Count hits without and with the stranger."""
    directory = plan.new_directory("variants/stranger")
    chance = random.Random(20261130)
    with our_parts(directory) as parts:
        say(f"uploading {_IMAGES:,} images")
        keys = [upload_noise(parts, chance.randrange(*_IMAGE_BYTES)) for _ in range(_IMAGES)]
        target = upload(parts, jpeg(photo(3)))
    paths = [path_of(target, name) for name in listed_names(Config())]
    with our_server(directory, {"CACHE_MAX_BYTES": str(_CACHE_BYTES)}) as server:
        say("a warm-up")
        _crowd(server, keys, chance)
        say("without the stranger")
        before = _crowd(server, keys, chance)
        say("with the stranger")
        made_before = made(server)
        with _stranger(server, paths) as stranger:
            during = _crowd(server, keys, chance)
        encodings = made(server) - made_before
    ratios = [crowd.hits / crowd.responses for crowd in (before, during)]
    rows = [
        ("hit ratio of the others, without the stranger", f"{ratios[0]:.1%} of {before.responses:,}"),
        ("hit ratio of the others, with the stranger", f"{ratios[1]:.1%} of {during.responses:,}"),
        ("variants that anyone may request", f"{len(paths)}"),
        (
            "responses to the stranger",
            f"{stranger.variants} variants with {stranger.size / 1e6:,.0f} MB, {stranger.busy} times busy",
        ),
        ("variants made", f"{encodings}"),
    ]
    section = Section("A stranger who requests all variants", _METHOD)
    section.tables = [Table("Hit ratios", ("what", "measured"), rows)]
    what = "hit ratio of others, lost to a stranger who requests all variants"
    section.figures = [
        at_most("variants of an image that anyone may request", len(paths), 199, ""),
        at_most(what, (ratios[0] - ratios[1]) * 100, _MAX_POINTS, "points"),
    ]
    return section


def _crowd(server: Server, keys: list[str], chance: random.Random) -> _Crowd:
    """Request images at a fixed pace, and count hits."""
    sums = list(itertools.accumulate((rank + 1) ** -_EXPONENT for rank in range(len(keys))))
    streams = [
        [
            bisect.bisect_left(sums, chance.random() * sums[-1])
            for _ in range(_PER_SECOND * _SECONDS // _CLIENTS)
        ]
        for _ in range(_CLIENTS)
    ]
    counted = [_Crowd() for _ in streams]
    threads = [
        threading.Thread(target=_request_images, args=(server, [keys[n] for n in stream], crowd))
        for stream, crowd in zip(streams, counted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = _Crowd(sum(crowd.hits for crowd in counted), sum(crowd.responses for crowd in counted))
    if total.responses != sum(map(len, streams)):
        raise RuntimeError("a client did not receive all images")
    return total


def _request_images(server: Server, keys: list[str], crowd: _Crowd) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    began = time.monotonic()
    for number, key in enumerate(keys):
        time.sleep(max(0, began + number * _CLIENTS / _PER_SECOND - time.monotonic()))
        connection.request("GET", server.prefix + key)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            return
        crowd.responses += 1
        crowd.hits += response.getheader("Cache-Status", "").startswith(HIT)
    connection.close()


@contextmanager
def _stranger(server: Server, paths: list[str]) -> Iterator[_Stranger]:
    """Request all paths over and over until the end of the block."""
    stop = threading.Event()
    stranger = _Stranger()
    thread = threading.Thread(target=_request_variants, args=(server.port, paths, stranger, stop))
    thread.start()
    try:
        yield stranger
    finally:
        stop.set()
        thread.join()
    if not stranger.variants:
        raise RuntimeError("the stranger received no variant")


def _request_variants(port: int, paths: list[str], stranger: _Stranger, stop: threading.Event) -> None:
    for path in itertools.cycle(paths):
        status = 503
        while status == 503 and not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path)
            response = connection.getresponse()
            size = len(response.read())
            connection.close()
            status = response.status
            if status == 503:
                stranger.busy += 1
                stop.wait(0.1)
        if stop.is_set():
            return
        if status == 200:
            stranger.variants += 1
            stranger.size += size
