"""Measures what checking an image in a child process costs, and how much uploads slow hits down."""

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

_SIDE = 3464
"""Of a square picture of 12 megapixels."""

_SMALL = 96
"""Of one whose PNG has 20 KB."""

_TIMES = {"20 KB PNG": 50, "12 MP JPEG": 3, "12 MP WebP": 3, "12 MP AVIF": 3}
"""How often each is checked for one measurement."""

_UPLOADED = "12 MP JPEG"

_METHOD = """\
Each image is checked in this process, whose memory is handled as a worker's, and in a child of the decoder
host, in turn, {rounds} rounds. *CPU* is user and system time of all processes for one image, *time* that by
the clock. Hits are of 20 KB, at 32 connections, from a server with one worker on one core; while they are
counted, one client uploads a 12 MP JPEG again and again."""

_Check = Callable[[bytes, ImageLimits], CheckedImage]
_Costs = dict[str, dict[str, list[tuple[float, float]]]]
"""Milliseconds by the clock and of CPU, by image and by where it was checked."""


def run(plan: Plan) -> Section:
    """Measure checks, the host, and hits during uploads."""
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)  # as gunicorn.conf.py does
    images = _images()
    limits = ImageLimits.from_config(Config())
    costs: _Costs = defaultdict(lambda: defaultdict(list))
    sandbox = Sandbox()
    began = time.perf_counter()
    sandbox.check(images["20 KB PNG"], limits)
    first = time.perf_counter() - began
    for number in range(plan.rounds):
        say(f"decoding, round {number + 1} of {plan.rounds}")
        for name, data in images.items():
            for where, check in rotated([("here", check_image), ("child", sandbox.check)], number):
                costs[name][where].append(_cost(check, data, limits, _TIMES[name], sandbox))
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
                ("first image, the start of the host included", f"{first * 1000:.0f} ms"),
                ("memory of its own at rest (RssAnon)", f"{host / 2**20:.1f} MiB"),
            ],
        ),
        _hits(plan, images[_UPLOADED]),
    ]
    return section


def _images() -> dict[str, bytes]:
    say("making images")
    soft = Image.effect_noise((_SIDE // 4, _SIDE // 4), 60).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    picture = Image.merge("RGB", (soft, soft.rotate(90), Image.linear_gradient("L").resize(soft.size)))
    small = Image.merge("RGB", [Image.effect_noise((_SMALL, _SMALL), 200) for _ in range(3)])
    return {
        "20 KB PNG": _saved(small, "PNG"),
        "12 MP JPEG": _saved(picture, "JPEG", quality=85),
        "12 MP WebP": _saved(picture, "WEBP", quality=80, method=0),
        "12 MP AVIF": _saved(picture, "AVIF", quality=75, speed=10),
    }


def _saved(picture: Image.Image, pillow: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, pillow, **options)
    return buffer.getvalue()


def _cost(
    check: _Check, data: bytes, limits: ImageLimits, times: int, sandbox: Sandbox
) -> tuple[float, float]:
    cpu = time.process_time() + cpu_seconds(sandbox.host_pid)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        check(data, limits)
        took.append(time.perf_counter() - began)
    cpu = time.process_time() + cpu_seconds(sandbox.host_pid) - cpu
    return statistics.median(took) * 1000, cpu / times * 1000


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
    alone, meanwhile, uploads = [], [], []
    with our_server(directory, {"WEB_CONCURRENCY": "1"}) as server:
        path = server.prefix + key
        for number in range(plan.rounds):
            say(f"hits during uploads, round {number + 1} of {plan.rounds}")
            alone.append(put_load(server, [path], plan.seconds).rate)
            with _uploading(server, upload) as times:
                meanwhile.append(put_load(server, [path], plan.seconds).rate)
            uploads += times
        processes = tree(server.pid)
    rows = [
        ("hits/s without uploads", f"{statistics.median(alone):,.0f}"),
        ("hits/s during uploads", f"{statistics.median(meanwhile):,.0f}"),
        ("of it", f"{median_ratio(meanwhile, alone):.2f} ×"),
        ("an upload meanwhile", f"{statistics.median(uploads):.2f} s"),
        ("processes of the server", f"{len(processes)}"),
    ]
    return Table("Hits while 12 MP JPEGs are uploaded (medians)", ("what", "measured"), rows)


@contextmanager
def _uploading(server: Server, data: bytes) -> Iterator[list[float]]:
    """Upload `data` again and again, each time under another folder; gives the seconds of each upload."""
    times: list[float] = []
    stop = threading.Event()

    def upload() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        while not stop.is_set():
            began = time.perf_counter()
            path = f"/api/images?folder=uploads/{time.time_ns()}"
            connection.request("POST", path, data, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            if response.status != 201:
                raise RuntimeError(f"an upload was answered {response.status}")
            times.append(time.perf_counter() - began)
        connection.close()

    thread = threading.Thread(target=upload)
    thread.start()
    time.sleep(0.5)
    try:
        yield times
    finally:
        stop.set()
        thread.join()
