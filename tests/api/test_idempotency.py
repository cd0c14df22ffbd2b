"""`Idempotency-Key`, and a busy generator, at /api/generate-image."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.core.errors import GeneratorUnreachable
from app.services.slots import Slots
from tests.conftest import json_of
from tests.services.generators import NAME, ScriptedGenerator

URL = "/api/generate-image"
CAT = {"prompt": "a cat", "size": "64x64"}
Make = Callable[..., FlaskClient]


@pytest.fixture
def make(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return a factory of clients, whose servers share their directories, by settings."""
    monkeypatch.setenv("DRAWN", str(tmp_path / "drawn"))
    made = []

    def make_one(**settings: Any) -> FlaskClient:
        made.append(create_app(replace(config, generator=NAME, **settings)))
        return made[-1].test_client()

    yield make_one
    for flask in made:
        components_of(flask).cache.close()


def _drawn(tmp_path: Path) -> int:
    path = tmp_path / "drawn"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _send(client: FlaskClient, key: str | None, body: Any = CAT, **headers: str) -> TestResponse:
    return client.post(URL, json=body, headers={"Idempotency-Key": key, **headers} if key else headers)


@pytest.mark.parametrize("keys", [("a", "a"), ('"a-b"', "a-b"), ("a-b", '"a-b"'), ("!" * 255, "!" * 255)])
def test_the_same_key_gets_the_same_response(make: Make, tmp_path: Path, keys: tuple[str, str]) -> None:
    first, again = _send(make(), keys[0]), _send(make(), keys[1])
    assert first.status_code == again.status_code == 200
    assert first.data == again.data
    assert _drawn(tmp_path) == 1


def test_another_key_or_none_draws_another_image(make: Make, tmp_path: Path) -> None:
    client = make()
    answers = {_send(client, key).data for key in ("a", "A", "b", None, None)}
    assert len(answers) == _drawn(tmp_path) == 5


def test_a_key_with_another_request_is_refused(make: Make, tmp_path: Path) -> None:
    client = make()
    _send(client, "a")
    for body in ({**CAT, "prompt": "a dog"}, {**CAT, "size": "64x65"}, {**CAT, "seed": 1}):
        response = _send(client, "a", body)
        assert (response.status_code, json_of(response)) == (
            422,
            {
                "success": False,
                "message": "This Idempotency-Key was used for a different request. "
                "Use a new key for each request.",
                "code": "idempotency_key_reused",
            },
        )
    assert _drawn(tmp_path) == 1


def test_defaults_sent_explicitly_make_the_same_request(make: Make, tmp_path: Path) -> None:
    client = make()
    same = {"size": "64x64", "format": "png", "negative_prompt": "", "prompt": "a cat"}
    assert _send(client, "a").data == _send(client, "a", same).data
    assert _drawn(tmp_path) == 1


def test_idempotency_keys_of_different_api_keys_are_independent(make: Make, tmp_path: Path) -> None:
    client = make(api_keys=parse_keys("one,two"))
    answers = [_send(client, "a", **{"X-API-Key": key}) for key in ("one", "two", "one")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].data == answers[2].data != answers[1].data
    other = _send(client, "a", {**CAT, "prompt": "a dog"}, Authorization="Bearer two")
    assert other.status_code == 422
    assert _drawn(tmp_path) == 2


def test_no_key_is_written_to_disk(make: Make, config: Config) -> None:
    _send(make(api_keys=parse_keys("hush-hush")), "quite-a-secret", **{"X-API-Key": "hush-hush"})
    contents = [path.read_bytes() for path in config.state_dir.rglob("*") if path.is_file()]
    assert contents
    assert not any(secret in content for content in contents for secret in (b"hush", b"secret"))


def test_a_refused_prompt_is_refused_again_without_calling_the_model(make: Make, tmp_path: Path) -> None:
    client = make()
    first, again = (_send(client, "a", {"prompt": "refuse"}) for _ in range(2))
    assert first.status_code == again.status_code == 422
    assert json_of(first) == json_of(again)
    assert json_of(first) == {"success": False, "message": "No teapots, please.", "code": "prompt_refused"}
    assert _drawn(tmp_path) == 1


def test_after_a_failure_the_same_key_calls_the_model_again(make: Make, tmp_path: Path) -> None:
    client = make()
    for number in (1, 2):
        response = _send(client, "a", {"prompt": "fail"})
        assert (response.status_code, json_of(response)["code"]) == (503, "generator_unreachable")
        assert "secret" not in response.text
        assert response.headers["Retry-After"] == "10"
        assert _drawn(tmp_path) == number


@pytest.mark.parametrize("key", [None, "a"])
def test_the_retry_after_of_the_provider_is_passed_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    def throttled(*_: object) -> None:
        raise GeneratorUnreachable(wait=76.5)

    monkeypatch.setattr(ScriptedGenerator, "generate", throttled)
    response = _send(make(), key)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "77")


def test_clearing_the_cache_keeps_idempotency_keys(make: Make, tmp_path: Path) -> None:
    client = make()
    first = _send(client, "a")
    components_of(client.application).cache.clear()
    assert _send(client, "a").data == first.data
    assert _drawn(tmp_path) == 1


@pytest.mark.parametrize("key", ["x" * 256, "a b", "ä", "a\x7f", "\t", '""'])
def test_malformed_keys_are_refused(make: Make, tmp_path: Path, key: str) -> None:
    response = _send(make(), key)
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")
    assert "Idempotency-Key" in json_of(response)["message"]
    assert _drawn(tmp_path) == 0


def test_an_unusable_state_directory_is_an_error(make: Make, config: Config, tmp_path: Path) -> None:
    config.state_dir.write_text("a file")
    for key in ("a", None):
        response = _send(make(), key)
        assert (response.status_code, json_of(response)["code"]) == (503, "state_unavailable")
        assert str(config.state_dir) not in response.text
    assert _drawn(tmp_path) == 0


def test_a_request_without_a_free_slot_is_refused(make: Make, config: Config, tmp_path: Path) -> None:
    client = make(generate_concurrency=2)
    with Slots(config.state_dir / "slots", 2).take(2):
        response = _send(client, "a")
    assert (response.status_code, json_of(response)) == (
        429,
        {
            "success": False,
            "message": "The server is already generating as many images as it can. Retry shortly.",
            "code": "generator_busy",
        },
    )
    assert response.headers["Retry-After"] == "5"
    assert _drawn(tmp_path) == 0
    assert _send(client, "a").status_code == 200


def test_without_a_key_the_same_seed_is_drawn_each_time(make: Make, tmp_path: Path) -> None:
    client = make()
    answers = [json_of(_send(client, None, {**CAT, "seed": 7})) for _ in range(2)]
    assert len({answer["key"] for answer in answers}) == _drawn(tmp_path) == 2
