"""POST /api/images: keys, names, options, limits."""

import gzip
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import MultiDict

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import picture, png_claiming
from tests.s3server import S3Server
from tests.s3server import error as s3_error

PNG = picture("PNG")
THUMBHASH = "1fsDBYBZiT+MiIiEiMiIgT+O8+M4"
"""The placeholder of a small, red picture."""


def _form(data: bytes, field: str = "image", filename: str = "photo.png", **fields: str) -> dict[str, Any]:
    return {"data": {field: (BytesIO(data), filename), **fields}, "content_type": "multipart/form-data"}


def _stored(flask: Flask) -> list[str]:
    return [facts.key for facts in components_of(flask).store.list().objects]


def test_an_upload_is_a_201_with_the_images_facts(client: FlaskClient) -> None:
    response = client.post("/api/images", **_form(PNG))
    digest = sha256(PNG).hexdigest()
    key = f"images/{digest[:2]}/{digest[2:32]}.png"
    assert response.status_code == 201
    assert response.headers["Location"] == f"http://localhost/api/images/{key}"
    url = f"http://localhost/api/images/{key}"
    assert json_of(response) == {
        "success": True,
        "message": "Image uploaded successfully",
        "image_url": url,
        "key": key,
        "content_type": "image/png",
        "width": 8,
        "height": 6,
        "frames": 1,
        "bytes": len(PNG),
        "has_alpha": False,
        "thumbhash": THUMBHASH,
        "variants": {"thumb": f"{url}/thumb", "card": f"{url}/card"},
    }


@pytest.mark.parametrize("name", [None, "me.png"])
def test_the_variants_in_the_answer_can_be_fetched(client: FlaskClient, name: str | None) -> None:
    fields = {"name": name} if name else {}
    answer = json_of(client.post("/api/images", **_form(picture(size=(800, 500)), **fields)))
    srcset = dict(reversed(candidate.split()) for candidate in answer["variants"].pop("srcset").split(", "))
    assert srcset
    for width, url in srcset.items():
        with client.get(url, headers={"Accept": "image/webp"}) as served:
            assert (served.status_code, served.content_type) == (200, "image/webp")
            with Image.open(BytesIO(served.data)) as image:
                assert f"{image.width}w" == width
    for url in answer["variants"].values():
        with client.get(f"{url}.webp") as served:
            assert (served.status_code, served.content_type) == (200, "image/webp")


def test_without_variants_the_answer_has_no_urls_of_any(config: Config) -> None:
    flask = create_app(replace(config, variants="off"))
    answer = json_of(flask.test_client().post("/api/images", **_form(PNG)))
    assert (answer["variants"], answer["thumbhash"]) == ({}, THUMBHASH)
    components_of(flask).cache.close()


def test_uploading_the_same_bytes_again_is_a_200_with_the_same_key(client: FlaskClient, app: Flask) -> None:
    first = client.post("/api/images", **_form(PNG))
    again = client.post("/api/images", **_form(PNG, filename="other.gif"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert json_of(again) == {**json_of(first), "message": "Image was already stored"}
    assert len(_stored(app)) == 1


def test_concurrent_uploads_of_the_same_bytes_store_one_object(app: Flask) -> None:
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
def test_every_format_is_served_as_it_was_uploaded(
    client: FlaskClient, image_format: str, extension: str, content_type: str
) -> None:
    data = picture(image_format)
    answer = json_of(client.post("/api/images", **_form(data, filename="any.thing")))
    assert answer["key"].endswith(f".{extension}")
    with client.get(answer["image_url"]) as served:
        assert served.data == data
        assert served.content_type == content_type


@pytest.mark.parametrize("field", ["image", "file"])
def test_the_file_field_may_be_image_or_file(client: FlaskClient, field: str) -> None:
    assert client.post("/api/images", **_form(PNG, field)).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "image/*", "application/octet-stream", "Binary/Octet-Stream; x=y", ""],
)
def test_the_body_may_be_the_image_itself(client: FlaskClient, content_type: str) -> None:
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
def test_the_key_is_made_of_folder_and_name(
    client: FlaskClient, folder: str | None, name: str, key: str
) -> None:
    fields = {"name": name, **({"folder": folder} if folder else {})}
    assert json_of(client.post("/api/images", **_form(PNG, **fields)))["key"] == key
    by_query = client.post("/api/images", query_string=fields, data=PNG, content_type="image/png")
    assert json_of(by_query)["key"] == key


def test_without_a_name_the_key_in_a_folder_is_a_hash(client: FlaskClient) -> None:
    digest = sha256(PNG).hexdigest()
    answer = json_of(client.post("/api/images", **_form(PNG, folder="users/123")))
    assert answer["key"] == f"users/123/{digest[:2]}/{digest[2:32]}.png"


