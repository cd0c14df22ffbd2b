"""What was asked is kept with a generated image, and told where details are asked for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.api import schemas
from app.components import components_of
from app.config.settings import Config
from app.core.errors import NotFound
from tests.conftest import json_of
from tests.pictures import noise, picture

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
    assert datetime.now(UTC) - datetime.fromisoformat(asked.pop("time")) < timedelta(seconds=60)
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
    assert components_of(flask).store.head(key).metadata.keys() == {"sha256"}
    (line,) = json_of(flask.test_client().get("/api/images?details=true"))["images"]
    assert line["asked"] is None
    components_of(flask).cache.close()


def test_an_image_deleted_meanwhile(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    _generate(client)

    def gone(key: str) -> None:
        raise NotFound

    monkeypatch.setattr(components_of(client.application).store, "head", gone)
    _, cursor = components_of(client.application).images.list(details=True)
    assert cursor is None


def test_bad_options(client: FlaskClient) -> None:
    response = client.get("/api/images?details=maybe")
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")


def test_a_page_with_details_is_short(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked for each line."""
    monkeypatch.setattr(schemas, "MAX_DETAILS", 2)
    for number in range(3):
        client.post("/api/images", data=noise(number), content_type="image/png")
    page = json_of(client.get("/api/images?details=true&limit=3"))
    assert (len(page["images"]), page["next_cursor"]) == (2, page["images"][1]["key"])
    assert len(json_of(client.get("/api/images?limit=3"))["images"]) == 3
