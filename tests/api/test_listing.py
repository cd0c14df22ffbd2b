"""GET /api/images and DELETE /api/images/<key>."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.api import schemas
from app.components import components_of
from app.config.settings import Config
from app.core.errors import NotFound
from app.core.object_metadata import ImageInfo
from tests.conftest import json_of
from tests.pictures import noise, picture

PROMPT = {"prompt": "A café,  by 猫\n", "size": "96x64", "seed": 7, "negative_prompt": "rain"}


def _upload(client: FlaskClient, data: bytes, **fields: str) -> dict[str, Any]:
    return json_of(client.post("/api/images", data={"image": (BytesIO(data), "a.png"), **fields}))


def _generate(client: FlaskClient) -> str:
    key: str = json_of(client.post("/api/generate-image", json=PROMPT))["key"]
    return key


def test_following_cursors_lists_every_image(client: FlaskClient) -> None:
    keys = sorted(_upload(client, noise(i, (4, 4)), folder="album")["key"] for i in range(5))
    listed: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = json_of(client.get("/api/images", query_string={"prefix": "album/", "limit": 2, **cursor}))
        assert page["success"] is True
        listed += [image["key"] for image in page["images"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert listed == keys


def test_a_listed_image_has_the_fields_of_its_upload(client: FlaskClient) -> None:
    uploaded = _upload(client, picture(), name="me.png")
    (image,) = json_of(client.get("/api/images"))["images"]
    assert image.pop("last_modified").endswith("+00:00")
    names = ("width", "height", "frames", "has_alpha", "thumbhash")
    presets = {name: url for name, url in uploaded["variants"].items() if name != "srcset"}
    assert image.pop("variants") == presets  # the width is not known
    assert image == {name: uploaded[name] for name in ("key", "image_url", "content_type", "bytes")} | (
        dict.fromkeys(names)
    )
    (detailed,) = json_of(client.get("/api/images?details=true"))["images"]
    assert {name: detailed[name] for name in (*names, "variants")} == {
        name: uploaded[name] for name in (*names, "variants")
    }


def test_details_have_the_facts_about_a_foreign_image_only_if_they_are_cached(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = components_of(app).store
    store.put("photos/me.png", picture(size=(40, 30)), content_type="image/png")

    def facts() -> list[Any]:
        (image,) = json_of(client.get("/api/images?details=true"))["images"]
        return [image["width"], image["height"], image["has_alpha"], bool(image["thumbhash"])]

    assert facts() == [None, None, None, False]
    described = json_of(client.get("/api/images/photos/me.png/info"))
    assert (described["width"], described["height"]) == (40, 30)
    calls: list[str] = []
    head = store.head
    monkeypatch.setattr(store, "head", lambda key: calls.append(key) or head(key))  # type: ignore[func-returns-value]
    monkeypatch.setattr(store, "get", lambda *_, **__: calls.append("get"))
    assert facts() == [40, 30, False, True]
    assert calls == ["photos/me.png"], "the request for the details themselves"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1001",
        "limit=1.5",
        "details=maybe",
        "prefix=" + "x" * 2000,
        "prefix=%00",
        "cursor=%00",
        "cursor=" + "x" * 4000,
    ],
)
def test_invalid_list_options_are_named(client: FlaskClient, query: str) -> None:
    response = client.get(f"/api/images?{query}")
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")
    assert query.partition("=")[0] in json_of(response)["message"]


@pytest.mark.parametrize("prefix", ["../..", "/etc", "a/../..", "a\\b", "%"])
def test_prefixes_that_no_key_has_list_nothing(client: FlaskClient, prefix: str) -> None:
    _upload(client, picture())
    assert json_of(client.get("/api/images", query_string={"prefix": prefix}))["images"] == []


@pytest.mark.parametrize("which", ["client", "s3_client"])
def test_details_have_the_prompt_of_a_generated_image(which: str, request: pytest.FixtureRequest) -> None:
    client: FlaskClient = request.getfixturevalue(which)
    key = _generate(client)
    (image,) = json_of(client.get("/api/images", query_string={"prefix": key, "details": "true"}))["images"]
    metadata = image["asked"]
    assert datetime.now(UTC) - datetime.fromisoformat(metadata.pop("time")) < timedelta(seconds=60)
    assert metadata == {**PROMPT, "model": "builtin"}
    assert image["key"] == key
    assert (image["width"], image["height"], image["frames"], image["has_alpha"]) == (96, 64, 1, False)
    assert image["thumbhash"]


def test_details_of_uploads_have_no_prompt(client: FlaskClient) -> None:
    client.post("/api/images", data=picture(), content_type="image/png")
    (image,) = json_of(client.get("/api/images?details=true"))["images"]
    assert image["asked"] is None


def test_without_keep_prompts_prompts_are_not_stored(config: Config) -> None:
    flask = create_app(replace(config, keep_prompts=False))
    key = _generate(flask.test_client())
    metadata = components_of(flask).store.head(key).metadata
    info = ImageInfo.from_metadata(metadata)
    assert info
    assert metadata.keys() == {"sha256", *info.to_metadata()}
    (image,) = json_of(flask.test_client().get("/api/images?details=true"))["images"]
    assert image["asked"] is None
    components_of(flask).cache.close()


def test_an_image_deleted_while_details_are_read_is_left_out(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _generate(client)

    def raise_not_found(key: str) -> None:
        raise NotFound

    monkeypatch.setattr(components_of(client.application).store, "head", raise_not_found)
    _, cursor = components_of(client.application).images.list(details=True)
    assert cursor is None


def test_a_page_with_details_has_at_most_max_details_images(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them costs a request to the store."""
    monkeypatch.setattr(schemas, "MAX_DETAILS", 2)
    for number in range(3):
        client.post("/api/images", data=noise(number), content_type="image/png")
    page = json_of(client.get("/api/images?details=true&limit=3"))
    assert (len(page["images"]), page["next_cursor"]) == (2, page["images"][1]["key"])
    assert len(json_of(client.get("/api/images?limit=3"))["images"]) == 3


def test_a_deleted_image_is_gone_from_store_and_cache(client: FlaskClient, app: Flask) -> None:
    uploaded = _upload(client, picture())
    url = uploaded["image_url"]
    client.get(url).close()
    deleted = client.delete(url)
    assert (deleted.status_code, json_of(deleted)) == (
        200,
        {"success": True, "message": "Image deleted", "key": uploaded["key"]},
    )
    assert client.get(url).status_code == 404
    assert client.delete(url).status_code == 404
    assert components_of(app).store.list().objects == ()


def test_deleting_an_image_that_only_the_cache_has_is_a_404_and_clears_the_cache(
    client: FlaskClient, app: Flask
) -> None:
    uploaded = _upload(client, picture())
    components_of(app).store.delete(uploaded["key"])
    assert client.delete(uploaded["image_url"]).status_code == 404
    assert client.get(uploaded["image_url"]).status_code == 404
