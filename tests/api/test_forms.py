"""Multipart forms of real clients: accepted if they are unambiguous, else refused with a precise message."""

import base64
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.components import components_of
from tests.conftest import json_of
from tests.pictures import noise, picture

PNG = picture()
BIG = noise(1, (300, 300))
"""Larger than the limit of text in a form."""

IMAGE = 'form-data; name="image"'
FILE = f'{IMAGE}; filename="photo.png"'


def part(disposition: str | bytes, data: bytes = PNG, *headers: str, line_end: bytes = b"\r\n") -> bytes:
    """Return a part of a form with the boundary `x`."""
    value = disposition if isinstance(disposition, bytes) else disposition.encode()
    lines = [b"--x", b"Content-Disposition: " + value, *(header.encode() for header in headers), b"", data]
    return line_end.join(lines) + line_end


def send(client: FlaskClient, body: bytes, content_type: str = "multipart/form-data; boundary=x") -> Any:
    """Upload this form; return the response."""
    return client.post("/api/images", data=body, environ_overrides={"CONTENT_TYPE": content_type})


END = b"--x--\r\n"
NO_BOUNDARY, OTHER_BOUNDARY = "has no boundary", "no part with the boundary"
NAMELESS = "no name in its Content-Disposition"
DATA_URL = b"data:image/png;base64," + base64.b64encode(PNG)


@pytest.mark.parametrize(
    "disposition",
    [
        pytest.param('form-data; name="image"; filename="Müller.png"', id="UTF-8"),
        pytest.param('form-data; name="image"; filename="Müller.png"'.encode("latin-1"), id="Latin-1"),
        pytest.param(b'form-data; name="image"; filename="\x83\x65\x83\x58.png"', id="Shift JIS"),
        pytest.param("form-data; name=image; filename*=UTF-8''M%C3%BCller.png", id="RFC 5987"),
        pytest.param("form-data; name=image; filename*=iso-8859-1'en'M%FCller.png", id="RFC 5987, Latin-1"),
        pytest.param("form-data; name=image; filename*=UTF-16''%FF%FE", id="RFC 5987, unknown charset"),
        pytest.param("form-data; name=image; filename=a.png; filename*=UTF-8''%zz", id="both, one broken"),
        pytest.param('form-data; name="image"; filename="a \\" %22 ; b.png"', id="quotes"),
        pytest.param('form-data; name="image"; filename="../../etc/passwd"', id="a path"),
        pytest.param('form-data; name="image"; filename=""', id="an empty name"),
        pytest.param('form-data; name="image"', id="no name"),
        pytest.param("FORM-DATA; NAME=file", id="upper case"),
        pytest.param('attachment; name="image"; filename="a.png"', id="attachment"),
    ],
)
@pytest.mark.parametrize("data", [PNG, BIG], ids=["small", "big"])
def test_the_image_may_have_any_file_name_or_none(
    client: FlaskClient, disposition: str | bytes, data: bytes
) -> None:
    response = send(client, part(disposition, data) + END)
    assert response.status_code == 201, json_of(response)
    with client.get(json_of(response)["image_url"]) as served:
        assert served.data == data


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ('multipart/form-data; boundary="x"', part(FILE) + END),
        ("Multipart/Form-Data; Boundary=x", part(FILE) + END),
        ("multipart/form-data; charset=utf-8; boundary=x", part(FILE) + END),
        ('multipart/form-data; boundary="a b:c?=/"', (part(FILE) + END).replace(b"--x", b"--a b:c?=/")),
        ("multipart/form-data; boundary=x", b"preamble\r\n" + part(FILE) + END + b"epilogue"),
        ("multipart/form-data; boundary=x", part(FILE) + b"--x--"),
        ("multipart/form-data; boundary=x", part(FILE, PNG, line_end=b"\n") + b"--x--\n"),
        ("multipart/form-data; boundary=x", part(FILE, PNG, "Content-Type: text/plain") + END),
        ("multipart/form-data; boundary=x", part(FILE, PNG, "Content-Type: nonsense") + END),
        ("multipart/form-data; boundary=x", part(FILE, PNG, "Content-Transfer-Encoding: Binary") + END),
        ("multipart/form-data; boundary=x", part(FILE, PNG, "X-Note: M\xfcller", "Content-Length: 3") + END),
    ],
)
def test_unusual_but_valid_forms_are_accepted(client: FlaskClient, content_type: str, body: bytes) -> None:
    response = send(client, body, content_type)
    assert response.status_code == 201, json_of(response)
    with client.get(json_of(response)["image_url"]) as served:
        assert served.data == PNG


