"""Variants of objects that other programs stored, and such objects under the paths of variants."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.api.buffered import buffered_client
from tests.conftest import json_of
from tests.pictures import picture
from tests.s3server import Fault, S3Server, first_of, refusal

PHOTO = picture("JPEG", (800, 600))
OTHER = picture("PNG", (20, 20), "blue")
STALE = "s3-image-server; hit; detail=stale-if-error"


@dataclass
class ForeignBucket:
    """A bucket that other programs fill, and a client of a server that uses it."""

    client: FlaskClient
    s3: S3Server
    aws: Any
    name: str

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store an object, as other programs do."""
        self.aws.put_object(Bucket=self.name, Key=key, Body=data, ContentType=content_type)

    def delete(self, key: str) -> None:
        """Delete an object, as other programs do."""
        self.aws.delete_object(Bucket=self.name, Key=key)

    def get(self, path: str, **headers: str) -> Any:
        """Return the response to a request for an image or a variant."""
        return self.client.get(f"/api/images/{quote(path)}", headers=headers)

    def url_of(self, key: str, name: str, extension: str) -> str:
        """Return the signed URL of a variant."""
        return components_of(self.client.application).variant_urls.url_of(key, name, extension)


MakeBucket = Callable[..., ForeignBucket]


@pytest.fixture
def make_bucket(s3: S3Server, bucket: str, s3_config: Config) -> Iterator[MakeBucket]:
    """A function that returns the bucket and a client of a new server with these settings."""
    applications: list[Flask] = []
    aws = s3.client()

    def make(**settings: Any) -> ForeignBucket:
        applications.append(create_app(replace(s3_config, **settings)))
        return ForeignBucket(buffered_client(applications[-1]), s3, aws, bucket)

    yield make
    aws.close()
    for flask in applications:
        components_of(flask).cache.close()


@pytest.fixture
def foreign(make_bucket: MakeBucket) -> ForeignBucket:
    """The bucket, and a server whose mutable images are always revalidated."""
    return make_bucket(cache_ttl=0, cache_negative_ttl=0)


@pytest.fixture
def remembering(make_bucket: MakeBucket) -> ForeignBucket:
    """The bucket, and a server with the default settings."""
    return make_bucket()


def _size(response: Any) -> tuple[str, tuple[int, int]]:
    with Image.open(BytesIO(response.data)) as image:
        return str(image.format), image.size


def _away() -> Fault:
    return first_of(*(refusal("403 Forbidden", "RequestTimeTooSkewed", name) for name in ("GET", "HEAD")))


def _outcome(response: Any) -> tuple[int, str]:
    return response.status_code, json_of(response)["code"]


@pytest.mark.parametrize(
    "key", ["Ferien & Meer/Größe 1?#%2f.JPG", "a b.png", "w640.webp", "thumb.jpg", "info.png"]
)
def test_foreign_keys_and_keys_like_specs_have_variants(remembering: ForeignBucket, key: str) -> None:
    remembering.put(key, PHOTO, "image/jpeg")
    url = f"/api/images/{quote(key)}"
    for path, kind in (("w320.webp", "image/webp"), ("thumb", "image/jpeg"), ("thumb", "image/jpeg")):
        response = remembering.client.get(f"{url}/{path}")
        assert (response.status_code, response.content_type) == (200, kind)
    moved = remembering.client.get(f"{url}/W320.webp")
    assert (moved.status_code, moved.headers["Location"]) == (308, f"{url}/w320.webp")
    assert json_of(remembering.client.get(f"{url}/info"))["key"] == key
    signed = remembering.url_of(key, "w77", "webp")
    assert _size(remembering.client.get(signed)) == ("WEBP", (77, 58))


@pytest.mark.parametrize(
    ("data", "content_type", "outcome"),
    [
        (PHOTO[:-200], "image/jpeg", (422, "undecodable_image")),
        (b"no image", "image/jpeg", (422, "undecodable_image")),
        (b"", "image/jpeg", (422, "undecodable_image")),
        (picture("BMP"), "image/jpeg", (422, "undecodable_image")),
        (PHOTO, "text/html", (404, "not_found")),
    ],
    ids=["damaged", "garbage", "empty", "other format", "other type"],
)
def test_objects_of_which_no_variant_can_be_made_are_remembered(
    remembering: ForeignBucket, data: bytes, content_type: str, outcome: tuple[int, str]
) -> None:
    remembering.put("a.jpg", data, content_type)
    assert _outcome(remembering.get("a.jpg/w320.webp")) == outcome
    remembering.s3.requests.clear()
    for path in ("a.jpg/w320.webp", "a.jpg/w640.webp", "a.jpg/thumb.webp", "a.jpg/info"):
        assert _outcome(remembering.get(path)) == outcome
    assert remembering.s3.count("GET", "a.jpg") == 0


