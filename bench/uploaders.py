"""Clients that upload distinct PNGs for `bench.uploads`, each as fast as it can over its own connection."""

import http.client
import io
import json
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from PIL import Image, ImageChops

from bench.processes import cpu_seconds

CLIENTS = 8

_BOUNDARY = "bench"
_FORM_HEAD = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.png"\r\n'
    "Content-Type: image/png\r\n\r\n"
).encode()
_FORM_END = f"\r\n--{_BOUNDARY}--\r\n".encode()
_HEADERS = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}

_BYTES_PER_PIXEL = 2.15
"""The size of these images per pixel. Pillow compresses photographs to a similar size."""

_DISTINCT_BYTES = 15
_WARM_UP_SECONDS = 0.5


class Photos:
    """Makes distinct PNGs of about `size` bytes that compress like photographs: soft shapes and some noise.

    Only the last pixels differ, so that making an image takes little time: the rest is compressed once.
    """

    def __init__(self, size: int) -> None:
        edge = round((size / _BYTES_PER_PIXEL) ** 0.5)
        shapes = Image.effect_noise((8, 8), 160).resize((edge, edge), Image.Resampling.BICUBIC)
        bands = [ImageChops.add(shapes, Image.effect_noise((edge, edge), 8), 1, -128) for _ in range(3)]
        file = io.BytesIO()
        Image.merge("RGB", bands).save(file, "PNG")
        chunks = dict(_chunks(file.getvalue()))
        rows = zlib.decompress(chunks[b"IDAT"])
        self._stream = zlib.compressobj()
        self._start = b"IDAT" + self._stream.compress(rows[:-_DISTINCT_BYTES])
        self._start += self._stream.flush(zlib.Z_FULL_FLUSH)
        self._crc = zlib.crc32(self._start)
        self._head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR" + chunks[b"IHDR"])

    def image(self) -> bytes:
        """Return an image that differs from all others."""
        stream = self._stream.copy()
        end = stream.compress(os.urandom(_DISTINCT_BYTES)) + stream.flush()
        length = struct.pack(">I", len(self._start) - 4 + len(end))
        crc = struct.pack(">I", zlib.crc32(end, self._crc))
        return b"".join((self._head, length, self._start, end, crc, _chunk(b"IEND")))


@dataclass
class Uploads:
    """The result of a run: its duration, the time of each upload and the server's CPU time, in seconds."""

    elapsed: float = 0.0
    cpu: float = 0.0
    times: list[float] = field(default_factory=list)


def _chunk(content: bytes) -> bytes:
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the content of each chunk. The contents of all IDAT chunks are yielded at once."""
    position, pixels = 8, b""
    while position < len(png):
        end = position + 8 + int.from_bytes(png[position : position + 4])
        kind, content = png[position + 4 : position + 8], png[position + 8 : end]
        pixels += content if kind == b"IDAT" else b""
        yield kind, pixels if kind == b"IDAT" else content
        position = end + 4


def _upload(port: int, photos: Photos, until: float, times: list[tuple[float, float]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < until:
        body = _FORM_HEAD + photos.image() + _FORM_END
        began = time.monotonic()
        connection.request("POST", "/api/images", body, _HEADERS)
        response = connection.getresponse()
        text = response.read()
        if response.status != 201:
            raise RuntimeError(f"{response.status}: {text[:500]!r}")
        times.append((began, time.monotonic() - began))
    connection.close()


def main(arguments: Sequence[str]) -> None:
    """Run the clients, and write the result to stdout as JSON: `uploaders PORT PID SIZE SECONDS`."""
    port, pid, size, seconds = map(int, arguments)
    photos = Photos(size)
    start = time.monotonic() + _WARM_UP_SECONDS
    times: list[tuple[float, float]] = []
    threads = [
        threading.Thread(target=_upload, args=(port, photos, start + seconds, times)) for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    time.sleep(start - time.monotonic())
    begin, cpu = time.monotonic(), cpu_seconds(pid)
    for thread in threads:
        thread.join()
    result = Uploads(time.monotonic() - begin, cpu_seconds(pid) - cpu)
    result.times = [took for began, took in times if began >= begin]
    sys.stdout.write(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(sys.argv[1:])
