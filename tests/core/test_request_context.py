"""Request IDs: the client's if it is well-formed, else a new one; in every response and every log record."""

import logging
import re
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import StoreUnreachable
from app.core.request_context import current_request_id, set_request_id
from app.observability.logging import RequestIdFilter
from tests.pictures import picture

ASSIGNED = re.compile(r"[0-9a-f]{16}")


@pytest.mark.parametrize("request_id", ["a", "A-1_b.c", "7f3a" * 16, "0" * 64, "--", "..."])
def test_a_well_formed_id_is_kept(client: FlaskClient, request_id: str) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": request_id}).headers["X-Request-ID"] == request_id


@pytest.mark.parametrize(
    "request_id",
    ["", " ", "0" * 65, "a b", "a,b", "a;b", "ä", "a\tb", "<script>", "${jndi:x}", "%0d%0a", '"', "a\x7f"],
)
def test_a_malformed_id_is_replaced(client: FlaskClient, request_id: str) -> None:
    assert ASSIGNED.fullmatch(
        client.get("/healthz", headers={"X-Request-ID": request_id}).headers["X-Request-ID"]
    )


def test_each_request_has_its_own_id(client: FlaskClient) -> None:
    ids = {client.get("/healthz").headers["X-Request-ID"] for _ in range(50)}
    assert len(ids) == 50


@pytest.mark.crashes
def test_every_response_has_an_id(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    key = components_of(app).images.upload_image(picture()).key
    path = f"/api/images/{key}"
    hit = client.get(path)
    answers = [
        hit,
        client.head(path),
        client.get(path, headers={"If-None-Match": hit.headers["ETag"]}),
        client.get(path, headers={"Range": "bytes=0-3"}),
        client.get(path, headers={"If-Match": '"other"'}),
        client.get("/nothing"),
        client.post("/healthz"),
        client.get("/"),
    ]
    monkeypatch.setattr(components_of(app).images, "list", lambda **_: 1 / 0)
    answers.append(client.get("/api/images"))
    assert [answer.status_code for answer in answers] == [200, 200, 304, 206, 412, 404, 405, 200, 500]
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)


def test_preflights_have_the_id(config: Config) -> None:
    flask = create_app(replace(config, cors_origins=("https://app.example.org",)))
    headers = {
        "Origin": "https://app.example.org",
        "Access-Control-Request-Method": "POST",
        "X-Request-ID": "p",
    }
    assert flask.test_client().options("/api/images", headers=headers).headers["X-Request-ID"] == "p"
    components_of(flask).cache.close()


def test_log_records_have_the_id(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors are logged once, with the detail that responses leave out."""

    def fail(*args: object, **_: object) -> None:
        raise StoreUnreachable(detail="GetObject: no route to host")

    monkeypatch.setattr(components_of(app).store, "get", fail)
    caplog.handler.addFilter(RequestIdFilter())
    client.get("/api/images/a/b.png", headers={"X-Request-ID": "mine"})
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.__dict__["request_id"], record.__dict__["code"]) == ("mine", "store_unreachable")
    assert "GET '/api/images/a/b.png': " in record.getMessage()
    assert "[GetObject: no route to host]" in record.getMessage()


def test_generators_see_the_id(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators run on other threads."""
    seen = []
    generate = components_of(app).generation._runner._generator._generator.generate  # type: ignore[attr-defined]

    def spy(request: object) -> object:
        seen.append(current_request_id())
        return generate(request)

    monkeypatch.setattr(components_of(app).generation._runner._generator._generator, "generate", spy)  # type: ignore[attr-defined]
    body = {"prompt": "a lake", "size": "64x64"}
    answer = client.post("/api/generate-image", json=body, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, seen) == (200, ["mine"])


def test_records_outside_requests_have_an_empty_id() -> None:
    set_request_id("")
    record = logging.makeLogRecord({})
    assert RequestIdFilter().filter(record)
    assert record.__dict__["request_id"] == ""
