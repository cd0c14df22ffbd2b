"""Objects that others put into the bucket: images are served, what else lies there is not ours."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.core.object_keys import content_addressed_key
from app.core.objects import FORMATS
from tests.conftest import json_of
from tests.pictures import noise, picture
from tests.s3server import S3Server

DATA = picture()

NO_IMAGES = [
    ("page.html", "text/html"),
    ("drawing.svg", "image/svg+xml"),
    ("a/page.png", "text/html"),
    ("a/page.png", "TEXT/HTML; charset=utf-8"),
    ("a/drawing.png", "image/svg+xml"),
    ("backups/db.sql", "application/sql"),
    ("backups/db.sql", "binary/octet-stream"),
    ("backups/db.sql", ""),
    ("a/folder.png", "application/x-directory"),
]
"""Keys and the types under which they are stored."""


@pytest.fixture
def look(s3: S3Server, bucket: str) -> Iterator[Any]:
    """S3 as others see it."""
    client = s3.client()
    yield client
    client.close()


def _put(look: Any, bucket: str, key: str, content_type: str) -> None:
    told = {"ContentType": content_type} if content_type else {}
    look.put_object(Bucket=bucket, Key=key, Body=DATA, **told)


@pytest.mark.parametrize(("key", "content_type"), NO_IMAGES)
def test_what_is_no_image_is_neither_shown_nor_deleted(
    look: Any, s3_client: FlaskClient, bucket: str, key: str, content_type: str
) -> None:
    _put(look, bucket, key, content_type)
    for method in ("GET", "HEAD", "DELETE", "DELETE"):
        assert s3_client.open(f"/api/images/{key}", method=method).status_code == 404
    assert look.get_object(Bucket=bucket, Key=key)["Body"].read() == DATA


def test_what_is_no_image_is_not_deleted_while_it_is_in_the_cache(
    look: Any, s3_client: FlaskClient, bucket: str
) -> None:
    _put(look, bucket, "a/page.png", "image/png")
    with s3_client.get("/api/images/a/page.png") as response:
        assert response.data == DATA
    _put(look, bucket, "a/page.png", "text/html")
    assert s3_client.delete("/api/images/a/page.png").status_code == 404
    assert look.get_object(Bucket=bucket, Key="a/page.png")["Body"].read() == DATA
    assert s3_client.get("/api/images/a/page.png").status_code == 404


def test_listings_have_no_objects_that_no_image_is_named_like(
    look: Any, s3_client: FlaskClient, bucket: str
) -> None:
    for key, content_type in NO_IMAGES[:2]:
        _put(look, bucket, key, content_type)
    _put(look, bucket, "z.png", "image/png")
    listed = json_of(s3_client.get("/api/images"))["images"]
    assert [image["key"] for image in listed] == ["z.png"]


@pytest.mark.parametrize(
    ("key", "content_type", "served"),
    [
        ("Ferien 2026/Strand & Meer.PNG", "", "image/png"),
        ("a/b.jpeg", "binary/octet-stream", "image/jpeg"),
        ("a/b.avif", "application/octet-stream", "image/avif"),
        ("a/b.jpg", "image/jpg", "image/jpeg"),
        ("a/b.jpg", "image/pjpeg", "image/jpeg"),
        ("a/b", "image/png", "image/png"),
        ("a/b.jpg", "image/png", "image/png"),
        ("a/b.gif", "Image/GIF", "image/gif"),
        ("a/b.webp", "image/webp; charset=binary", "image/webp"),
    ],
)
def test_images_put_there_by_others_are_shown(
    look: Any, s3_client: FlaskClient, bucket: str, key: str, content_type: str, served: str
) -> None:
    _put(look, bucket, key, content_type)
    for status in ("s3-image-server; fwd=uri-miss; stored", "s3-image-server; hit"):
        with s3_client.get(f"/api/images/{key}") as response:
            assert (response.data, response.content_type) == (DATA, served)
            assert response.headers["Cache-Status"] == status
    assert s3_client.delete(f"/api/images/{key}").status_code == 200
    assert s3_client.get(f"/api/images/{key}").status_code == 404


def _put_whole(look: Any, bucket: str, key: str, data: bytes) -> None:
    look.put_object(Bucket=bucket, Key=key, Body=data, ContentType="image/png")


def _put_in_parts(look: Any, bucket: str, key: str, data: bytes) -> None:
    """Its entity tag tells nothing of the bytes."""
    upload = {"Bucket": bucket, "Key": key}
    upload["UploadId"] = look.create_multipart_upload(**upload, ContentType="image/png")["UploadId"]
    etag = look.upload_part(**upload, PartNumber=1, Body=data)["ETag"]
    look.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})


@pytest.mark.parametrize("other", [DATA[:-1] + b"x", b"short", noise(1)], ids=["last byte", "size", "all"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_an_upload_does_not_pass_for_what_somebody_else_stored_under_its_key(
    look: Any, s3_client: FlaskClient, bucket: str, other: bytes, in_parts: bool
) -> None:
    key = content_addressed_key(DATA, FORMATS["png"])
    (_put_in_parts if in_parts else _put_whole)(look, bucket, key, other)
    refused = s3_client.post("/api/images", data=DATA, content_type="image/png")
    assert (refused.status_code, json_of(refused)["code"]) == (409, "name_taken")
    assert look.get_object(Bucket=bucket, Key=key)["Body"].read() == other
    named = s3_client.post("/api/images?name=mine.png", data=DATA, content_type="image/png")
    assert named.status_code == 201


@pytest.mark.parametrize("in_parts", [False, True])
def test_an_upload_of_what_somebody_else_stored_is_stored_already(
    look: Any, s3_client: FlaskClient, bucket: str, in_parts: bool
) -> None:
    key = content_addressed_key(DATA, FORMATS["png"])
    (_put_in_parts if in_parts else _put_whole)(look, bucket, key, DATA)
    answer = s3_client.post("/api/images", data=DATA, content_type="image/png")
    assert (answer.status_code, json_of(answer)["key"]) == (200, key)
    with s3_client.get(f"/api/images/{key}") as response:
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
