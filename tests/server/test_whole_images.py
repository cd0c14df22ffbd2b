"""Test that a running server stores complete images with their bit depth and their gain map."""

import struct
from collections.abc import Iterator

import pytest
import requests

from tests.imaging.png_samples import made, noise, read
from tests.imaging.samples import MARKER, exif, picture, png_chunk, sample, saved
from tests.imaging.ultra_hdr import FIELDS, SIZE, gain_map, packet, photo
from tests.imaging.ultra_hdr import read as read_photo
from tests.server.running import Running, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with the default settings."""
    with running(tmp_path_factory.mktemp("whole"), WEB_CONCURRENCY="1") as server:
        yield server


def _uploaded(server: Running, data: bytes) -> requests.Response:
    return requests.post(
        f"{server.url}/api/images", data=data, headers={"Content-Type": "image/*"}, timeout=60
    )


def _stored(server: Running, data: bytes) -> bytes:
    answer = _uploaded(server, data)
    assert answer.status_code in (200, 201), answer.text
    return requests.get(answer.json()["image_url"], timeout=60).content


PROGRESSIVE = saved(picture(size=(200, 150)), "jpeg", progressive=True)
BASELINE = saved(picture(size=(200, 150)), "jpeg")
BROKEN = {
    "PNG with one of 200 rows": made(noise(8, 2, (10, 200)), 8, 2, lack=199 * 31),
    "interlaced PNG without its last pass": made(noise(8, 2, (10, 200)), 8, 2, interlaced=True, lack=3100),
    "JPEG of which half is missing": BASELINE[: len(BASELINE) // 2] + b"\xff\xd9",
    "progressive JPEG without its last scans": PROGRESSIVE[: PROGRESSIVE.index(b"\xff\xda", 800)]
    + b"\xff\xd9",
    "lossless JPEG": BASELINE.replace(b"\xff\xc0", b"\xff\xc3"),
    "arithmetically coded JPEG": BASELINE.replace(b"\xff\xc0", b"\xff\xc9"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_incomplete_images_are_rejected(server: Running, name: str) -> None:
    answer = _uploaded(server, BROKEN[name])
    assert (answer.status_code, answer.json()["code"]) == (422, "undecodable_image")


@pytest.mark.parametrize(("name", "lack"), [("gif", 1), ("png", 12), ("jpeg", 2)])
@pytest.mark.parametrize("animated", [False, True])
def test_an_image_that_lacks_only_its_end_marker_is_completed(
    server: Running, name: str, lack: int, animated: bool
) -> None:
    data = sample(name, animated and name != "jpeg")
    assert _stored(server, data[:-lack]) == data


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_a_rotated_png_keeps_sixteen_bits_and_its_density(server: Running, colour: int) -> None:
    rows = noise(16, colour, (9, 5))
    orientation = png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    density = png_chunk(b"pHYs", struct.pack(">IIB", 3000, 6000, 1))
    result = read(_stored(server, made(rows, 16, colour, orientation, density)))
    assert (result.bits, result.colour) == (16, colour)
    assert result.rows == [list(column)[::-1] for column in zip(*rows, strict=True)]
    assert result.chunks == [(b"pHYs", struct.pack(">IIB", 6000, 3000, 1))]


def test_a_photo_keeps_its_gain_map(server: Running) -> None:
    data = photo(gain_map(packet(FIELDS)), xmp=packet('hdrgm:Version="1.0"'), orientation=6)
    answer = _uploaded(server, data).json()
    assert (answer["width"], answer["height"]) == SIZE[::-1]
    stored = _stored(server, data)
    assert MARKER not in stored
    assert len(read_photo(stored).pictures) == 2
    assert _uploaded(server, stored).json()["key"] == answer["key"]
