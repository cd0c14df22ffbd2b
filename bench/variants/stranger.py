"""The hit ratio of others while a stranger requests all listed variants of an image again and again."""

import bisect
import http.client
import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from app.config.settings import Config
from bench.pictures import jpeg, photo
from bench.plan import Plan
from bench.product import HIT, our_parts, our_server, upload_noise
from bench.progress import say
from bench.report import Section, Table, at_most
from bench.servers import Server
from bench.variants.ours import listed_names, made, path_of, upload

_IMAGES = 600
_IMAGE_BYTES = (100_000, 500_000)
_EXPONENT = 0.9
_CACHE_BYTES = 64 << 20
_PER_SECOND = 250
_CLIENTS = 4
_SECONDS = 20
"""Duration of each of the three phases: a warm-up, without the stranger, and with the stranger."""

_MAX_POINTS = 5

_SCALE = 4
"""By how much lengths are reduced. All sizes in bytes, such as the cache's, are reduced by the square."""

_SIZE = (4000 // _SCALE, 3000 // _SCALE)
_STRANGERS = 4
"""Number of connections of the stranger."""

_HEAD_START_SECONDS = 10
"""How long the stranger sends requests before hits are counted."""

_METHOD = f"""\
{_CLIENTS} clients request {_PER_SECOND} images a second, of {_IMAGES:,} images with 100 to 500 KB. The
probability of an image is inversely proportional to its rank to the power of {_EXPONENT}. The cache has room
for {_CACHE_BYTES >> 20} MiB, about a third of the images. After a warm-up, hits are counted for {_SECONDS} s.
Then a stranger requests all variants of a JPEG that need no signature, over and over, in random order and
over {_STRANGERS} connections, each of which sends its next request at once, or after 0.1 s if the server is
busy. After {_HEAD_START_SECONDS} s, hits are counted for another {_SECONDS} s. To save time, the picture and
VARIANT_WIDTHS have a quarter of the usual length. So the variants have a sixteenth of the bytes of a
12-megapixel picture's, as the cache has a sixteenth of its default size."""


@dataclass
class _Crowd:
    """What the clients received: hits, and all responses."""

    hits: int = 0
    responses: int = 0


@dataclass
class _Stranger:
    """What a connection of the stranger received: variants, their sizes by path, and refusals (503)."""

    variants: int = 0
    busy: int = 0
    failure: str = ""
    sizes: dict[str, int] = field(default_factory=dict)


def run(plan: Plan) -> Section:
    """Count hits without and with the stranger."""
    directory = plan.new_directory("variants/stranger")
    chance = random.Random(20261130)
    with our_parts(directory) as parts:
        say(f"uploading {_IMAGES:,} images")
        keys = [upload_noise(parts, chance.randrange(*_IMAGE_BYTES)) for _ in range(_IMAGES)]
        target = upload(parts, jpeg(photo(3, _SIZE)))
    config = replace(Config(), variant_widths=tuple(width // _SCALE for width in Config().variant_widths))
    paths = [path_of(target, name) for name in listed_names(config)]
    settings = {
        "CACHE_MAX_BYTES": str(_CACHE_BYTES),
        "VARIANT_WIDTHS": ",".join(map(str, config.variant_widths)),
    }
    with our_server(directory, settings) as server:
        say("a warm-up")
        _crowd(server, keys, chance)
        say("without the stranger")
        before = _crowd(server, keys, chance)
        say("with the stranger")
        made_before = made(server)
        with _stranger(server, paths) as strangers:
            during = _crowd(server, keys, chance)
        encodings = made(server) - made_before
    sizes = {path: size for of in strangers for path, size in of.sizes.items()}
    ratios = [crowd.hits / crowd.responses for crowd in (before, during)]
    rows = [
        ("hit ratio of the others, without the stranger", f"{ratios[0]:.1%} of {before.responses:,}"),
        ("hit ratio of the others, with the stranger", f"{ratios[1]:.1%} of {during.responses:,}"),
        ("variants that anyone may request", f"{len(paths)}"),
        ("their bytes, of those that the stranger received", f"{sum(sizes.values()) / 1e6:,.0f} MB"),
        ("responses to the stranger", f"{sum(of.variants for of in strangers):,}"),
        ("refusals because the server was busy", f"{sum(of.busy for of in strangers):,}"),
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
def _stranger(server: Server, paths: list[str]) -> Iterator[list[_Stranger]]:
    """Request all paths over and over until the end of the block, over several connections.

    The block begins after the stranger's head start. Raises `RuntimeError` if a response is no variant.
    """
    stop = threading.Event()
    strangers = [_Stranger() for _ in range(_STRANGERS)]
    threads = [
        threading.Thread(
            target=_request_variants, args=(server.port, random.Random(n).sample(paths, len(paths)), of, stop)
        )
        for n, of in enumerate(strangers)
    ]
    for thread in threads:
        thread.start()
    time.sleep(_HEAD_START_SECONDS)
    try:
        yield strangers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    failed = [of.failure for of in strangers if of.failure]
    if failed:
        raise RuntimeError(failed[0])


def _request_variants(port: int, paths: list[str], of: _Stranger, stop: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for path in itertools.cycle(paths):
        status = 503
        while status == 503 and not stop.is_set():
            connection.request("GET", path)
            response = connection.getresponse()
            size = len(response.read())
            status = response.status
            if status == 503:
                of.busy += 1
                stop.wait(0.1)
        if stop.is_set():
            break
        if status != 200:
            of.failure = f"{path}: {status}"
            break
        of.variants += 1
        of.sizes[path] = size
    connection.close()