def test_an_upload_replaces_its_name_unless_overwrite_is_false(client: FlaskClient) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(blue, name="me", overwrite="no")).status_code == 201
    refused = client.post("/api/images", **_form(PNG), query_string={"name": "me.png", "overwrite": "false"})
    assert (refused.status_code, json_of(refused)["code"]) == (409, "name_taken")
    replaced = client.post("/api/images", **_form(PNG), query_string={"name": "me.png"})
    assert replaced.status_code == 201
    with client.get("/api/images/me.png") as served:
        assert served.data == PNG
        assert served.headers["Cache-Control"] == "public, no-cache"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("overwite", "false")], "overwite: Unknown field."),
        ([("foldr", "a")], "foldr: Unknown field."),
        ([("overwrite", "false"), ("overwrite", "true")], "overwrite: Sent more than once."),
    ],
)
def test_unknown_and_repeated_fields_are_refused_and_replace_nothing(
    client: FlaskClient, fields: list[tuple[str, str]], message: str
) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(blue, name="me")).status_code == 201
    data: MultiDict[str, Any] = MultiDict([("name", "me"), *fields, ("image", (BytesIO(PNG), "a.png"))])
    response = client.post("/api/images", data=data, content_type="multipart/form-data")
    assert (response.status_code, json_of(response)) == (
        400,
        {"success": False, "message": message, "code": "bad_request"},
    )
    with client.get("/api/images/me.png") as served:
        assert served.data == blue


@pytest.mark.parametrize("query", ["overwrite=false&overwrite=true", "overwrite=false", "name=you"])
def test_an_option_in_both_form_and_query_is_refused_and_replaces_nothing(
    client: FlaskClient, query: str
) -> None:
    blue = picture(colour="blue")
    assert client.post("/api/images", **_form(blue, name="me")).status_code == 201
    sent = client.post(f"/api/images?{query}", **_form(PNG, name="me", overwrite="true"))
    assert (sent.status_code, json_of(sent)["code"]) == (400, "bad_request")
    assert json_of(sent)["message"].endswith(": Sent more than once.")
    with client.get("/api/images/me.png") as served:
        assert served.data == blue


def test_form_and_query_may_each_have_some_options(client: FlaskClient) -> None:
    sent = client.post("/api/images?folder=users", **_form(PNG, name="me"))
    assert (sent.status_code, json_of(sent)["key"]) == (201, "users/me.png")


def test_metadata_is_removed_unless_strip_metadata_is_false(client: FlaskClient, config: Config) -> None:
    exif = picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0secret-place")
    url = json_of(client.post("/api/images", **_form(exif)))["image_url"]
    with client.get(url) as served:
        assert b"secret-place" not in served.data
    keeping = create_app(replace(config, strip_metadata=False))
    url = json_of(keeping.test_client().post("/api/images", **_form(exif)))["image_url"]
    with keeping.test_client().get(url) as served:
        assert served.data == exif
    components_of(keeping).cache.close()


INVALID_IMAGES = [
    pytest.param(b"", 400, "bad_request", id="empty"),
    pytest.param(b"this is a text", 415, "unsupported_image", id="text named .png"),
    pytest.param(picture("JPEG", (200, 200))[:-50], 422, "undecodable_image", id="truncated jpeg"),
    pytest.param(png_claiming(30_000, 30_000), 422, "too_many_pixels", id="png bomb"),
]


@pytest.mark.parametrize(("data", "status", "code"), INVALID_IMAGES)
@pytest.mark.parametrize("way", ["form", "raw"])
def test_invalid_images_are_refused_and_not_stored(
    client: FlaskClient,
    app: Flask,
    data: bytes,
    status: int,
    code: str,
    way: str,
) -> None:
    arguments: dict[str, Any] = _form(data) if way == "form" else {"data": data, "content_type": "image/png"}
    response = client.post("/api/images", **arguments)
    answer = json_of(response)
    assert response.status_code == status, answer
    assert (answer["success"], set(answer)) == (False, {"success", "message", "code"})
    assert answer["code"] == code
    assert _stored(app) == []
    assert components_of(app).cache.totals().entries == 0


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
@pytest.mark.parametrize("path", ["/api/images", "/api/generate-image", "/v1/images/generations"])
def test_a_body_with_a_content_encoding_is_a_415(client: FlaskClient, encoding: str, path: str) -> None:
    headers = {"Content-Encoding": encoding}
    response = client.post(path, data=gzip.compress(PNG), content_type="image/png", headers=headers)
    assert response.status_code == 415
    answer = json_of(response)
    error = answer["error"] if path.startswith("/v1") else answer
    assert error["code"] == "unsupported_encoding"
    assert "Content-Encoding" in error["message"]


def test_content_encoding_identity_is_accepted(client: FlaskClient) -> None:
    headers = {"Content-Encoding": "Identity"}
    response = client.post("/api/images", data=PNG, content_type="image/png", headers=headers)
    assert response.status_code == 201


