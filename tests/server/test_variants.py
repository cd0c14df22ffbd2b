"""Variants in a running server with several workers: crowds, made-up URLs, and images that change."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from tests.pictures import noise, picture
from tests.s3server import CREDENTIALS, S3Server
from tests.server.running import Running, running
from tests.server.trees import memory_of
from tests.waiting import wait_until

CLIENTS = 200
MADE_UP = 1000
VERSIONS = 25
MIB = 1024**2

MADE = "s3-image-server; fwd=uri-miss; stored"


@pytest.fixture
def over_s3(s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Running]:
    """Start a server with S3 and four workers."""
    settings = {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="4", IMAGE_URLS="server") as server:
        wait_until(lambda: len(server.workers()) == 4)
        yield server


def test_a_crowd_that_requests_a_cold_variant_causes_one_request_to_s3_and_one_variant(
    s3: S3Server, bucket: str, over_s3: Running
) -> None:
    data = noise(1, (300, 200))
    digest = sha256(data).hexdigest()
    key = f"images/{digest[:2]}/{digest[2:32]}.png"
    client = s3.client()
    client.put_object(Bucket=bucket, Key=key, Body=data, ContentType="image/png")
    client.close()
    s3.reset()
    ready = threading.Barrier(CLIENTS)

    def ask(_: int) -> tuple[int, bytes, str]:
        with requests.Session() as session:
            ready.wait(60)
            answer = session.get(f"{over_s3.url}/api/images/{key}/w128.webp", timeout=60)
        return answer.status_code, answer.content, answer.headers["Cache-Status"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    assert {status for status, _, _ in answers} == {200}
    assert len({content for _, content, _ in answers}) == 1
    assert s3.count("GET", key) == 1
    assert Counter(how for _, _, how in answers)[MADE] == 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with two workers, whose cached named images are stale at once."""
    with running(
        tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2", CACHE_TTL="0", IMAGE_URLS="server"
    ) as started:
        wait_until(lambda: len(started.workers()) == 2)
        yield started


def _upload(server: Running, data: bytes, **fields: str) -> str:
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, data=fields, timeout=60)
    assert answer.status_code in (200, 201)
    return f"{server.url}{urlsplit(answer.json()['image_url']).path}"


def _files_of_variants(server: Running) -> set[Path]:
    roots = [server.log_path.parent / "cache" / name for name in ("variants", "guarded", "derived")]
    return {path for root in roots for path in root.rglob("*")}


def test_made_up_variants_leave_no_files_and_no_memory(server: Running) -> None:
    files = _files_of_variants(server)
    url = _upload(server, picture())
    chance = random.Random(1)

    def ask(numbers: range) -> set[int]:
        with requests.Session() as session:
            return {session.get(f"{url}/{_made_up(chance)}", timeout=60).status_code for _ in numbers}

    def ask_all() -> set[int]:
        parts = [range(first, MADE_UP, 8) for first in range(8)]
        with ThreadPoolExecutor(8) as pool:
            return set().union(*pool.map(ask, parts))

    ask_all()  # fills the tables of bounded size
    before = [memory_of(pid) for pid in server.workers()]
    assert ask_all() <= {400, 403}
    grown = [memory_of(pid) - taken for pid, taken in zip(server.workers(), before, strict=True)]
    assert max(grown) < 8 * MIB
    assert _files_of_variants(server) == files


def _made_up(chance: random.Random) -> str:
    """Return a variant that is not permitted. Half of the paths are as long as servers allow."""
    width = chance.randrange(100_000, 10**9)
    name = chance.choice(
        (f"w{width}", f"w64,h{width}", f"{width}", "x" * 3000 + str(width), f"w63?sig={width}")
    )
    return name if "?" in name else f"{name}.webp"


def _colour(answer: requests.Response) -> int:
    """Return the version of an image, which is the red of its pixels."""
    with Image.open(BytesIO(answer.content)) as image:
        value = image.convert("RGB").getpixel((0, 0))
    assert isinstance(value, tuple)
    return int(value[0])


class Readers:
    """Clients that request variants of an image until `stop` is set.

    The versions of the image are numbered, and the red of its pixels is the number. `oldest` is the number of
    the oldest version that may still be served to requests that begin now.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.oldest = 0
        self.wrong: list[str] = []
        self.stop = threading.Event()

    def run(self, names: tuple[str, ...]) -> None:
        """Run one client."""
        while not self.stop.is_set():
            for name in names:
                oldest = self.oldest
                answer = requests.get(f"{self._url}/{name}", timeout=60)
                if answer.status_code == 200 and _colour(answer) < oldest:
                    self.wrong.append(f"{name} of version {_colour(answer)} after {oldest}")
                elif answer.status_code not in (200, 404):
                    self.wrong.append(f"{name}: {answer.status_code}")


def _replace_and_delete(server: Running, url: str, readers: Readers) -> None:
    for version in range(1, VERSIONS):
        _upload(server, picture(size=(80, 80), colour=f"rgb({version},0,0)"), name="me.png")
        readers.oldest = version
        if version % 5 == 0:
            assert requests.delete(url, timeout=60).status_code == 200
            readers.oldest = version + 1
            assert {requests.get(f"{url}/w16.png", timeout=60).status_code for _ in range(6)} == {404}


def test_no_old_variant_is_served_after_an_image_was_replaced_or_deleted(server: Running) -> None:
    """Clients of both workers request variants all the time, so that some are being made at each change."""
    url = f"{server.url}/api/images/me.png"
    readers = Readers(url)
    with ThreadPoolExecutor(4) as pool:
        for names in (("w16.png", "w32.png"), ("w32.png", "w16.png"), ("w48.png",), ("w48.png", "w64.png")):
            pool.submit(readers.run, names)
        try:
            _replace_and_delete(server, url, readers)
        finally:
            readers.stop.set()
    assert readers.wrong == []
    versions = {_colour(requests.get(f"{url}/w{width}.png", timeout=60)) for width in (16, 32, 48, 64)}
    assert versions == {VERSIONS - 1}


def test_deleted_images_do_not_come_back_as_variants(server: Running) -> None:
    """Their variants are immutable, so that no revalidation would remove them."""
    for number in range(8):
        url = _upload(server, noise(number, (120, 90)))
        names = [f"w{width}.webp" for width in (16, 32, 48, 64, 96)] * 2
        with ThreadPoolExecutor(len(names)) as pool:
            asked = [pool.submit(requests.get, f"{url}/{name}", timeout=60) for name in names]
            time.sleep(0.01 * number)
            assert requests.delete(url, timeout=60).status_code == 200
            assert {answer.result().status_code for answer in asked} <= {200, 404}
        assert {requests.get(f"{url}/{name}", timeout=60).status_code for name in names} == {404}
