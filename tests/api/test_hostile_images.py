"""Hostile and unusual images over HTTP: refused with a reason, or served with every pixel unchanged.

What tests/imaging tests in full is sampled here: one file of each format.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image, ImageChops, ImageOps

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.objects import FORMATS
from app.imaging.survey import MAX_PARTS
from tests.conftest import json_of
from tests.imaging.hostile import (
    ACCEPTED,
    PAYLOADS,
    POLYGLOTS,
    TEXT_BOMBS,
    TOO_LARGE,
    UNDECODABLE,
    UNSUPPORTED,
)
from tests.imaging.inconsistent import CONSISTENT, INCONSISTENT
from tests.imaging.samples import sample
from tests.imaging.tiny_parts import TINY_PARTS

SAFETY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Content-Disposition": "inline",
}


@pytest.fixture(scope="module", params=[True, False], ids=["strip", "keep"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A client of a server that removes metadata, or keeps it."""
    flask = create_app(_config(tmp_path_factory.mktemp("hostile"), strip_metadata=request.param))
    yield flask.test_client()
    components_of(flask).cache.close()


def _config(directory: Path, **settings: Any) -> Config:
    return replace(
        Config.from_env({}),
        local_store_dir=directory / "store",
        cache_dir=directory / "cache",
        state_dir=directory / "state",
        **settings,
    )


def _one_of_each_format(names: Iterable[str]) -> list[str]:
    """Return the first name of each format; names begin with the format."""
    return list({re.split(r"\W", name)[0]: name for name in reversed([*names])}.values())


def _strips(client: FlaskClient) -> bool:
    return components_of(client.application).config.strip_metadata


def _refusal(client: FlaskClient, data: bytes) -> tuple[int, str]:
    """Upload `data`; return status and code of the error. Nothing may be stored."""
    before = components_of(client.application).store.list().objects
    response = client.post("/api/images", data=data, content_type="image/png")
    answer = json_of(response)
    assert set(answer) == {"success", "message", "code"}, answer
    assert components_of(client.application).store.list().objects == before
    return response.status_code, answer["code"]


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_formats_are_unsupported(client: FlaskClient, name: str) -> None:
    assert _refusal(client, UNSUPPORTED[name]()) == (415, "unsupported_image")


@pytest.mark.parametrize("name", UNDECODABLE)
def test_invalid_images_are_undecodable(client: FlaskClient, name: str) -> None:
    assert _refusal(client, UNDECODABLE[name]()) == (422, "undecodable_image")


@pytest.mark.parametrize("name", _one_of_each_format(INCONSISTENT))
def test_images_with_inconsistent_sizes_are_undecodable(client: FlaskClient, name: str) -> None:
    """Their declared sizes are within the default limits."""
    assert _refusal(client, INCONSISTENT[name]()) == (422, "undecodable_image")


@pytest.mark.parametrize("name", _one_of_each_format(CONSISTENT))
def test_images_with_unusual_but_consistent_sizes_are_accepted(client: FlaskClient, name: str) -> None:
    (width, height, frames), make = CONSISTENT[name]
    answer = json_of(client.post("/api/images", data=make(), content_type="image/png"))
    assert (answer["width"], answer["height"], answer["frames"]) == (width, height, frames)


@pytest.mark.parametrize("name", _one_of_each_format(TINY_PARTS))
def test_images_of_too_many_tiny_parts_are_undecodable(client: FlaskClient, name: str) -> None:
    assert _refusal(client, TINY_PARTS[name](MAX_PARTS + 1000)) == (422, "undecodable_image")


@pytest.mark.parametrize("name", TOO_LARGE)
def test_decompression_bombs_have_too_many_pixels(client: FlaskClient, name: str) -> None:
    assert _refusal(client, TOO_LARGE[name]()) == (422, "too_many_pixels")


@pytest.mark.parametrize("name", TEXT_BOMBS)
def test_bombs_in_text_chunks_are_removed_or_refused(client: FlaskClient, name: str) -> None:
    if _strips(client):
        assert _served(client, TEXT_BOMBS[name]()) == sample("png")
    else:
        assert _refusal(client, TEXT_BOMBS[name]()) == (422, "undecodable_image")


def _served(client: FlaskClient, data: bytes, filename: str = "a.html") -> bytes:
    """Upload an image; check the headers that it is served with, and return the bytes."""
    response = client.post("/api/images", data={"image": (BytesIO(data), filename, "text/html")})
    answer = json_of(response)
    assert response.status_code in (200, 201), answer
    with client.get(answer["image_url"]) as served, Image.open(BytesIO(served.data)) as image:
        formats = {known.pillow: known for known in FORMATS.values()}
        # Pillow has another name for JPEGs of several pictures.
        known = formats["JPEG" if image.format == "MPO" else str(image.format)]
        assert answer["key"].rpartition(".")[2] == known.extension
        assert served.content_type == answer["content_type"] == known.content_type
        assert {name: served.headers[name] for name in SAFETY_HEADERS} == SAFETY_HEADERS
        assert answer["frames"] == getattr(image, "n_frames", 1)
        return bytes(served.data)


def _decoded(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # from Pillow
@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_images_keep_every_pixel(client: FlaskClient, name: str) -> None:
    data = ACCEPTED[name]()
    served = _served(client, data)
    if not _strips(client):
        assert served == data
        return
    expected, image = ImageOps.exif_transpose(_decoded(data)), ImageOps.exif_transpose(_decoded(served))
    assert (image.mode, image.size) == (expected.mode, expected.size)
    difference = ImageChops.difference(image.convert("RGBA"), expected.convert("RGBA")).tobytes()
    # A rotated JPEG is encoded again, which changes colours slightly.
    assert max(difference) <= (24 if b"Exif" in data else 0)
    assert not image.getexif() or name.startswith("avif")


@pytest.mark.parametrize("name", POLYGLOTS)
def test_polyglots_are_reduced_to_the_image(client: FlaskClient, name: str) -> None:
    data = POLYGLOTS[name]()
    served = _served(client, data)
    if _strips(client):
        assert not [payload for payload in PAYLOADS if payload in served]
    else:
        assert served == data


@pytest.mark.parametrize(
    "filename",
    [
        "../../etc/passwd",
        "a.svg",
        "x.php.png",
        'a"; filename="b.exe',
        "con",
        "\u202egnp.exe",
        ".htaccess",
        "x" * 3000,
    ],
)
def test_the_name_of_the_file_has_no_effect(client: FlaskClient, filename: str) -> None:
    assert _served(client, sample("png"), filename) == sample("png")