INVALID_NAMES = [
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
INVALID_FOLDERS = [*INVALID_NAMES, "a b", "ä", "-x"]


@pytest.mark.parametrize(
    ("field", "value"),
    [*(("name", name) for name in INVALID_NAMES), *(("folder", name) for name in INVALID_FOLDERS)],
)
def test_invalid_names_and_folders_are_refused(
    client: FlaskClient, app: Flask, tmp_path: Path, field: str, value: str
) -> None:
    if (field, value) == ("folder", "/etc"):
        value = "/etc/../passwd"
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    response = client.post("/api/images", **_form(PNG, **{field: value}))
    assert (response.status_code, json_of(response)["code"]) == (400, "invalid_key")
    assert _stored(app) == []
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


NAMES_OF_FILES = [
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


@pytest.mark.parametrize(("name", "key"), NAMES_OF_FILES)
@pytest.mark.parametrize("which", ["client", "s3_client"])
def test_file_names_are_transliterated_and_kept_in_details(
    request: pytest.FixtureRequest, which: str, name: str, key: str
) -> None:
    """Also in S3, whose metadata is ASCII."""
    client: FlaskClient = request.getfixturevalue(which)
    for status in (201, 201):  # the same name replaces its image
        response = client.post("/api/images", **_form(PNG, folder="people", name=name))
        assert (response.status_code, json_of(response)["key"]) == (status, f"people/{key}")
    assert client.get(f"/api/images/people/{key}").data == PNG
    (line,) = json_of(client.get("/api/images?details=true&prefix=people/"))["images"]
    assert line["original_name"] == unicodedata.normalize("NFC", name)


def test_a_name_equal_to_its_key_is_not_kept_in_details(client: FlaskClient) -> None:
    client.post("/api/images", **_form(PNG, name="a.png"))
    (line,) = json_of(client.get("/api/images?details=true"))["images"]
    assert line["original_name"] is None


@pytest.mark.parametrize("first", ["Muller.png", "Müller.png"])
def test_another_name_with_the_same_key_does_not_replace_the_image(client: FlaskClient, first: str) -> None:
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


def test_long_names_can_be_replaced_if_the_store_limits_metadata(
    s3: S3Server, s3_client: FlaskClient
) -> None:
    s3.fault = s3_error("400 Bad Request", "MetadataTooLarge", _refuse_long_values)
    for data in (PNG, picture(colour="blue")):
        stored = s3_client.post("/api/images", **_form(data, name=LONG_NAME))
        assert stored.status_code == 201, stored.text
        assert s3_client.get(f"/api/images/{json_of(stored)['key']}").data == data
    another = s3_client.post("/api/images", **_form(PNG, name=LONG_NAME.replace("Müller", "Mûller")))
    assert another.status_code == 409


def test_the_same_image_can_be_stored_again_if_the_store_drops_metadata(
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
    """Decoded with replacement characters, they would be the same name."""
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


def test_a_name_that_looks_like_a_hash_is_refused(client: FlaskClient) -> None:
    response = client.post("/api/images", **_form(PNG, folder="x/ab", name="0" * 30 + ".png"))
    assert (response.status_code, json_of(response)["code"]) == (400, "invalid_key")


def test_allowed_formats_restricts_uploads(config: Config) -> None:
    flask = create_app(replace(config, allowed_formats=("jpeg",)))
    response = flask.test_client().post("/api/images", **_form(PNG))
    assert (response.status_code, json_of(response)["code"]) == (415, "unsupported_image")
    components_of(flask).cache.close()


def test_a_body_with_a_content_length_over_the_limit_is_not_read(client: FlaskClient) -> None:
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
def test_images_over_max_upload_bytes_are_a_413(config: Config, size: int, way: str) -> None:
    flask = create_app(replace(config, max_upload_bytes=1000))
    data = PNG + bytes(size - len(PNG))
    arguments: dict[str, Any] = _form(data) if way == "form" else {"data": data, "content_type": "image/png"}
    response = flask.test_client().post("/api/images", **arguments)
    assert (response.status_code, json_of(response)["code"]) == (413, "too_large")
    components_of(flask).cache.close()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/images", "The image exceeds the limit of 1000 bytes."),
        ("/api/generate-image", "The request body exceeds the limit of 131072 bytes."),
    ],
)
def test_a_413_names_the_limit(config: Config, path: str, message: str) -> None:
    flask = create_app(replace(config, max_upload_bytes=1000))
    content_type = "image/png" if path == "/api/images" else "application/json"
    response = flask.test_client().post(path, data=bytes(200_000), content_type=content_type)
    assert (response.status_code, json_of(response)["message"]) == (413, message)
    components_of(flask).cache.close()
