"""Test that memory stays within the bound in docs/limits.md during a burst of the largest images."""

import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.server.running import running
from tests.server.trees import memory_of, watched_memory
from tests.waiting import wait_until

MIB = 1024**2
BURST = 64
MAX_BYTES, SIDE = 10 * MIB, 7071
PIXELS = SIDE * SIDE

DECODING = 50 * MIB + PIXELS * 30 + 20 * MAX_BYTES
RECEIVING = (8 - 2) * 3 * MAX_BYTES
"""Memory that docs/limits.md allows for a worker and its processes in addition to their idle size, for one
image that is being decoded and six that are being received."""

PROGRESSIVE_JPEG = PIXELS * 11 + 50 * MIB + 2 * RECEIVING // 3
"""Memory that this image takes in the worker, its decoder host and the child. Two images at once would take
50 % more."""


def _largest() -> bytes:
    """Return a progressive JPEG of nearly 50 million pixels and exactly 10 MiB."""
    specks = Image.frombytes("L", (SIDE // 64, SIDE // 64), os.urandom((SIDE // 64) ** 2))
    buffer = BytesIO()
    picture = specks.resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB")
    picture.save(buffer, "JPEG", progressive=True, subsampling=0, quality=60)
    return buffer.getvalue().ljust(MAX_BYTES, b"\0")


@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux' /proc")
def test_a_burst_of_the_largest_images_stays_within_the_memory_bound(tmp_path: Path) -> None:
    data = _largest()

    def upload(number: int) -> requests.Response:
        if number % 2:
            form = {"image": ("a.jpg", data)}
            return requests.post(f"{url}?folder=burst/{number}", files=form, timeout=120)
        headers = {"Content-Type": "image/jpeg"}
        return requests.post(f"{url}?folder=burst/{number}", data=data, headers=headers, timeout=120)

    with running(tmp_path, WEB_CONCURRENCY="2", THREADS="8") as server:
        url = f"{server.url}/api/images"
        wait_until(lambda: len(server.workers()) == 2)
        for _ in range(40):  # the kernel distributes these over both workers, so both have started
            assert requests.get(f"{server.url}/healthz", timeout=60).ok
        workers = server.workers()
        at_rest = {worker: memory_of(worker) for worker in workers}
        with watched_memory(workers) as peak, ThreadPoolExecutor(BURST) as pool:
            answers = list(pool.map(upload, range(BURST)))
        assert server.workers() == workers
        taken = [peak[worker] - at_rest[worker] for worker in workers]
        stored = [answer.json() for answer in answers if answer.status_code == 201]
        refused = [answer for answer in answers if answer.status_code == 503]
        slow = [answer for answer in answers if answer.status_code == 408]  # on a busy machine
        assert len(stored) + len(refused) + len(slow) == BURST
        assert stored
        for image in stored:
            assert len(requests.get(image["image_url"], timeout=120).content) == image["bytes"]
    for answer in refused:
        assert (answer.json()["code"], answer.headers["Retry-After"]) == ("busy", "2")
    assert PIXELS * 4 < max(taken) < PROGRESSIVE_JPEG < DECODING + RECEIVING, [
        taken_ // MIB for taken_ in taken
    ]
