"""POST /api/images."""

import gzip
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import animation, picture, png_claiming
from tests.s3server import S3Server, error

PNG = picture("PNG")


def _form(data: bytes, field: str = "image", filename: str = "photo.png", **fields: str) -> dict[str, Any]:
    return {"data": {field: (BytesIO(data), filename), **fields}, "content_type": "multipart/form-data"}


def _stored(flask: Flask) -> list[str]:
    return [facts.key for facts in components_of(flask).store.list().objects]


def test_an_upload_is_answered_as_promised(client: FlaskClient) -> None:
    response = client.post("/api/images", **_form(PNG))
    digest = sha256(PNG).hexdigest()
    key = f"images/{digest[:2]}/{digest[2:32]}.png"
    assert response.status_code == 201
    assert response.headers["Location"] == f"http://localhost/api/images/{key}"
    assert json_of(response) == {
        "success": True,
        "message": "Image uploaded successfully",
        "image_url": f"http://localhost/api/images/{key}",
        "key": key,
        "content_type": "image/png",
        "width": 8,
        "height": 6,
        "frames": 1,
        "bytes": len(PNG),
    }


def test_the_same_bytes_again_are_the_same_image(client: FlaskClient, app: Flask) -> None:
    first = client.post("/api/images", **_form(PNG))
    again = client.post("/api/images", **_form(PNG, filename="other.gif"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert json_of(again) == {**json_of(first), "message": "Image was stored already"}
    assert len(_stored(app)) == 1


def test_two_at_once_make_one_object(app: Flask) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: app.test_client().post("/api/images", **_form(PNG)), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({json_of(answer)["image_url"] for answer in answers}) == 1
    assert len(_stored(app)) == 1


@pytest.mark.parametrize(
    ("image_format", "extension", "content_type"),
    [
        ("PNG", "png", "image/png"),
        ("JPEG", "jpg", "image/jpeg"),
        ("GIF", "gif", "image/gif"),
        ("WEBP", "webp", "image/webp"),
        ("AVIF", "avif", "image/avif"),
    ],
)
def test_what_comes_back_is_what_was_sent(
    client: FlaskClient, image_format: str, extension: str, content_type: str
) -> None:
    data = picture(image_format)
    answer = json_of(client.post("/api/images", **_form(data, filename="any.thing")))
    assert answer["key"].endswith(f".{extension}")
    with client.get(answer["image_url"]) as served:
        assert served.data == data
        assert served.content_type == content_type


@pytest.mark.parametrize("field", ["image", "file"])
def test_both_field_names_work(client: FlaskClient, field: str) -> None:
    assert client.post("/api/images", **_form(PNG, field)).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "image/*", "application/octet-stream", "Binary/Octet-Stream; x=y", ""],
)
def test_raw_bytes_work(client: FlaskClient, content_type: str) -> None:
    response = client.post("/api/images", data=PNG, content_type=content_type)
    assert response.status_code == 201
    assert json_of(response)["content_type"] == "image/png"


@pytest.mark.parametrize(
    ("folder", "name", "key"),
    [
        ("users/123", "profile.png", "users/123/profile.png"),
        ("users/123", "profile", "users/123/profile.png"),
        ("users/123", "profile.jpg", "users/123/profile.png"),
        ("users/123/", "x.PNG", "users/123/x.png"),
        (None, "ai_generated_20250101_120000.png", "ai_generated_20250101_120000.png"),
        (None, "users/123/profile.png", "users/123/profile.png"),
    ],
)
def test_names_and_folders(client: FlaskClient, folder: str | None, name: str, key: str) -> None:
    fields = {"name": name, **({"folder": folder} if folder else {})}
    assert json_of(client.post("/api/images", **_form(PNG, **fields)))["key"] == key
    by_query = client.post("/api/images", query_string=fields, data=PNG, content_type="image/png")
    assert json_of(by_query)["key"] == key


