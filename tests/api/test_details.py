"""What was asked is kept with a generated image, and told where details are asked for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.config import Config
from app.errors import NotFound
from tests.conftest import json_of, parts_of
from tests.pictures import picture

ORDER = {"prompt": "A café,  by 猫\n", "size": "96x64", "seed": 7, "negative_prompt": "rain"}


def _generate(client: FlaskClient) -> str:
    key: str = json_of(client.post("/api/generate-image", json=ORDER))["key"]
    return key


@pytest.mark.parametrize("which", ["client", "s3_client"])
def test_details(which: str, request: pytest.FixtureRequest) -> None:
    client: FlaskClient = request.getfixturevalue(which)
    key = _generate(client)
    (line,) = json_of(client.get("/api/images", query_string={"prefix": key, "details": "true"}))["images"]
    asked = line["asked"]
    assert datetime.now(UTC) - datetime.fromisoformat(asked.pop("time")) < timedelta(seconds=20)
    assert asked == {**ORDER, "model": "builtin"}
    assert line["key"] == key


def test_without_details_the_store_is_not_asked_for_each(client: FlaskClient) -> None:
    _generate(client)
    (line,) = json_of(client.get("/api/images"))["images"]
    assert set(line) == {"key", "image_url", "content_type", "bytes", "last_modified"}


def test_uploads_were_not_asked_for(client: FlaskClient) -> None:
    client.post("/api/images", data=picture(), content_type="image/png")
    (line,) = json_of(client.get("/api/images?details=true"))["images"]
    assert line["asked"] is None


def test_it_can_be_turned_off(config: Config) -> None:
    flask = create_app(replace(config, keep_prompts=False))
    key = _generate(flask.test_client())
    assert parts_of(flask).store.head(key).metadata == {}
    (line,) = json_of(flask.test_client().get("/api/images?details=true"))["images"]
    assert line["asked"] is None
    parts_of(flask).cache.close()


def test_an_image_deleted_meanwhile(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    _generate(client)

    def gone(key: str) -> None:
        raise NotFound

    monkeypatch.setattr(parts_of(client.application).store, "head", gone)
    _, cursor = parts_of(client.application).service.list(details=True)
    assert cursor is None


@pytest.mark.parametrize("query", ["details=maybe", "details=true&limit=101"])
def test_bad_options(client: FlaskClient, query: str) -> None:
    response = client.get(f"/api/images?{query}")
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")
    assert client.get("/api/images?details=true&limit=100").status_code == 200
