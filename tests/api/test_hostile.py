"""Hostile and odd images over HTTP: each is refused with its reason, or comes back right in every pixel."""

from collections.abc import Iterator
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

SAFE = {
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


def _strips(client: FlaskClient) -> bool:
    return components_of(client.application).config.strip_metadata


def _refused(client: FlaskClient, data: bytes) -> tuple[int, str]:
    before = components_of(client.application).store.list().objects
    response = client.post("/api/images", data=data, content_type="image/png")
    answer = json_of(response)
    assert set(answer) == {"success", "message", "code"}, answer
    assert components_of(client.application).store.list().objects == before
    return response.status_code, answer["code"]


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_no_image_of_ours(client: FlaskClient, name: str) -> None:
    assert _refused(client, UNSUPPORTED[name]()) == (415, "unsupported_image")


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_only_begins_like_an_image(client: FlaskClient, name: str) -> None:
    assert _refused(client, UNDECODABLE[name]()) == (422, "undecodable_image")


@pytest.mark.parametrize("name", INCONSISTENT)
def test_images_that_lie_about_their_size(client: FlaskClient, name: str) -> None:
    """The limits are the defaults, within which each of them would be decoded if it were believed."""
    assert _refused(client, INCONSISTENT[name]()) == (422, "undecodable_image")


@pytest.mark.parametrize("name", CONSISTENT)
def test_honest_images_that_look_like_lies(client: FlaskClient, name: str) -> None:
    (width, height, frames), make = CONSISTENT[name]
    answer = json_of(client.post("/api/images", data=make(), content_type="image/png"))
    assert (answer["width"], answer["height"], answer["frames"]) == (width, height, frames)


@pytest.mark.parametrize("name", TINY_PARTS)
def test_files_of_nothing_but_tiny_parts(client: FlaskClient, name: str) -> None:
    assert _refused(client, TINY_PARTS[name](MAX_PARTS + 1000)) == (422, "undecodable_image")


@pytest.mark.parametrize("name", TOO_LARGE)
def test_bombs(client: FlaskClient, name: str) -> None:
    assert _refused(client, TOO_LARGE[name]()) == (422, "too_many_pixels")


@pytest.mark.parametrize("name", TEXT_BOMBS)
def test_texts_that_unpack_to_more_than_they_are(client: FlaskClient, name: str) -> None:
    if _strips(client):
        assert _taken(client, TEXT_BOMBS[name]()) == sample("png")
    else:
        assert _refused(client, TEXT_BOMBS[name]()) == (422, "undecodable_image")


def _taken(client: FlaskClient, data: bytes, filename: str = "a.html") -> bytes:
    """The bytes that are served for an image, whose headers are checked on the way."""
    response = client.post("/api/images", data={"image": (BytesIO(data), filename, "text/html")})
    answer = json_of(response)
    assert response.status_code in (200, 201), answer
    with client.get(answer["image_url"]) as served, Image.open(BytesIO(served.data)) as image:
        formats = {known.pillow: known for known in FORMATS.values()}
        # A JPEG of several pictures is a JPEG.
        known = formats["JPEG" if image.format == "MPO" else str(image.format)]
        assert answer["key"].rpartition(".")[2] == known.extension
        assert served.content_type == answer["content_type"] == known.content_type
        assert {name: served.headers[name] for name in SAFE} == SAFE
        assert answer["frames"] == getattr(image, "n_frames", 1)
        return bytes(served.data)


def _opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, in the log
@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_images_come_back_right(client: FlaskClient, name: str) -> None:
    data = ACCEPTED[name]()
    served = _taken(client, data)
    if not _strips(client):
        assert served == data
        return
    expected, image = ImageOps.exif_transpose(_opened(data)), ImageOps.exif_transpose(_opened(served))
    assert (image.mode, image.size) == (expected.mode, expected.size)
    difference = ImageChops.difference(image.convert("RGBA"), expected.convert("RGBA")).tobytes()
    # A JPEG that is turned is written anew, which moves colours by a hair.
    assert max(difference) <= (24 if b"Exif" in data else 0)
    assert not image.getexif() or name.startswith("avif")


@pytest.mark.parametrize("name", POLYGLOTS)
def test_of_a_polyglot_the_image_is_left(client: FlaskClient, name: str) -> None:
    data = POLYGLOTS[name]()
    served = _taken(client, data)
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
def test_a_files_own_name_means_nothing(client: FlaskClient, filename: str) -> None:
    assert _taken(client, sample("png"), filename) == sample("png")
