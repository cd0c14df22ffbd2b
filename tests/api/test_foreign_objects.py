"""Objects that other programs put into the bucket: images are served, other objects are left alone."""

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

OTHER_OBJECTS = [
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
"""Keys, and the content types that they are stored with."""


@pytest.fixture
def aws(s3: S3Server, bucket: str) -> Iterator[Any]:
    """An S3 client, as other programs use it."""
    client = s3.client()
    yield client
    client.close()


def _put(aws: Any, bucket: str, key: str, content_type: str) -> None:
    options = {"ContentType": content_type} if content_type else {}
    aws.put_object(Bucket=bucket, Key=key, Body=DATA, **options)


@pytest.mark.parametrize(("key", "content_type"), OTHER_OBJECTS)
def test_objects_that_are_not_images_are_neither_served_nor_deleted(
    aws: Any, s3_client: FlaskClient, bucket: str, key: str, content_type: str
) -> None:
    _put(aws, bucket, key, content_type)
    for method in ("GET", "HEAD", "DELETE", "DELETE"):
        assert s3_client.open(f"/api/images/{key}", method=method).status_code == 404
    assert aws.get_object(Bucket=bucket, Key=key)["Body"].read() == DATA


def test_an_object_that_is_no_longer_an_image_is_not_deleted(
    aws: Any, s3_client: FlaskClient, bucket: str
) -> None:
    _put(aws, bucket, "a/page.png", "image/png")
    with s3_client.get("/api/images/a/page.png") as response:
        assert response.data == DATA
    _put(aws, bucket, "a/page.png", "text/html")
    assert s3_client.delete("/api/images/a/page.png").status_code == 404
    assert aws.get_object(Bucket=bucket, Key="a/page.png")["Body"].read() == DATA
    assert s3_client.get("/api/images/a/page.png").status_code == 404


def test_listings_have_only_keys_with_an_images_extension(
    aws: Any, s3_client: FlaskClient, bucket: str
) -> None:
    for key, content_type in OTHER_OBJECTS[:2]:
        _put(aws, bucket, key, content_type)
    _put(aws, bucket, "z.png", "image/png")
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
def test_images_that_others_stored_are_served_and_deleted(
    aws: Any, s3_client: FlaskClient, bucket: str, key: str, content_type: str, served: str
) -> None:
    _put(aws, bucket, key, content_type)
    for status in ("s3-image-server; fwd=uri-miss; stored", "s3-image-server; hit"):
        with s3_client.get(f"/api/images/{key}") as response:
            assert (response.data, response.content_type) == (DATA, served)
            assert response.headers["Cache-Status"] == status
    assert s3_client.delete(f"/api/images/{key}").status_code == 200
    assert s3_client.get(f"/api/images/{key}").status_code == 404


def _put_at_once(aws: Any, bucket: str, key: str, data: bytes) -> None:
    aws.put_object(Bucket=bucket, Key=key, Body=data, ContentType="image/png")


def _put_in_parts(aws: Any, bucket: str, key: str, data: bytes) -> None:
    """Put an object whose entity tag does not depend on its bytes alone."""
    upload = {"Bucket": bucket, "Key": key}
    upload["UploadId"] = aws.create_multipart_upload(**upload, ContentType="image/png")["UploadId"]
    etag = aws.upload_part(**upload, PartNumber=1, Body=data)["ETag"]
    aws.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})


@pytest.mark.parametrize("other", [DATA[:-1] + b"x", b"short", noise(1)], ids=["last byte", "size", "all"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_an_upload_is_refused_if_other_bytes_are_stored_under_its_key(
    aws: Any, s3_client: FlaskClient, bucket: str, other: bytes, in_parts: bool
) -> None:
    key = content_addressed_key(DATA, FORMATS["png"])
    (_put_in_parts if in_parts else _put_at_once)(aws, bucket, key, other)
    refused = s3_client.post("/api/images", data=DATA, content_type="image/png")
    assert (refused.status_code, json_of(refused)["code"]) == (409, "name_taken")
    assert aws.get_object(Bucket=bucket, Key=key)["Body"].read() == other
    named = s3_client.post("/api/images?name=mine.png", data=DATA, content_type="image/png")
    assert named.status_code == 201


@pytest.mark.parametrize("in_parts", [False, True])
def test_an_upload_of_bytes_that_others_stored_is_a_200(
    aws: Any, s3_client: FlaskClient, bucket: str, in_parts: bool
) -> None:
    key = content_addressed_key(DATA, FORMATS["png"])
    (_put_in_parts if in_parts else _put_at_once)(aws, bucket, key, DATA)
    answer = s3_client.post("/api/images", data=DATA, content_type="image/png")
    assert (answer.status_code, json_of(answer)["key"]) == (200, key)
    with s3_client.get(f"/api/images/{key}") as response:
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