def test_a_folder_alone_keeps_the_hash(client: FlaskClient) -> None:
    digest = sha256(PNG).hexdigest()
    answer = json_of(client.post("/api/images", **_form(PNG, folder="users/123")))
    assert answer["key"] == f"users/123/{digest[:2]}/{digest[2:32]}.png"


def test_a_name_is_overwritten_unless_asked_not_to(client: FlaskClient) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(blue, name="me", overwrite="no")).status_code == 201
    taken = client.post("/api/images", **_form(PNG), query_string={"name": "me.png", "overwrite": "false"})
    assert (taken.status_code, json_of(taken)["code"]) == (409, "name_taken")
    replaced = client.post("/api/images", **_form(PNG), query_string={"name": "me.png"})
    assert replaced.status_code == 201
    with client.get("/api/images/me.png") as served:
        assert served.data == PNG
        assert served.headers["Cache-Control"] == "public, no-cache"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([("overwite", "false")], "overwite: Unknown field."),
        ([("foldr", "a")], "foldr: Unknown field."),
        ([("overwrite", "false"), ("overwrite", "true")], "overwrite: Sent more than once."),
    ],
)
def test_a_misspelt_field_overwrites_nothing(
    client: FlaskClient, fields: list[tuple[str, str]], told: str
) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(blue, name="me")).status_code == 201
    data: MultiDict[str, Any] = MultiDict([("name", "me"), *fields, ("image", (BytesIO(PNG), "a.png"))])
    response = client.post("/api/images", data=data, content_type="multipart/form-data")
    assert (response.status_code, json_of(response)) == (
        400,
        {"success": False, "message": told, "code": "bad_request"},
    )
    with client.get("/api/images/me.png") as served:
        assert served.data == blue


@pytest.mark.parametrize("query", ["overwrite=false&overwrite=true", "overwrite=false", "name=you"])
def test_an_option_in_the_form_and_in_the_query_overwrites_nothing(client: FlaskClient, query: str) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(blue, name="me")).status_code == 201
    sent = client.post(f"/api/images?{query}", **_form(PNG, name="me", overwrite="true"))
    assert (sent.status_code, json_of(sent)["code"]) == (400, "bad_request")
    assert json_of(sent)["message"].endswith(": Sent more than once.")
    with client.get("/api/images/me.png") as served:
        assert served.data == blue


def test_options_may_be_shared_between_form_and_query(client: FlaskClient) -> None:
    sent = client.post("/api/images?folder=users", **_form(PNG, name="me"))
    assert (sent.status_code, json_of(sent)["key"]) == (201, "users/me.png")


def test_a_file_field_of_another_name_is_no_matter(client: FlaskClient) -> None:
    data = {"image": (BytesIO(PNG), "a.png"), "thumbnail": (BytesIO(b"x"), "b.png")}
    assert client.post("/api/images", data=data, content_type="multipart/form-data").status_code == 201


def test_metadata_goes_unless_asked_not_to(client: FlaskClient, config: Config) -> None:
    exif = picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0secret-place")
    url = json_of(client.post("/api/images", **_form(exif)))["image_url"]
    with client.get(url) as served:
        assert b"secret-place" not in served.data
    keeping = create_app(replace(config, strip_metadata=False))
    url = json_of(keeping.test_client().post("/api/images", **_form(exif)))["image_url"]
    with keeping.test_client().get(url) as served:
        assert served.data == exif
    components_of(keeping).cache.close()


@cache
def _many_frames() -> bytes:
    return animation(10_000)


BAD_IMAGES = [
    pytest.param(b"", 400, "bad_request", id="empty"),
    pytest.param(b"this is a text", 415, "unsupported_image", id="text named .png"),
    pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_image", id="svg"),
    pytest.param(picture("BMP"), 415, "unsupported_image", id="bmp"),
    pytest.param(picture("JPEG", (200, 200))[:-50], 422, "undecodable_image", id="truncated jpeg"),
    pytest.param(PNG[:40], 422, "undecodable_image", id="truncated png"),
    pytest.param(png_claiming(30_000, 30_000), 422, "too_many_pixels", id="png bomb"),
    pytest.param(png_claiming(2**31 - 1, 2**31 - 1), 422, None, id="png of 2^62 pixels"),
    pytest.param(_many_frames, 422, "too_many_pixels", id="10,000 frames"),
]


