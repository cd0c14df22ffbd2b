"""Hits and uploads while all places make AVIFs."""

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from app.config.settings import Config
from bench.load import put_load
from bench.pictures import copies, photo
from bench.plan import Plan
from bench.product import WORKERS, our_parts, our_server, upload_noise
from bench.progress import say
from bench.report import Section, Table, at_least, median_ratio
from bench.servers import Server
from bench.uploaders import Photos
from bench.variants.ours import made, path_of, upload

_SOURCES = 24
_CLIENTS = 4 * WORKERS
"""Number of clients that request variants. So many keep the places of all workers busy."""

_RAMP_SECONDS = 0.5
_BUSY_PAUSE_SECONDS = 0.1
_UPLOADERS = 2
_SECONDS = 3
"""Minimum duration of a measurement. An AVIF of the greatest width takes a good part of a second."""

_METHOD = f"""\
A server with {WORKERS} workers serves hits of an image of 20 KB over 32 connections or, separately, accepts
uploads of PNGs of 20 KB from {_UPLOADERS} clients, with and without {_CLIENTS} clients that request AVIFs of
JPEGs of 12 megapixels in listed widths, the largest first. Each AVIF is requested once, and the clients come
back after {_BUSY_PAUSE_SECONDS} s if the server is busy, so that all places are in use. The load generator
runs on the same cores. {{rounds}} rounds of {{seconds}} s."""


def run(plan: Plan) -> Section:
    """Measure hits and uploads, alone and while variants are made."""
    directory = plan.new_directory("variants/pressure")
    seconds = max(plan.seconds, _SECONDS)
    with our_parts(directory) as parts:
        hit = upload_noise(parts, 20_000)
        say("making and uploading pictures")
        keys = [upload(parts, data) for data in copies(photo(1), _SOURCES)]
    variants = _queue(path_of(key, f"w{width}.avif") for width in Config().variant_widths for key in keys)
    alone: dict[str, list[float]] = {"hits/s": [], "uploads/s": []}
    pressed: dict[str, list[float]] = {"hits/s": [], "uploads/s": []}
    making: list[int] = []
    with our_server(directory) as server:
        measures: dict[str, Callable[[], float]] = {
            "hits/s": lambda: put_load(server, [server.prefix + hit], seconds).rate,
            "uploads/s": lambda: _upload_rate(server, seconds),
        }
        for number in range(plan.rounds):
            say(f"pressure, round {number + 1} of {plan.rounds}")
            for what, measure in measures.items():
                alone[what].append(measure())
                before = made(server)
                with _making(server, variants):
                    pressed[what].append(measure())
                making.append(made(server) - before)
    if not all(making):
        raise RuntimeError("no variants were made during a measurement")
    section = Section(
        "Other requests while variants are made", _METHOD.format(rounds=plan.rounds, seconds=seconds)
    )
    section.tables = [_table(alone, pressed, making)]
    ratio = median_ratio(pressed["hits/s"], alone["hits/s"])
    section.figures = [
        at_least("plain hits while all places make AVIFs, against their rate alone", ratio, 0.5)
    ]
    return section


def _table(alone: dict[str, list[float]], pressed: dict[str, list[float]], making: list[int]) -> Table:
    rows = [
        (
            what,
            f"{statistics.median(rates):,.0f}",
            f"{statistics.median(pressed[what]):,.0f}",
            f"{median_ratio(pressed[what], rates):.2f} ×",
        )
        for what, rates in alone.items()
    ]
    rows.append(("AVIFs made in a measurement", "–", f"{statistics.median(making):.0f}", "–"))
    return Table("While all places make AVIFs (medians)", ("what", "alone", "then", "ratio"), rows)


def _queue(paths: Iterator[str]) -> "SimpleQueue[str]":
    queue: SimpleQueue[str] = SimpleQueue()
    for path in sorted(paths, key=lambda path: path.rpartition("/")[2].zfill(20), reverse=True):
        queue.put(path)
    return queue


@contextmanager
def _making(server: Server, variants: "SimpleQueue[str]") -> Iterator[None]:
    """Request variants in the background, and wait at the end for those that are being made.

    Raises `RuntimeError` if a request failed, or if no variants are left.
    """
    stop = threading.Event()
    failures: list[str] = []
    threads = [
        threading.Thread(target=_request, args=(server.port, variants, stop, failures))
        for _ in range(_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    time.sleep(_RAMP_SECONDS)
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise RuntimeError(failures[0])


def _request(port: int, variants: "SimpleQueue[str]", stop: threading.Event, failures: list[str]) -> None:
    while not stop.is_set():
        try:
            path = variants.get_nowait()
        except Empty:
            failures.append("all variants have been made before the end of the measurement")
            return
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status == 503:
            variants.put(path)
            stop.wait(_BUSY_PAUSE_SECONDS)
        elif response.status != 200:
            failures.append(f"{path}: {response.status}")
            return


def _upload_rate(server: Server, seconds: float) -> float:
    """Return the number of uploads per second. Raises `RuntimeError` if one failed."""
    with ThreadPoolExecutor(_UPLOADERS) as threads:
        counts = threads.map(_upload, [server.port] * _UPLOADERS, [time.monotonic() + seconds] * _UPLOADERS)
        return sum(counts) / seconds


def _upload(port: int, until: float) -> int:
    photos = Photos(20_000)
    count = 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < until:
        connection.request("POST", "/api/images", photos.image(), {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
        if response.status != 201:
            raise RuntimeError(f"an upload failed with status {response.status}")
        count += 1
    connection.close()
    return count