INVALID_FORMS: dict[str, tuple[str | None, bytes, str]] = {
    "no boundary": ("multipart/form-data", part(FILE) + END, NO_BOUNDARY),
    "empty boundary": ("multipart/form-data; boundary=", part(FILE) + END, NO_BOUNDARY),
    "quoted nothing": ('multipart/form-data; boundary=""', part(FILE) + END, NO_BOUNDARY),
    "boundary not ASCII": ("multipart/form-data; boundary*=utf-8''%E7%8C%AB", part(FILE) + END, NO_BOUNDARY),
    "another boundary": ("multipart/form-data; boundary=y", part(FILE) + END, OTHER_BOUNDARY),
    "another boundary, much data": ("multipart/form-data; boundary=y", part(FILE, BIG) + END, OTHER_BOUNDARY),
    "no body": (None, b"", OTHER_BOUNDARY),
    "no last boundary": (None, part(FILE), "incomplete"),
    "no last boundary, much data": (None, part(FILE, BIG), "incomplete"),
    "truncated last boundary": (None, part(FILE) + b"--x", "incomplete"),
    "boundary without a part": (None, part(FILE) + b"--x\r\n", "incomplete"),
    "truncated headers": (None, b"--x\r\nContent-Disp", "incomplete"),
    "no disposition": (None, b"--x\r\nContent-Type: image/png\r\n\r\n" + PNG + b"\r\n" + END, NAMELESS),
    "no name": (None, part("form-data") + END, NAMELESS),
    "no headers": (None, b"--x\r\n\r\n" + PNG + b"\r\n" + END, NAMELESS),
    "no headers, much data": (None, b"--x\r\n\r\n" + b"\xff" * 600_000 + b"\r\n" + END, NAMELESS),
    "form with an image's type": ("image/png", part(FILE) + END, "The body is a multipart form"),
    "form with the type of bytes": (
        "application/octet-stream",
        b"\r\n" + part(FILE) + END,
        "a multipart form",
    ),
    "form without a type": ("", part(FILE, line_end=b"\n") + b"--x--\n", "a multipart form"),
    "no part": (None, END, "Send a multipart form with a file field 'image'"),
    "no image": (None, part('form-data; name="name"', b"x") + END, "The request has no image."),
    "no body and no type": ("", b"", "The request has no image."),
    "empty body": ("application/octet-stream", b"", "The request has no image."),
    "other field": (
        None,
        part('form-data; name="Image"; filename="a.png"') + END,
        "The file is in the field 'Image'.",
    ),
    "two fields": (
        None,
        part(FILE) + part('form-data; name="file"; filename="a"') + END,
        "The request has 2 images",
    ),
    "a field twice": (None, part(FILE) + part(FILE) + END, "The request has 2 images"),
    "with and without a file name": (None, part(IMAGE) + part(FILE) + END, "The request has 2 images"),
    "an empty file": (None, part(FILE, b"") + END, "The file in the field 'image' is empty"),
    "no file chosen": (None, part(f'{IMAGE}; filename=""', b"") + END, "No file was chosen"),
    "an empty field": (None, part(IMAGE, b"") + END, "No file was chosen"),
    "a file's name": (None, part(IMAGE, b"photo.jpg") + END, "-F image=@photo.jpg"),
    "a file's name, not ASCII": (None, part(IMAGE, "Müller.jpg".encode()) + END, "contains text, not a file"),
    "data URL in text": (None, part(IMAGE, DATA_URL) + END, "data: URL"),
    "data URL in a file": (None, part(FILE, DATA_URL.upper(), "Content-Type: text/plain") + END, "data: URL"),
    "base64": (
        None,
        part(FILE, base64.encodebytes(PNG), "Content-Transfer-Encoding: base64") + END,
        "Content-Transfer-Encoding base64",
    ),
    "curl -d": ("application/x-www-form-urlencoded", PNG, "type application/x-www-form-urlencoded is"),
    "JSON": ("application/json", b'{"image": "aGk="}', "type application/json is not an image"),
    "text": ("text/plain", PNG, "type text/plain is not an image"),
    "mixed": ("multipart/mixed; boundary=x", part(FILE) + END, "type multipart/mixed is not an image"),
}


@pytest.mark.parametrize(("content_type", "body", "message"), INVALID_FORMS.values(), ids=INVALID_FORMS)
def test_invalid_forms_are_refused_with_their_reason(
    client: FlaskClient, app: Flask, content_type: str | None, body: bytes, message: str
) -> None:
    response = send(client, body, "multipart/form-data; boundary=x" if content_type is None else content_type)
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")
    assert message in json_of(response)["message"]
    assert components_of(app).store.list().objects == ()


def test_long_text_is_an_unsupported_image(client: FlaskClient) -> None:
    response = send(client, part(IMAGE, b"x" * 5000) + END)
    assert (response.status_code, json_of(response)["code"]) == (415, "unsupported_image")


def test_forms_have_limits_of_text_and_parts_but_images_are_not_text(client: FlaskClient) -> None:
    text = part('form-data; name="name"', b"x" * 400_000 + b"\n" + b"y" * 200_000)
    for body in (part(FILE) + text, part(FILE) * 1001):
        response = send(client, body + END)
        assert (response.status_code, json_of(response)["code"]) == (413, "too_large")
        assert json_of(response)["message"] == "The form has too much text or too many fields."
    assert len(BIG) > 200_000


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-8", "utf-7", ""])
def test_a_field_may_name_its_charset(client: FlaskClient, charset: str) -> None:
    field = part('form-data; name="folder"', b"users/1", f"Content-Type: text/plain; charset={charset}")
    assert json_of(send(client, field + part(FILE) + END))["key"].startswith("users/1/")


def test_file_inputs_without_a_file_are_ignored(client: FlaskClient) -> None:
    """Browsers send each file input of a form, even if no file was chosen."""
    empty = part('form-data; name="file"; filename=""', b"", "Content-Type: application/octet-stream")
    for body in (part(FILE) + empty, empty + part(FILE)):
        assert send(client, body + END).status_code in (200, 201)
    assert "No file was chosen" in json_of(send(client, empty + empty + END))["message"]


def test_files_in_other_fields_are_ignored(client: FlaskClient) -> None:
    thumbnail = part('form-data; name="thumbnail"; filename="t.png"', BIG)
    assert send(client, thumbnail + part(FILE) + END).status_code == 201
