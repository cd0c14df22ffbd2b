"""The application below a path: told by the operator or by a trusted proxy, taken off the path or not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.fields import parse_prefix
from app.config.settings import Config
from app.core.errors import ConfigError
from tests.conftest import json_of
from tests.pictures import picture

PNG = picture()
KEY = {"X-API-Key": "k"}
HIT = "s3-image-server; hit"


@pytest.fixture
def over(config: Config) -> Iterator[Callable[..., Flask]]:
    """Makes a server with these settings, and a key."""
    made = []

    def make(**settings: Any) -> Flask:
        made.append(create_app(replace(config, api_keys=parse_keys("k"), **settings)))
        return made[-1]

    yield make
    for flask in made:
        components_of(flask).cache.close()


def _client(flask: Flask, headers: dict[str, str]) -> FlaskClient:
    client = flask.test_client()
    client.environ_base.update(
        {f"HTTP_{n.upper().replace('-', '_')}": v for n, v in {**KEY, **headers}.items()}
    )
    return client


OPERATOR: dict[str, Any] = {"script_name": "/img"}
PROXY: dict[str, Any] = {"trusted_proxies": 1}
MOUNTED = {
    "SCRIPT_NAME, prefix kept": (OPERATOR, "", "/img"),
    "SCRIPT_NAME, prefix removed": (OPERATOR, "", ""),
    "SCRIPT_NAME and header": (OPERATOR | PROXY, "/evil", "/img"),
    "header, prefix removed": (PROXY, "/img", ""),
    "header, prefix kept": (PROXY, "/img", "/img"),
    "header, with a slash at the end": (PROXY, " /img/ ", ""),
    "header, after the client's own": (PROXY, "/evil, /img", ""),
    "header, of the outer of two": ({"trusted_proxies": 2}, "/img, /inner", ""),
}
"""Settings, the value of X-Forwarded-Prefix, and what stands before the path that reaches the server."""


@pytest.mark.parametrize(("settings", "header", "path"), MOUNTED.values(), ids=MOUNTED)
def test_every_address_has_the_prefix(
    over: Callable[..., Flask], settings: dict[str, Any], header: str, path: str
) -> None:
    client = _client(over(**settings), {"X-Forwarded-Prefix": header} if header else {})
    sent = client.post(f"{path}/api/images", data=PNG, content_type="image/png")
    stored = json_of(sent)
    assert sent.status_code == 201, stored
    assert stored["image_url"] == f"http://localhost/img/api/images/{stored['key']}"
    assert sent.headers["Location"] == stored["image_url"]
    (line,) = json_of(client.get(f"{path}/api/images"))["images"]
    assert line["image_url"] == stored["image_url"]
    with client.get(f"{path}/api/images/{stored['key']}") as served:
        assert (served.data, served.headers["Cache-Status"]) == (PNG, HIT)
    drawn = client.post(f"{path}/api/generate-image", json={"prompt": "x", "size": "64x64"})
    assert json_of(drawn)["image_url"].startswith("http://localhost/img/api/images/generated/")
    openai = client.post(f"{path}/v1/images/generations", json={"prompt": "x", "size": "64x64"})
    assert json_of(openai)["data"][0]["url"].startswith("http://localhost/img/api/images/generated/")
    assert json_of(client.get(f"{path}/v1/models/none"))["error"]["code"] == "model_not_found"
    assert client.delete(f"{path}/api/images/{stored['key']}").status_code == 200
    assert json_of(client.get(f"{path}/api/images/{stored['key']}"))["code"] == "not_found"


@pytest.mark.parametrize(("settings", "header", "path"), MOUNTED.values(), ids=MOUNTED)
def test_the_pages_and_the_document_have_the_prefix(
    over: Callable[..., Flask], settings: dict[str, Any], header: str, path: str
) -> None:
    client = _client(over(**settings), {"X-Forwarded-Prefix": header} if header else {})
    page = client.get(f"{path}/").get_data(as_text=True)
    assert 'src="/img/web/app.js"' in page
    assert "http://localhost/img/api/images<" in page
    assert 'href="/img/readyz"' in page
    docs = client.get(f"{path}/docs").get_data(as_text=True)
    assert 'src="/img/docs/assets/swagger-ui-bundle.js"' in docs
    assert 'href="/img/openapi.json"' in docs
    assert json_of(client.get(f"{path}/openapi.json"))["servers"] == [{"url": "/img"}]
    for address in ("/web/app.js", "/docs/assets/swagger-ui.css", "/healthz", "/favicon.ico"):
        with client.get(f"{path}{address}") as answer:
            assert answer.status_code == 200, address
    assert client.get(f"{path}/readyz").status_code in (200, 503)
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert client.options(f"{path}/api/images", headers=preflight).status_code == 200


@pytest.mark.parametrize("settings", [{"script_name": "/img"}, {"trusted_proxies": 1}], ids=str)
def test_the_prefix_alone_leads_to_the_page(over: Callable[..., Flask], settings: dict[str, Any]) -> None:
    """Relative addresses in the page need the slash at its end."""
    client = _client(over(**settings), {"X-Forwarded-Prefix": "/img", "X-Forwarded-Host": "evil.example"})
    for query in ("", "?v=1"):
        answer = client.get(f"/img{query}", headers={"Host": "evil.example"})
        assert (answer.status_code, answer.headers["Location"]) == (308, f"/img/{query}")
        assert b"evil" not in answer.data


def test_the_event_loop_finds_hits_below_the_prefix(over: Callable[..., Flask]) -> None:
    flask = over(script_name="/img")
    stored = json_of(_client(flask, {}).post("/api/images", data=PNG, content_type="image/png"))
    hooks = components_of(flask).loop_hooks
    found = hooks.find(f"/img/api/images/{stored['key']}")
    assert found is not None
    assert found.facts.key == stored["key"]
    found.body.close()
    for path in (f"/api/images/{stored['key']}", f"/imgs/api/images/{stored['key']}", "/img/api/images/"):
        assert hooks.find(path) is None
    assert hooks.quick == {"/healthz", "/img/healthz"}


@pytest.mark.parametrize(
    "path", ["/imgs/api/images", "/im", "/img.png", "/img/img/api/images", "/IMG/api/images"]
)
def test_what_only_looks_like_the_prefix_is_not_taken_off(over: Callable[..., Flask], path: str) -> None:
    answer = _client(over(script_name="/img"), {}).get(path)
    assert (answer.status_code, json_of(answer)["code"]) == (404, "not_found")


HOSTILE = [
    "//evil.example",
    "///evil.example",
    "/a//b",
    "http://evil.example",
    "https:/evil.example",
    "\\evil.example",
    "/\\evil.example",
    "img",
    "..",
    "/..",
    "/../api",
    "/a/../b",
    "/./a",
    "/a/.",
    "/%2e%2e",
    "/a%0d%0aSet-Cookie:%20a=b",
    "/a\r\nSet-Cookie: a=b",
    "/a\n",
    "/a\0",
    "/a b",
    "/\xe4",
    "/a?b",
    "/a#b",
    "/a;b",
    "/<script>alert(1)</script>",
    '/"onload="x',
    "/" + "x" * 8000,
    "/x" * 128,
    "/img, //evil.example",
    "/img,",
    ",",
    "",
    "/",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_no_prefix_is_ignored(over: Callable[..., Flask], value: str) -> None:
    client = _client(over(trusted_proxies=1), {"X-Forwarded-Prefix": value})
    sent = client.post("/api/images", data=PNG, content_type="image/png")
    url = json_of(sent)["image_url"]
    assert url == sent.headers["Location"] == f"http://localhost/api/images/{json_of(sent)['key']}"
    assert client.get(url).status_code == 200
    assert 'src="/web/app.js"' in client.get("/").get_data(as_text=True)
    assert "servers" not in json_of(client.get("/openapi.json"))


@pytest.mark.parametrize(("hops", "values"), [(0, "/img"), (2, "/img"), (3, "/a, /b"), (10, "/img")])
def test_a_header_that_no_trusted_proxy_has_set_means_nothing(
    over: Callable[..., Flask], hops: int, values: str
) -> None:
    client = _client(over(trusted_proxies=hops), {"X-Forwarded-Prefix": values})
    url = json_of(client.post("/api/images", data=PNG, content_type="image/png"))["image_url"]
    assert url.startswith("http://localhost/api/images/")
    assert client.get("/img/healthz").status_code == 404


def test_a_header_makes_nobody_local(config: Config) -> None:
    """Without keys only programs on this machine may write, and none of these comes by a proxy."""
    flask = create_app(config)
    headers = {"X-Forwarded-Prefix": "/img"}
    answer = flask.test_client().post("/api/images", data=PNG, content_type="image/png", headers=headers)
    assert answer.status_code == 401
    components_of(flask).cache.close()


@pytest.mark.parametrize("prefix", ["/api", "/docs", "/v1", "/web/x"])
@pytest.mark.parametrize("settings", [OPERATOR, PROXY], ids=["setting", "header"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "removed"])
def test_a_prefix_that_is_one_of_our_own_paths(
    over: Callable[..., Flask], prefix: str, settings: dict[str, Any], kept: bool
) -> None:
    """`/api/images` is no `/images` below `/api`."""
    headers = {} if settings is OPERATOR else {"X-Forwarded-Prefix": prefix}
    flask = over(**({"script_name": prefix} if settings is OPERATOR else settings))
    client, before = _client(flask, headers), prefix * kept
    stored = json_of(client.post(f"{before}/api/images", data=PNG, content_type="image/png"))
    assert stored["image_url"] == f"http://localhost{prefix}/api/images/{stored['key']}"
    for path in (f"/api/images/{stored['key']}", "/openapi.json", "/docs/assets/index.css", "/web/app.js"):
        with client.get(f"{before}{path}") as answer:
            assert answer.status_code == 200, path
    if kept or settings is PROXY:
        assert b"swagger-ui" in client.get(f"{before}/docs").data


def test_another_wsgi_server_may_mount_it(over: Callable[..., Flask]) -> None:
    mounted = Client(DispatcherMiddleware(_nothing, {"/a b": over()}))
    sent = mounted.post("/a b/api/images", data=PNG, content_type="image/png", headers=KEY)
    assert sent.json is not None
    assert sent.json["image_url"] == f"http://localhost/a%20b/api/images/{sent.json['key']}"
    with mounted.get(sent.json["image_url"].removeprefix("http://localhost")) as served:
        assert (served.data, served.headers["Cache-Status"]) == (PNG, HIT)


def _nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


def test_an_unknown_host_gets_a_path_with_the_prefix(over: Callable[..., Flask]) -> None:
    client = _client(over(script_name="/img"), {})
    sent = client.post(
        "/img/api/images", data=PNG, content_type="image/png", headers={"Host": "evil.example"}
    )
    stored = json_of(sent)
    assert stored["image_url"] == f"/img/api/images/{stored['key']}"


def test_a_cdn_has_its_own_address(over: Callable[..., Flask]) -> None:
    client = _client(over(script_name="/img", public_base_url="https://cdn.example/x"), {})
    stored = json_of(client.post("/img/api/images", data=PNG, content_type="image/png"))
    assert stored["image_url"] == f"https://cdn.example/x/{stored['key']}"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("/img", "/img"),
        ("/img/", "/img"),
        ("/a/b-c_d.e~1", "/a/b-c_d.e~1"),
        ("/", ""),
        ("", ""),
        ("/.well-known", "/.well-known"),
    ],
)
def test_the_setting(text: str, prefix: str) -> None:
    assert Config.from_env({"SCRIPT_NAME": text}).script_name == prefix


@pytest.mark.parametrize("text", [value for value in HOSTILE if value.strip("/") and value == value.strip()])
def test_a_wrong_setting_is_named_at_start(text: str) -> None:
    with pytest.raises(ConfigError, match="SCRIPT_NAME="):
        Config.from_env({"SCRIPT_NAME": text})
    assert parse_prefix(text) is None