@pytest.mark.parametrize(("data", "status", "code"), BAD_IMAGES)
@pytest.mark.parametrize("way", ["form", "raw"])
def test_bad_images_are_refused(
    client: FlaskClient,
    app: Flask,
    data: bytes | Callable[[], bytes],
    status: int,
    code: str | None,
    way: str,
) -> None:
    data = data() if callable(data) else data
    arguments: dict[str, Any] = _form(data) if way == "form" else {"data": data, "content_type": "image/png"}
    response = client.post("/api/images", **arguments)
    answer = json_of(response)
    assert response.status_code == status, answer
    assert (answer["success"], set(answer)) == (False, {"success", "message", "code"})
    assert code in (None, answer["code"])
    assert _stored(app) == []
    assert components_of(app).cache.totals().entries == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"data": {"name": "x"}, "content_type": "multipart/form-data"},
        {"data": {"picture": (BytesIO(PNG), "a.png")}, "content_type": "multipart/form-data"},
        {"data": b"", "content_type": "application/octet-stream"},
        {"data": PNG, "content_type": "application/x-www-form-urlencoded"},
        {"data": PNG, "content_type": "text/plain"},
        {"data": b"{}", "content_type": "application/json"},
    ],
)
def test_no_image_in_the_request(client: FlaskClient, arguments: dict[str, Any]) -> None:
    response = client.post("/api/images", **arguments)
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")
    assert "multipart form with a file field 'image'" in json_of(response)["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
@pytest.mark.parametrize("path", ["/api/images", "/api/generate-image", "/v1/images/generations"])
def test_a_compressed_body_is_refused_by_name(client: FlaskClient, encoding: str, path: str) -> None:
    headers = {"Content-Encoding": encoding}
    response = client.post(path, data=gzip.compress(PNG), content_type="image/png", headers=headers)
    assert response.status_code == 415
    answer = json_of(response)
    told = answer["error"] if path.startswith("/v1") else answer
    assert told["code"] == "unsupported_encoding"
    assert "Content-Encoding" in told["message"]


def test_identity_is_no_encoding(client: FlaskClient) -> None:
    headers = {"Content-Encoding": "Identity"}
    response = client.post("/api/images", data=PNG, content_type="image/png", headers=headers)
    assert response.status_code == 201


BAD_NAMES = [
    "../..",
    "..",
    "a//b",
    "/etc",
    "a\\b",
    ".hidden",
    "a/../b",
    "x.png/y",
    "a\0b",
    "a\u0085b",
    "x" * 2000,
]
BAD_FOLDERS = [*BAD_NAMES, "a b", "ä", "-x"]


@pytest.mark.parametrize(
    ("field", "value"), [*(("name", name) for name in BAD_NAMES), *(("folder", name) for name in BAD_FOLDERS)]
)
def test_bad_names_and_folders_are_refused(
    client: FlaskClient, app: Flask, tmp_path: Path, field: str, value: str
) -> None:
    if (field, value) == ("folder", "/etc"):
        value = "/etc/../passwd"
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    response = client.post("/api/images", **_form(PNG, **{field: value}))
    assert (response.status_code, json_of(response)["code"]) == (400, "invalid_key")
    assert _stored(app) == []
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


REAL_NAMES = [
    ("IMG 0010.JPG", "IMG-0010.png"),
    ("Screenshot 2026-11-30 at 10.00.00.png", "Screenshot-2026-11-30-at-10.00.00.png"),
    ("Müller.jpg", "Muller.png"),
    ("Mu\u0308ller.jpg", "Muller.png"),
    ("Фото (1).jpeg", "Foto-1.png"),
    ("写真.png", "Xie-Zhen.png"),
    ("photo\u00a0one, two & three.webp", "photo-one-two-three.png"),
    ("trip 2026/day 1/IMG 1.png", "trip-2026/day-1/IMG-1.png"),
    ("-x", "x.png"),
    ("\N{GRINNING FACE}.png", "unnamed_0ac8627f.png"),
    ("x" * 251 + ".png", "x" * 186 + "_ae1bc6dc.png"),
]


@pytest.mark.parametrize(("name", "key"), REAL_NAMES)
@pytest.mark.parametrize("which", ["client", "s3_client"])
def test_file_names_of_real_life(request: pytest.FixtureRequest, which: str, name: str, key: str) -> None:
    """The key is spelled with what keys have, and the name is kept with the image."""
    client: FlaskClient = request.getfixturevalue(which)
    for status in (201, 201):  # the same name may replace its image
        response = client.post("/api/images", **_form(PNG, folder="people", name=name))
        assert (response.status_code, json_of(response)["key"]) == (status, f"people/{key}")
    assert client.get(f"/api/images/people/{key}").data == PNG
    (line,) = json_of(client.get("/api/images?details=true&prefix=people/"))["images"]
    assert line["original_name"] == unicodedata.normalize("NFC", name)


def test_a_plain_name_is_kept_nowhere_else(client: FlaskClient) -> None:
    client.post("/api/images", **_form(PNG, name="a.png"))
    (line,) = json_of(client.get("/api/images?details=true"))["images"]
    assert line["original_name"] is None


@pytest.mark.parametrize("first", ["Muller.png", "Müller.png"])
def test_another_name_with_the_same_key_replaces_nothing(client: FlaskClient, first: str) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(PNG, name=first)).status_code == 201
    for overwrite in ("true", "false"):
        refused = client.post("/api/images", **_form(blue, name="Mûller.png", overwrite=overwrite))
        assert (refused.status_code, json_of(refused)["code"]) == (409, "name_taken")
    assert client.get("/api/images/Muller.png").data == PNG


