"""Bedrock and OpenAI over real HTTP: the response to our client and the number of attempts in each case."""

import base64
import gzip
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.generators import transport
from tests.conftest import json_of
from tests.live import live
from tests.pictures import picture, png_claiming
from tests.providers import (
    API_KEY,
    AWS_SECRET,
    BEDROCK,
    IMAGE,
    OPENAI,
    Behaviour,
    ModelServer,
    Protocol,
    answer,
    broken_off,
    chunked,
    reset,
    stall,
    trickle_body,
    trickle_head,
)

URL = "/api/generate-image"
PROMPT = {"prompt": "a red boat", "size": "96x64"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"


@contextmanager
def _test_client(config: Config) -> Iterator[FlaskClient]:
    flask = create_app(config)
    yield flask.test_client()
    components_of(flask).cache.close()


@contextmanager
def _application(
    directory: Path, protocol: Protocol, server: ModelServer, timeout: int
) -> Iterator[FlaskClient]:
    config = replace(Config.from_env({}), local_store_dir=directory / "store", cache_dir=directory / "cache")
    with _test_client(protocol.config(config, server, timeout)) as client:
        yield client


@pytest.fixture(scope="module", params=[BEDROCK, OPENAI], ids=lambda protocol: protocol.name)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """The protocol of each provider."""
    found: Protocol = request.param
    return found


@pytest.fixture(scope="module")
def client(
    protocol: Protocol, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    """A client for an application with a deadline of 30 seconds."""
    with _application(tmp_path_factory.mktemp("client"), protocol, model_server, 30) as client:
        yield client


@pytest.fixture(scope="module")
def hurried(
    protocol: Protocol, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    """A client for an application with a deadline of 4 seconds: sending may be slow on a busy machine."""
    with _application(tmp_path_factory.mktemp("hurried"), protocol, model_server, 4) as client:
        yield client


def _warm(models: ModelServer, protocol: Protocol, client: FlaskClient) -> None:
    """Generate until it succeeds. The first call creates clients, which takes long on a busy machine."""
    for _ in range(20):
        models.reset()
        models.script = [protocol.success()]
        if client.post(URL, json=PROMPT).status_code == 200:
            models.reset()
            return
    pytest.fail("no generation has succeeded")


def _stored(client: FlaskClient) -> int:
    return len(components_of(client.application).store.list(limit=1000).objects)


Case = tuple[Callable[[Protocol], list[Behaviour]], int, str, int]

CASES: dict[str, Case] = {
    "success": (lambda p: [p.success()], 200, "", 1),
    "success in chunks": (
        lambda p: [chunked(p.drawn(base64.b64encode(IMAGE).decode()))],
        200,
        "",
        1,
    ),
    "throttled once": (lambda p: [p.throttled, p.success()], 200, "", 2),
    "away twice": (lambda p: [p.outage, p.outage, p.success()], 200, "", 3),
    "reset once": (lambda p: [reset, p.success()], 200, "", 2),
    "broken off once": (lambda p: [broken_off, p.success()], 200, "", 2),
    "throttled": (lambda p: [p.throttled], 503, "generator_unreachable", 3),
    "away": (lambda p: [p.outage], 503, "generator_unreachable", 3),
    "reset": (lambda p: [reset], 503, "generator_unreachable", 3),
    "refused": (lambda p: [p.refused], 422, "prompt_refused", 1),
    "end of life": (lambda p: [p.gone], 502, "generator_refused", 1),
    "bad key": (lambda p: [p.bad_key], 502, "generator_refused", 1),
    "quota": (lambda p: [p.no_quota], 502, "generator_refused", 1),
    "malformed base64": (lambda p: [answer("200 OK", p.drawn("a*b"))], 502, "generator_error", 1),
    "number for base64": (lambda p: [answer("200 OK", p.drawn(7))], 502, "generator_error", 1),
    "null for base64": (lambda p: [answer("200 OK", p.drawn(None))], 502, "generator_error", 1),
    "SVG": (lambda p: [p.success(SVG)], 502, "generator_error", 1),
    "HTML": (lambda p: [p.success(HTML)], 502, "generator_error", 1),
    "30,000 pixels": (lambda p: [p.success(png_claiming(30_000, 30_000))], 502, "generator_error", 1),
    "half an image": (lambda p: [p.success(IMAGE[:60])], 502, "generator_error", 1),
    "no image": (lambda p: [answer("200 OK", p.empty)], 502, "generator_error", 1),
    "no JSON": (lambda p: [answer("200 OK", b"<html>")], 502, "generator_error", 1),
    "a JSON list": (lambda p: [answer("200 OK", [])], 502, "generator_error", 1),
    "deep JSON": (lambda p: [answer("200 OK", b"[" * 200_000)], 502, "generator_error", 1),
    "HTML page": (lambda p: [answer("200 OK", HTML, Content_Type="text/html")], 502, "generator_error", 1),
    "compressed": (
        lambda p: [answer("200 OK", gzip.compress(b"{}"), Content_Encoding="gzip")],
        502,
        "generator_error",
        1,
    ),
    "redirect": (
        lambda p: [answer("307 Temporary Redirect", b"", Location="/v1/images/generations")],
        502,
        "generator_refused",
        1,
    ),
    "unknown refusal": (lambda p: [answer("418 I'm a teapot", {})], 502, "generator_refused", 1),
}


@pytest.mark.parametrize("name", CASES)
def test_outcomes(
    models: ModelServer,
    protocol: Protocol,
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    script, status, code, attempts = CASES[name]
    models.script = script(protocol)
    caplog.set_level(logging.DEBUG)
    before = _stored(client)
    response = client.post(URL, json=PROMPT)
    stored = _stored(client) - before
    body = json_of(response)
    assert (response.status_code, body.get("code", "")) == (status, code), body
    assert models.attempts == attempts
    assert stored == (status == 200)
    for secret in (API_KEY, AWS_SECRET):
        assert secret not in caplog.text
        assert secret not in response.text


@pytest.mark.parametrize("behaviour", [stall, trickle_body, trickle_head])
def test_the_deadline_holds_whatever_the_server_does(
    models: ModelServer, protocol: Protocol, hurried: FlaskClient, behaviour: Behaviour
) -> None:
    _warm(models, protocol, hurried)
    models.script = [behaviour]
    began = time.monotonic()
    response = hurried.post(URL, json=PROMPT)
    took = time.monotonic() - began
    assert (response.status_code, json_of(response)["code"]) == (504, "generator_timeout")
    assert 3.9 < took < 30  # the machine may be busy; the server would continue for a minute or forever
    assert models.attempts == 1


def test_the_deadline_includes_all_attempts(
    models: ModelServer, protocol: Protocol, hurried: FlaskClient
) -> None:
    _warm(models, protocol, hurried)
    models.script = [protocol.throttled, protocol.throttled, stall]
    began = time.monotonic()
    assert hurried.post(URL, json=PROMPT).status_code == 504
    assert time.monotonic() - began < 30
    assert models.attempts == 3


def test_the_models_file_is_stored_unchanged(
    models: ModelServer, protocol: Protocol, client: FlaskClient
) -> None:
    models.script = [protocol.success(picture("JPEG", (40, 30)))]
    answered = json_of(client.post(URL, json={**PROMPT, "size": "1000x1000", "seed": 7}))
    with client.get(answered["image_url"]) as served:
        assert len(served.data) == answered["bytes"]
    for name in ("image_url", "key", "bytes", "thumbhash", "variants"):
        assert answered.pop(name)
    assert answered == {
        "success": True,
        "message": "Image generated and uploaded successfully",
        "content_type": "image/jpeg",
        "width": 40,
        "height": 30,
        "frames": 1,
        "has_alpha": False,
        "model": protocol.model,
        "seed": 2130420379 if protocol.name == "bedrock" else None,
    }


def test_a_huge_response_is_not_read_whole(
    models: ModelServer, protocol: Protocol, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_RESPONSE_BYTES", 1024**2)
    sent = []

    def huge(_: ModelServer, __: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(1024**3))])
        for megabyte in range(1024):
            sent.append(megabyte)
            yield b" " * 1024**2

    models.script = [huge]
    response = client.post(URL, json=PROMPT)
    assert (response.status_code, json_of(response)["code"]) == (502, "generator_error")
    assert len(sent) < 50
    assert models.attempts == 1


def test_retry_after_is_respected(models: ModelServer, protocol: Protocol, client: FlaskClient) -> None:
    models.script = [answer("429 Too Many Requests", {}, Retry_After="1"), protocol.success()]
    began = time.monotonic()
    assert client.post(URL, json=PROMPT).status_code == 200
    assert time.monotonic() - began >= 1


def test_retry_after_past_the_deadline_is_passed_on_at_once(
    models: ModelServer, protocol: Protocol, client: FlaskClient
) -> None:
    models.script = [answer("429 Too Many Requests", {}, Retry_After="77")]
    response = client.post(URL, json=PROMPT)
    assert (response.status_code, response.headers["Retry-After"], models.attempts) == (503, "77", 1)


REASONS = {
    "bedrock": "Filter reason: prompt",
    "openai": "Your request was rejected by the safety system. safety_violations=[violence]",
}
MESSAGES = {
    "refused": "The image model refused this prompt: {reason}. Please change it.",
    "bad_key": "The image model rejected the server's credentials. The server's log has the reason.",
    "no_quota": "The quota for the image model is used up. The server's log has the reason.",
    "gone": "The image model is not available. The server's log has the reason.",
}


@pytest.mark.parametrize("what", MESSAGES)
def test_the_message_gives_the_reason(
    models: ModelServer, protocol: Protocol, client: FlaskClient, what: str
) -> None:
    models.script = [getattr(protocol, what)]
    message = json_of(client.post(URL, json=PROMPT))["message"]
    assert message == MESSAGES[what].format(reason=REASONS[protocol.name])


def test_the_log_names_the_setting_to_change(
    models: ModelServer, protocol: Protocol, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    models.script = [protocol.gone]
    client.post(URL, json=PROMPT)
    assert f"(GENERATOR_MODEL={protocol.model}: choose a different model)" in caplog.text


def test_the_providers_reason_is_made_printable_and_short(
    models: ModelServer, protocol: Protocol, client: FlaskClient
) -> None:
    reason = "Filter reason: \x1b[31m\u202e" + "x" * 5000 + API_KEY
    error = {"error": {"message": reason, "code": "moderation_blocked"}}
    models.script = [
        answer("200 OK", {"finish_reasons": [reason]})
        if protocol.name == "bedrock"
        else answer("400 Bad Request", error)
    ]
    response = client.post(URL, json=PROMPT)
    message = json_of(response)["message"]
    assert response.status_code == 422
    assert message.isprintable()
    assert len(message) < 400


def test_a_refused_connection(
    models: ModelServer, protocol: Protocol, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", nowhere)
    with _test_client(replace(protocol.config(config, models), openai_base_url=nowhere)) as client:
        response = client.post(URL, json=PROMPT)
    assert (response.status_code, json_of(response)["code"]) == (503, "generator_unreachable")


def test_the_proxy_in_the_environment_is_used(
    models: ModelServer, protocol: Protocol, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = "http://models.invalid"
    monkeypatch.setenv("HTTP_PROXY", models.url.replace("//", "//user:p%40ss@"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", far)
    models.script = [protocol.success()]
    with _test_client(replace(protocol.config(config, models), openai_base_url=f"{far}/v1")) as client:
        assert client.post(URL, json=PROMPT).status_code == 200
    (received,) = models.received
    assert received.uri.startswith(f"{far}/")
    credentials = base64.b64encode(b"user:p@ss").decode()
    assert received.headers["proxy-authorization"] == f"Basic {credentials}"


def test_openais_client_does_not_multiply_the_attempts(
    models: ModelServer, protocol: Protocol, client: FlaskClient
) -> None:
    _warm(models, protocol, client)
    models.script = [protocol.outage]
    with (
        live(client.application) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any") as openai_client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        openai_client.images.generate(prompt="a red boat", size="96x64")
    assert (caught.value.code, models.attempts) == ("generator_unreachable", 3)