def test_sources_over_the_limits_are_refused(
    make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_bucket(max_image_pixels=1000)
    small.put("a.jpg", PHOTO, "image/jpeg")
    assert _outcome(small.get("a.jpg/w320.webp")) == (422, "too_many_pixels")
    variants = components_of(small.client.application).variants
    monkeypatch.setattr(variants, "_max_source_bytes", 100)
    small.put("b.jpg", PHOTO, "image/jpeg")
    for path in ("b.jpg/w320.webp", "b.jpg/thumb", "b.jpg/info"):
        assert _outcome(small.get(path, Accept="*/*")) == (422, "source_too_large")
    assert small.get("b.jpg").data == PHOTO


@pytest.mark.parametrize(
    "path", ["a.jpg/w320.png", "a.jpg/w321.png", "a.jpg/W320.PNG", "a.jpg/x.PNG", "a.jpg/x"]
)
def test_an_object_under_the_path_of_a_variant_takes_precedence(foreign: ForeignBucket, path: str) -> None:
    foreign.put("a.jpg", PHOTO, "image/jpeg")
    foreign.put(path, OTHER, "image/png")
    for _ in range(2):
        assert foreign.get(path).data == OTHER
    foreign.delete(path)
    response = foreign.get(path)
    if path == "a.jpg/w320.png":
        assert _size(response) == ("PNG", (320, 240))
    else:
        assert response.status_code in (308, 400)


@pytest.mark.parametrize(
    "path", ["album.jpg/w320.png", "album.jpg/w320", "album.jpg/thumb", "album.jpg/info"]
)
@pytest.mark.parametrize("accept", ["*/*", "image/avif"])
def test_folders_that_end_like_images_keep_their_objects(
    foreign: ForeignBucket, path: str, accept: str
) -> None:
    foreign.put(path, OTHER, "image/png")
    for _ in range(2):
        assert foreign.get(path, Accept=accept).data == OTHER
    foreign.delete(path)
    assert _outcome(foreign.get(path, Accept=accept)) == (404, "not_found")


def test_a_cached_foreign_object_wins_without_another_request(remembering: ForeignBucket) -> None:
    remembering.put("a.jpg", PHOTO, "image/jpeg")
    remembering.put("a.jpg/w320.png", OTHER, "image/png")
    assert remembering.get("a.jpg/w320.png").data == OTHER
    remembering.s3.requests.clear()
    for _ in range(3):
        assert remembering.get("a.jpg/w320.png").headers["Cache-Status"] == "s3-image-server; hit"
    assert remembering.s3.requests == []


def test_a_store_that_hides_missing_objects_does_not_prevent_variants(remembering: ForeignBucket) -> None:
    remembering.put("a.jpg", PHOTO, "image/jpeg")
    remembering.s3.fault = refusal("403 Forbidden", "AccessDenied", "HEAD")
    assert _size(remembering.get("a.jpg/w320.webp")) == ("WEBP", (320, 240))
    assert _outcome(remembering.get("a.jpg/w321.webp")) == (400, "variant_not_permitted")


def test_an_outage_fails_no_variant_that_can_be_made(foreign: ForeignBucket) -> None:
    for key in ("seen.jpg", "new.jpg"):
        foreign.put(key, PHOTO, "image/jpeg")
    assert foreign.get("seen.jpg/w320.webp").status_code == 200
    foreign.s3.fault = _away()
    for path in ("seen.jpg/w320.webp", "seen.jpg/w320.webp"):
        assert foreign.get(path).headers["Cache-Status"] == STALE
    assert _size(foreign.get("seen.jpg/w640.webp")) == ("WEBP", (640, 480))
    response = foreign.get("new.jpg/w320.webp")
    assert response.status_code in (502, 503)
    assert json_of(response)["code"] != "not_found"
    foreign.s3.fault = None
    assert foreign.get("new.jpg/w320.webp").status_code == 200


def test_each_path_is_requested_from_the_store_once(remembering: ForeignBucket) -> None:
    """Made-up variants cost as much as any other missing object, and never a request for the image."""
    remembering.put("a.jpg", PHOTO, "image/jpeg")
    remembering.s3.requests.clear()
    for path in ("w320.webp", "w640.jpg", "w641.jpg", "xyz", "W320.webp") * 2:
        remembering.get(f"a.jpg/{path}")
    asked = [(method, path.partition("/a.jpg")[2]) for method, path, _ in remembering.s3.requests]
    assert sorted(asked) == [
        ("GET", ""),
        *(("GET", f"/{path}") for path in ("W320.webp", "w320.webp", "w640.jpg", "w641.jpg", "xyz")),
    ]