LONG_NAME = f"{'Müller ' * 26}.png"


def _drop_names(environ: dict[str, Any], start_response: object) -> None:
    environ.pop("HTTP_X_AMZ_META_ORIGINAL_NAME", None)


def _refuse_long_values(environ: dict[str, Any]) -> bool:
    return len(environ.get("HTTP_X_AMZ_META_ORIGINAL_NAME", "")) > 256


def test_a_server_that_keeps_short_metadata_takes_a_long_name_again(
    s3: S3Server, s3_client: FlaskClient
) -> None:
    s3.fault = error("400 Bad Request", "MetadataTooLarge", _refuse_long_values)
    for data in (PNG, picture(colour="blue")):
        stored = s3_client.post("/api/images", **_form(data, name=LONG_NAME))
        assert stored.status_code == 201, stored.text
        assert s3_client.get(f"/api/images/{json_of(stored)['key']}").data == data
    another = s3_client.post("/api/images", **_form(PNG, name=LONG_NAME.replace("Müller", "Mûller")))
    assert another.status_code == 409


def test_a_server_that_drops_metadata_takes_the_same_image_again(
    s3: S3Server, s3_client: FlaskClient
) -> None:
    s3.fault = _drop_names
    for _ in range(2):
        assert s3_client.post("/api/images", **_form(PNG, name="Müller.png")).status_code == 201
    blue = picture(colour="blue")
    refused = s3_client.post("/api/images", **_form(blue, name="Müller.png"))
    assert (refused.status_code, json_of(refused)["code"]) == (409, "name_taken")
    assert "Muller.png" in json_of(refused)["message"]
    assert s3_client.post("/api/images", **_form(blue, name="Muller.png")).status_code == 201
    assert s3_client.get("/api/images/Muller.png").data == blue


