"""GET /api/images/<key>/info."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.imaging.sandbox.client import describe_in_sandbox
from app.stores.base import BaseStore
from tests.conftest import json_of
from tests.pictures import animation, picture, png_claiming

FACTS = ("width", "height", "frames", "has_alpha", "thumbhash")


@pytest.fixture
def store(app: Flask) -> BaseStore:
    """The store of the application."""
    return components_of(app).store


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list to which each decoding for the facts about an image is added."""
    calls: list[Any] = []

    def noted(*arguments: Any) -> Any:
        calls.append(arguments)
        return describe_in_sandbox(*arguments)

    monkeypatch.setattr("app.services.variants.describe_in_sandbox", noted)
    return calls


def _upload(client: FlaskClient, data: bytes, **fields: str) -> dict[str, Any]:
    return json_of(client.post("/api/images", data={"image": (BytesIO(data), "a"), **fields}))


def _transparent(image_format: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGBA", (30, 20), (255, 0, 0, 100)).save(buffer, image_format)
    return buffer.getvalue()


def test_the_facts_about_an_upload(client: FlaskClient, described: list[Any]) -> None:
    uploaded = _upload(client, picture(size=(700, 500)))
    response = client.get(f"{uploaded['image_url']}/info")
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    answer = json_of(response)
    assert datetime.fromisoformat(answer.pop("last_modified")).tzinfo is not None
    assert answer == uploaded | {"message": "Facts about the image"}
    assert described == [], "the facts are stored with the image"


@pytest.mark.parametrize(
    ("data", "content_type", "facts"),
    [
        (picture("JPEG", (40, 30)), "image/jpeg", (40, 30, 1, False)),
        (_transparent(), "image/png", (30, 20, 1, True)),
        (_transparent("WEBP"), "image/webp", (30, 20, 1, True)),
        (picture("AVIF", (40, 30)), "image/avif", (40, 30, 1, False)),
        (animation(3), "image/gif", (4, 4, 3, False)),
    ],
)
def test_the_facts_are_the_same_if_other_software_stored_the_image(
    client: FlaskClient,
    store: BaseStore,
    described: list[Any],
    data: bytes,
    content_type: str,
    facts: tuple[Any, ...],
) -> None:
    uploaded = _upload(client, data)
    key = f"photos/{uploaded['key'].rpartition('/')[2]}"
    with client.get(uploaded["image_url"]) as served:
        store.put(key, served.data, content_type=content_type)
    for _ in range(2):
        response = client.get(f"/api/images/{key}/info")
        answer = json_of(response)
        assert response.headers["Cache-Control"] == "no-store"
        assert tuple(answer[name] for name in FACTS[:4]) == facts
        assert {name: answer[name] for name in FACTS} == {name: uploaded[name] for name in FACTS}
        assert 5 <= len(b64decode(answer["thumbhash"], validate=True)) <= 30
        assert (answer["content_type"], answer["key"]) == (content_type, key)
    assert len(described) == 1, "the facts are cached"


def test_the_facts_about_a_named_image_change_with_it(client: FlaskClient) -> None:
    for size in ((40, 30), (20, 10)):
        url = _upload(client, picture(size=size), name="me.png")["image_url"]
        response = client.get(f"{url}/info")
        assert response.headers["Cache-Control"] == "no-store"
        answer = json_of(response)
        assert (answer["width"], answer["height"]) == size
        assert answer["bytes"] == len(picture(size=size))
    client.delete(url)
    assert client.get(f"{url}/info").status_code == 404


def _missing(store: BaseStore) -> str:
    return "none.png"


def _text(store: BaseStore) -> str:
    store.put("text.png", b"text", content_type="text/plain")
    return "text.png"


def _damaged(store: BaseStore) -> str:
    store.put("damaged.png", picture(size=(64, 64))[:60], content_type="image/png")
    return "damaged.png"


def _too_many_pixels(store: BaseStore) -> str:
    store.put("huge.png", png_claiming(8000, 7000), content_type="image/png")
    return "huge.png"


@pytest.mark.parametrize(
    ("put", "status", "code"),
    [
        (_missing, 404, "not_found"),
        (_text, 404, "not_found"),
        (_damaged, 422, "undecodable_image"),
        (_too_many_pixels, 422, "too_many_pixels"),
    ],
)
def test_other_objects_have_no_facts(
    client: FlaskClient, store: BaseStore, put: Callable[[BaseStore], str], status: int, code: str
) -> None:
    path = f"/api/images/{put(store)}/info"
    for _ in range(2):
        response = client.get(path)
        assert (response.status_code, json_of(response)["code"]) == (status, code)
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["a/../b.png/info", "//b.png/info", "b.png//info"])
def test_invalid_keys_are_refused(client: FlaskClient, path: str) -> None:
    assert client.get(f"/api/images/{path}").status_code == 400


def test_head_has_the_headers_without_a_body(client: FlaskClient) -> None:
    url = f"{_upload(client, picture())['image_url']}/info"
    got, head = client.get(url), client.head(url)
    assert (head.status_code, head.data) == (200, b"")
    assert {**head.headers, "X-Request-ID": ""} == {**got.headers, "X-Request-ID": ""}


def test_presigned_urls_are_not_cached(s3_config: Config) -> None:
    flask = create_app(replace(s3_config, image_urls="presigned"))
    client = flask.test_client()
    answer = client.get(f"/api/images/{_upload(client, picture())['key']}/info")
    assert "X-Amz-Signature" in json_of(answer)["image_url"]
    assert answer.headers["Cache-Control"] == "no-store"
    components_of(flask).cache.close()


def test_without_variants_there_are_still_facts(config: Config) -> None:
    flask = create_app(replace(config, variants="off"))
    client = flask.test_client()
    answer = json_of(client.get(f"{_upload(client, picture())['image_url']}/info"))
    assert (answer["width"], answer["variants"]) == (8, {})
    components_of(flask).cache.close()


def test_an_image_of_a_store_that_keeps_no_metadata_is_decoded(
    client: FlaskClient, store: BaseStore, described: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.put

    def put_bytes_only(key: str, data: bytes, **options: Any) -> Any:
        return put(key, data, **{**options, "metadata": {}})

    monkeypatch.setattr(store, "put", put_bytes_only)
    uploaded = _upload(client, picture())
    answer = json_of(client.get(f"{uploaded['image_url']}/info"))
    assert {name: answer[name] for name in FACTS} == {name: uploaded[name] for name in FACTS}
    assert len(described) == 1
