"""Rate limits of uploads and of generated images."""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from fakeredis import FakeRedis, FakeServer
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.api.context import client_name
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.core.errors import ConfigError
from tests.conftest import json_of
from tests.pictures import picture
from tests.ports import free_port
from tests.services.generators import NAME


@pytest.fixture
def make_client(config: Config) -> Iterator[Callable[..., FlaskClient]]:
    """A function that returns a client of a new server with these settings."""
    applications: list[Flask] = []

    def make(**settings: Any) -> FlaskClient:
        applications.append(create_app(replace(config, **settings)))
        return applications[-1].test_client()

    yield make
    for flask in applications:
        components_of(flask).cache.close()


@pytest.fixture
def redis_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a fake Redis server. Over TCP, fakeredis would close the connection at each error."""
    server = FakeServer()
    monkeypatch.setattr(redis, "from_url", lambda url, **options: FakeRedis(server=server))
    return "redis://counters.example"


def _upload(client: FlaskClient, key: str = "", address: str = "127.0.0.1") -> Any:
    headers = {"X-API-Key": key} if key else {}
    return client.post(
        "/api/images",
        data=picture(),
        content_type="image/png",
        headers=headers,
        environ_overrides={"REMOTE_ADDR": address},
    )


def _statuses(client: FlaskClient, *keys: str) -> list[int]:
    return [_upload(client, key).status_code for key in keys]


def _assert_limited(response: Any, most: int) -> None:
    assert (response.status_code, json_of(response)) == (
        429,
        {
            "success": False,
            "message": "Too many requests. Wait, then retry.",
            "code": "rate_limited",
        },
    )
    assert 1 <= int(response.headers["Retry-After"]) <= most


def test_the_rate_limit_is_a_429_with_retry_after(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="2/minute")
    assert _statuses(client, "", "") == [201, 200]
    _assert_limited(_upload(client), 61)


def test_each_key_has_its_own_count(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="2/minute", api_keys=parse_keys("a=one,b=two,a=three"))
    assert _statuses(client, "one", "two", "one", "one", "two", "three") == [201, 200, 200, 429, 200, 429]


def test_calls_with_a_wrong_key_are_not_counted(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="1/minute", api_keys=parse_keys("a=one"))
    assert _statuses(client, "wrong", "wrong", "one") == [403, 403, 201]


def test_without_keys_each_address_has_its_own_count(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="1/minute")
    statuses = [
        _upload(client, address=address).status_code for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")
    ]
    assert statuses == [201, 200, 429]


def test_uploads_and_prompts_are_counted_separately(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="1/minute", rate_limit_generate="2/minute")
    prompt = {"prompt": "sea", "size": "64x64"}
    assert _statuses(client, "", "") == [201, 429]
    generated = [client.post("/api/generate-image", json=prompt) for _ in range(3)]
    assert [response.status_code for response in generated] == [200, 200, 429]
    _assert_limited(generated[-1], 61)
    assert client.get("/api/images").status_code == 200


def _generate(client: FlaskClient, images: int) -> Any:
    return client.post("/v1/images/generations", json={"prompt": "sea", "size": "64x64", "n": images})


def _stored_count(client: FlaskClient) -> int:
    return len(components_of(client.application).store.list().objects)


def test_each_generated_image_counts(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(generator=NAME, rate_limit_generate="5/minute")
    assert [_generate(client, images).status_code for images in (3, 3, 2)] == [200, 429, 200]
    assert client.post("/api/generate-image", json={"prompt": "sea"}).status_code == 429
    assert 1 <= int(_generate(client, 1).headers["Retry-After"]) <= 61
    assert _stored_count(client) == 5


def test_each_generated_image_counts_in_redis(
    make_client: Callable[..., FlaskClient], redis_url: str
) -> None:
    client = make_client(generator=NAME, rate_limit_generate="5/minute", ratelimit_storage_uri=redis_url)
    assert [_generate(client, images).status_code for images in (3, 3, 2, 1)] == [200, 429, 200, 429]


def test_invalid_requests_are_not_counted(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(generator=NAME, rate_limit_generate="1/minute")
    assert [_generate(client, images).status_code for images in (0, 5, 1, 1)] == [400, 400, 200, 429]


@pytest.mark.parametrize(("rate", "most"), [("2/minute", "2 images"), ("100/day;1/second", "1 image")])
def test_n_above_the_rate_limit_is_a_400(
    make_client: Callable[..., FlaskClient], rate: str, most: str
) -> None:
    client = make_client(generator=NAME, rate_limit_generate=rate)
    answer = _generate(client, 4)
    assert answer.status_code == 400
    assert json_of(answer)["error"]["message"] == f"This server accepts at most {most} in one request."
    assert _stored_count(client) == 0
    assert _generate(client, 1).status_code == 200


def test_all_of_several_rates_apply(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="5/second;3/day")
    assert _statuses(client, "", "", "", "") == [201, 200, 200, 429]
    assert int(_upload(client).headers["Retry-After"]) > 3600


def test_without_a_rate_nothing_is_counted(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload=Config.from_env({"RATE_LIMIT_UPLOAD": "none"}).rate_limit_upload)
    assert 429 not in _statuses(client, *[""] * 20)


def test_servers_share_their_counts_in_redis(make_client: Callable[..., FlaskClient], redis_url: str) -> None:
    settings = {"rate_limit_upload": "3/minute", "ratelimit_storage_uri": redis_url}
    first, second = make_client(**settings), make_client(**settings)
    assert _statuses(first, "", "") == [201, 200]
    assert _statuses(second, "") == [200]
    _assert_limited(_upload(first), 61)
    _assert_limited(_upload(second), 61)


def test_without_redis_each_worker_counts_alone_and_logs_one_warning(
    make_client: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(
        rate_limit_upload="3/minute", ratelimit_storage_uri=f"redis://127.0.0.1:{free_port()}"
    )
    with caplog.at_level(logging.WARNING):
        assert _statuses(client, "", "", "", "") == [201, 200, 200, 429]
    assert [record.name for record in caplog.records].count("app.services.rate_limits") == 1


def test_a_missing_package_fails_at_start(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match="RATELIMIT_STORAGE_URI needs a package") as caught:
        create_app(replace(config, ratelimit_storage_uri="redis://:hush@localhost"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("uri", ["memcached://localhost", "localhost:6379", "redis://", "memory"])
def test_other_storages_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="RATELIMIT_STORAGE_URI=\\*\\*\\*: must be memory://"):
        Config.from_env({"RATELIMIT_STORAGE_URI": uri})


SPELLINGS = [
    ["203.0.113.7", "::ffff:203.0.113.7", "::FFFF:203.0.113.7", "203.0.113.7:4711", "[::ffff:cb00:7107]:1"],
    ["2001:db8::1", "2001:DB8:0::1", "[2001:db8::1]", "[2001:db8::1]:4711"],
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_all_spellings_of_an_address_are_one_client(app: Flask, spellings: list[str]) -> None:
    """In X-Forwarded-For some proxies add the port."""
    names = set()
    for spelling in spellings:
        with app.test_request_context(environ_base={"REMOTE_ADDR": spelling}):
            names.add(client_name())
    assert names == {f"address {spellings[0]}"}


def test_an_ipv4_mapped_address_shares_the_count(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_limit_upload="1/minute")
    assert _upload(client, address="127.0.0.1").status_code == 201
    assert _upload(client, address="::ffff:127.0.0.1").status_code == 429
