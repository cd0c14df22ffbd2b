"""The peak memory of the process that makes a variant of a large image, compared with that of its upload."""

import http.client
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from app.services.urls import IMAGES_PATH
from bench.pictures import photo
from bench.plan import Plan
from bench.processes import peak_resident_bytes, tree
from bench.product import our_server
from bench.progress import say
from bench.report import Section, Table, at_most
from bench.servers import Server
from bench.variants.ours import fetch, path_of

_SIZE = (8160, 6120)
"""Width and height of an image of just under 50 megapixels, the default of MAX_IMAGE_PIXELS."""

_SAVED: dict[str, dict[str, int]] = {"JPEG": {"quality": 85}, "WEBP": {"quality": 75, "method": 0}}
"""The formats of the sources, and how they are saved so that they are smaller than MAX_UPLOAD_BYTES."""

_VARIANTS = {
    "w640": ("w640.jpg", "w640.webp", "w640.avif", "w640.png"),
    "w3840, the greatest width": ("w3840.webp", "w3840.avif", "w3840.png"),
}
_MIB = 1 << 20
_PAUSE_SECONDS = 0.001

_METHOD = f"""\
An image of {_SIZE[0]} × {_SIZE[1]} pixels is uploaded, and then variants of it are requested. *Peak* is the
largest resident set of a process that the server started for that (VmHWM in /proc, read every millisecond),
which includes the libraries that it shares with other processes."""


@dataclass
class _Peak:
    value: int = 0


def run(plan: Plan) -> Section:
    """Measure an upload and variants of each format."""
    section = Section("Memory of a variant", _METHOD)
    settings = {"WEB_CONCURRENCY": "1", "MAX_UPLOAD_BYTES": "50MiB"}
    say("making a picture of 50 megapixels")
    picture = photo(2, _SIZE)
    rows = []
    with our_server(plan.new_directory("variants/memory"), settings) as server:
        fetch(server, "/healthz")
        for image_format, options in _SAVED.items():
            buffer = io.BytesIO()
            picture.save(buffer, image_format, **options)
            say(f"memory of {image_format}, {buffer.tell() / 1e6:.1f} MB")
            with _peak(server) as uploaded:
                key = _upload(server, buffer.getvalue(), f"image/{image_format.lower()}")
            rows.append((image_format, "upload", f"{uploaded.value / _MIB:.0f} MiB", "1.00 ×"))
            for width, names in _VARIANTS.items():
                ratios = []
                for name in names:
                    with _peak(server) as of_variant:
                        fetch(server, path_of(key, name))
                    ratios.append(of_variant.value / uploaded.value)
                    rows.append(
                        (image_format, name, f"{of_variant.value / _MIB:.0f} MiB", f"{ratios[-1]:.2f} ×")
                    )
                what = f"peak memory of {width}, of a 50 MP {image_format}, against its upload"
                section.figures.append(at_most(what, max(ratios), 1, "×"))
    section.tables = [Table("Peak memory", ("source", "what", "peak", "of the upload"), rows)]
    return section


def _upload(server: Server, data: bytes, content_type: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", "/api/images", data, {"Content-Type": content_type})
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status != 201:
        raise RuntimeError(f"an upload failed with status {response.status}")
    return (response.getheader("Location") or "").partition(IMAGES_PATH)[2]


@contextmanager
def _peak(server: Server) -> Iterator[_Peak]:
    """Yield the peak of the processes that the server starts in the block. It is complete at its end.

    Raises `RuntimeError` if the server starts none.
    """
    before = set(tree(server.pid))
    peak = _Peak()
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(server.pid, before, peak, stop))
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
    if not peak.value:
        raise RuntimeError("the server started no process")


def _sample(pid: int, before: set[int], peak: _Peak, stop: threading.Event) -> None:
    while not stop.is_set():
        for process in set(tree(pid)) - before:
            with suppress(OSError, LookupError):  # it has ended
                peak.value = max(peak.value, peak_resident_bytes(process))
        time.sleep(_PAUSE_SECONDS)