def test_names_that_are_not_utf_8_are_refused(client: FlaskClient) -> None:
    """Decoded, all of them would be one name, and the second image would replace the first."""
    for name in ("Müller.png", "Möller.png"):
        field = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n%b\r\n' % name.encode("latin-1")
        image = (
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n--x--\r\n' % PNG
        )
        content_type = "multipart/form-data; boundary=x"
        refused = client.post("/api/images", data=field + image, content_type=content_type)
        assert (refused.status_code, json_of(refused)["code"]) == (400, "invalid_key")
        assert "not UTF-8" in json_of(refused)["message"]
    assert json_of(client.get("/api/images"))["images"] == []


def test_a_name_may_not_look_like_a_hash(client: FlaskClient) -> None:
    response = client.post("/api/images", **_form(PNG, folder="x/ab", name="0" * 30 + ".png"))
    assert (response.status_code, json_of(response)["code"]) == (400, "invalid_key")


def test_formats_can_be_restricted(config: Config) -> None:
    flask = create_app(replace(config, allowed_formats=("jpeg",)))
    response = flask.test_client().post("/api/images", **_form(PNG))
    assert (response.status_code, json_of(response)["code"]) == (415, "unsupported_image")
    components_of(flask).cache.close()


def test_a_body_far_too_large_is_not_read(client: FlaskClient) -> None:
    read = []

    class Endless(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            read.append(size)
            return b"\0" * (size or 1)

    response = client.post(
        "/api/images",
        input_stream=Endless(),
        environ_overrides={"CONTENT_LENGTH": "100000000"},
        content_type="image/png",
    )
    assert (response.status_code, json_of(response)["code"]) == (413, "too_large")
    assert read == []


@pytest.mark.parametrize("size", [1001, 70_000])
@pytest.mark.parametrize("way", ["form", "raw"])
def test_one_byte_more_than_allowed(config: Config, size: int, way: str) -> None:
    flask = create_app(replace(config, max_upload_bytes=1000))
    data = PNG + bytes(size - len(PNG))
    arguments: dict[str, Any] = _form(data) if way == "form" else {"data": data, "content_type": "image/png"}
    response = flask.test_client().post("/api/images", **arguments)
    assert (response.status_code, json_of(response)["code"]) == (413, "too_large")
    components_of(flask).cache.close()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/images", "The image exceeds the limit of 1000 bytes."),
        ("/api/generate-image", "The request body exceeds the limit of 131072 bytes."),
    ],
)
def test_what_is_too_large_is_told_the_limit(config: Config, path: str, told: str) -> None:
    flask = create_app(replace(config, max_upload_bytes=1000))
    content_type = "image/png" if path == "/api/images" else "application/json"
    response = flask.test_client().post(path, data=bytes(200_000), content_type=content_type)
    assert (response.status_code, json_of(response)["message"]) == (413, told)
    components_of(flask).cache.close()


def test_a_form_with_too_much_text_is_not_called_a_large_image(client: FlaskClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + b"x" * 600_000 + b"\r\n--x--\r\n"
    response = client.post("/api/images", data=body, content_type="multipart/form-data; boundary=x")
    assert (response.status_code, json_of(response)["code"]) == (413, "too_large")
    assert json_of(response)["message"] == "The form has too much text or too many fields."


@pytest.mark.parametrize("names", [("image", "file"), ("image", "image"), ("image", "file", "image")])
def test_one_image_per_request(client: FlaskClient, names: tuple[str, ...]) -> None:
    data = MultiDict((name, (BytesIO(PNG), f"{number}.png")) for number, name in enumerate(names))
    response = client.post("/api/images", data=data, content_type="multipart/form-data")
    assert (response.status_code, json_of(response)) == (
        400,
        {
            "success": False,
            "message": f"The request has {len(names)} images. Send one image per request.",
            "code": "bad_request",
        },
    )
    assert json_of(client.get("/api/images"))["images"] == []
