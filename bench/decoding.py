"""Measure the cost of checking an image in a child process, and how much uploads slow down hits."""

import ctypes
import http.client
import io
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image

from app.config.settings import Config
from app.imaging.check import CheckedImage, check_image
from app.imaging.sandbox.client import Sandbox
from app.imaging.survey import ImageLimits
from bench.load import put_load
from bench.plan import Plan, rotated
from bench.processes import cpu_seconds, resident_bytes, tree
from bench.product import our_parts, our_server, upload_noise
from bench.progress import say
from bench.report import Section, Table, median_ratio
from bench.servers import Server

_M_MMAP_THRESHOLD = -3  # mallopt(3)

_LARGE_SIDE = 3464
"""The side of a square image of 12 megapixels, in pixels."""

_SMALL_SIDE = 96
"""The side of a square image whose PNG has 20 KB, in pixels."""

_CHECKS = {"20 KB PNG": 50, "12 MP JPEG": 3, "12 MP WebP": 3, "12 MP AVIF": 3}
"""How often each image is checked in one measurement."""

_UPLOADED_IMAGE = "12 MP JPEG"

_METHOD = """\
Each image is checked alternately in this process, with the malloc settings of a worker, and in a child of the
decoder host, in {rounds} rounds. *CPU* is user and system time of all processes for one image, and *time* is
wall-clock time. For the hits, a server with one worker on one core serves an image of 20 KB over 32
connections, with and without a client that uploads a 12 MP JPEG repeatedly."""

_Check = Callable[[bytes, ImageLimits], CheckedImage]
_Costs = dict[str, dict[str, list[tuple[float, float]]]]
"""Wall-clock and CPU time in milliseconds, by image and by the place where it was checked."""


def run(plan: Plan) -> Section:
    """Measure the cost of checks and of the decoder host, and the rate of hits during uploads."""
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)  # as gunicorn.conf.py does
    images = _images()
    limits = ImageLimits.from_config(Config())
    costs: _Costs = defaultdict(lambda: defaultdict(list))
    sandbox = Sandbox()
    started = time.perf_counter()
    sandbox.check(images["20 KB PNG"], limits)
    first = time.perf_counter() - started
    for number in range(plan.rounds):
        say(f"decoding, round {number + 1} of {plan.rounds}")
        for name, data in images.items():
            for where, check in rotated([("here", check_image), ("child", sandbox.check)], number):
                costs[name][where].append(_cost(check, data, limits, _CHECKS[name], sandbox))
    host = resident_bytes(sandbox.host_pid)
    sandbox.close()
    section = Section("Decoding in a child process", _METHOD.format(rounds=plan.rounds))
    head = ("image", "CPU here", "CPU in a child", "more", "time here", "time in a child", "more")
    section.tables = [
        Table("Checking an image (medians)", head, [_row(name, costs[name]) for name in images]),
        Table(
            "The decoder host",
            ("what", "measured"),
            [
                ("first image, including the start of the host", f"{first * 1000:.0f} ms"),
                ("its private memory when idle (RssAnon)", f"{host / 2**20:.1f} MiB"),
            ],
        ),
        _hits(plan, images[_UPLOADED_IMAGE]),
    ]
    return section


def _images() -> dict[str, bytes]:
    say("making images")
    soft = Image.effect_noise((_LARGE_SIDE // 4, _LARGE_SIDE // 4), 60).resize(
        (_LARGE_SIDE, _LARGE_SIDE), Image.Resampling.BICUBIC
    )
    picture = Image.merge("RGB", (soft, soft.rotate(90), Image.linear_gradient("L").resize(soft.size)))
    small = Image.merge("RGB", [Image.effect_noise((_SMALL_SIDE, _SMALL_SIDE), 200) for _ in range(3)])
    return {
        "20 KB PNG": _encoded(small, "PNG"),
        "12 MP JPEG": _encoded(picture, "JPEG", quality=85),
        "12 MP WebP": _encoded(picture, "WEBP", quality=80, method=0),
        "12 MP AVIF": _encoded(picture, "AVIF", quality=75, speed=10),
    }


def _encoded(picture: Image.Image, pillow: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, pillow, **options)
    return buffer.getvalue()


def _cost(
    check: _Check, data: bytes, limits: ImageLimits, times: int, sandbox: Sandbox
) -> tuple[float, float]:
    cpu = time.process_time() + cpu_seconds(sandbox.host_pid)
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        check(data, limits)
        durations.append(time.perf_counter() - started)
    cpu = time.process_time() + cpu_seconds(sandbox.host_pid) - cpu
    return statistics.median(durations) * 1000, cpu / times * 1000


def _row(name: str, costs: dict[str, list[tuple[float, float]]]) -> tuple[str, ...]:
    cells = []
    for part in (1, 0):
        here, child = ([cost[part] for cost in costs[where]] for where in ("here", "child"))
        more = statistics.median(b - a for a, b in zip(here, child, strict=True))
        cells += [f"{statistics.median(values):.1f} ms" for values in (here, child)] + [f"{more:.1f} ms"]
    return name, *cells


def _hits(plan: Plan, upload: bytes) -> Table:
    directory = plan.new_directory("decoding")
    with our_parts(directory) as parts:
        key = upload_noise(parts, 20_000)
    alone, during_uploads, uploads = [], [], []
    with our_server(directory, {"WEB_CONCURRENCY": "1"}) as server:
        path = server.prefix + key
        for number in range(plan.rounds):
            say(f"hits during uploads, round {number + 1} of {plan.rounds}")
            alone.append(put_load(server, [path], plan.seconds).rate)
            with _uploading(server, upload) as times:
                during_uploads.append(put_load(server, [path], plan.seconds).rate)
            uploads += times
        processes = tree(server.pid)
    rows = [
        ("hits/s without uploads", f"{statistics.median(alone):,.0f}"),
        ("hits/s during uploads", f"{statistics.median(during_uploads):,.0f}"),
        ("ratio", f"{median_ratio(during_uploads, alone):.2f} ×"),
        ("one upload", f"{statistics.median(uploads):.2f} s"),
        ("processes of the server", f"{len(processes)}"),
    ]
    return Table("Hits while 12 MP JPEGs are uploaded (medians)", ("what", "measured"), rows)


@contextmanager
def _uploading(server: Server, data: bytes) -> Iterator[list[float]]:
    """Upload `data` repeatedly, each time to another folder; yield the list of each upload's seconds."""
    times: list[float] = []
    stop = threading.Event()

    def upload() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        while not stop.is_set():
            started = time.perf_counter()
            path = f"/api/images?folder=uploads/{time.time_ns()}"
            connection.request("POST", path, data, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            if response.status != 201:
                raise RuntimeError(f"an upload failed with status {response.status}")
            times.append(time.perf_counter() - started)
        connection.close()

    thread = threading.Thread(target=upload)
    thread.start()
    time.sleep(0.5)
    try:
        yield times
    finally:
        stop.set()
        thread.join()
