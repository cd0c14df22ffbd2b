"""The application below a path prefix, which SCRIPT_NAME or a trusted proxy names, and proxies may remove."""

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
def make_app(config: Config) -> Iterator[Callable[..., Flask]]:
    """A function that returns a new application with these settings and an API key."""
    applications = []

    def make(**settings: Any) -> Flask:
        applications.append(create_app(replace(config, api_keys=parse_keys("k"), **settings)))
        return applications[-1]

    yield make
    for flask in applications:
        components_of(flask).cache.close()


def _client(flask: Flask, headers: dict[str, str]) -> FlaskClient:
    client = flask.test_client()
    client.environ_base.update(
        {f"HTTP_{n.upper().replace('-', '_')}": v for n, v in {**KEY, **headers}.items()}
    )
    return client


BY_SETTING: dict[str, Any] = {"script_name": "/img"}
BY_PROXY: dict[str, Any] = {"trusted_proxies": 1}
CASES = {
    "SCRIPT_NAME, prefix kept": (BY_SETTING, "", "/img"),
    "SCRIPT_NAME, prefix removed": (BY_SETTING, "", ""),
    "SCRIPT_NAME and header": (BY_SETTING | BY_PROXY, "/evil", "/img"),
    "header, prefix removed": (BY_PROXY, "/img", ""),
    "header, prefix kept": (BY_PROXY, "/img", "/img"),
    "header, with a slash at the end": (BY_PROXY, " /img/ ", ""),
    "header, after the client's own": (BY_PROXY, "/evil, /img", ""),
    "header, of the outer of two": ({"trusted_proxies": 2}, "/img, /inner", ""),
}
"""Settings, the value of X-Forwarded-Prefix, and the prefix of the paths that reach the server."""


@pytest.mark.parametrize(("settings", "header", "path"), CASES.values(), ids=CASES)
def test_every_url_has_the_prefix(
    make_app: Callable[..., Flask], settings: dict[str, Any], header: str, path: str
) -> None:
    client = _client(make_app(**settings), {"X-Forwarded-Prefix": header} if header else {})
    sent = client.post(f"{path}/api/images", data=PNG, content_type="image/png")
    stored = json_of(sent)
    assert sent.status_code == 201, stored
    assert stored["image_url"] == f"http://localhost/img/api/images/{stored['key']}"
    assert sent.headers["Location"] == stored["image_url"]
    (line,) = json_of(client.get(f"{path}/api/images"))["images"]
    assert line["image_url"] == stored["image_url"]
    with client.get(f"{path}/api/images/{stored['key']}") as served:
        assert (served.data, served.headers["Cache-Status"]) == (PNG, HIT)
    generated = client.post(f"{path}/api/generate-image", json={"prompt": "x", "size": "64x64"})
    assert json_of(generated)["image_url"].startswith("http://localhost/img/api/images/generated/")
    openai = client.post(f"{path}/v1/images/generations", json={"prompt": "x", "size": "64x64"})
    assert json_of(openai)["data"][0]["url"].startswith("http://localhost/img/api/images/generated/")
    assert json_of(client.get(f"{path}/v1/models/none"))["error"]["code"] == "model_not_found"
    assert client.delete(f"{path}/api/images/{stored['key']}").status_code == 200
    assert json_of(client.get(f"{path}/api/images/{stored['key']}"))["code"] == "not_found"


@pytest.mark.parametrize(("settings", "header", "path"), CASES.values(), ids=CASES)
def test_pages_and_openapi_document_have_the_prefix(
    make_app: Callable[..., Flask], settings: dict[str, Any], header: str, path: str
) -> None:
    client = _client(make_app(**settings), {"X-Forwarded-Prefix": header} if header else {})
    page = client.get(f"{path}/").get_data(as_text=True)
    assert 'src="/img/web/app.js"' in page
    assert "http://localhost/img/api/images<" in page
    assert 'href="/img/readyz"' in page
    docs = client.get(f"{path}/docs").get_data(as_text=True)
    assert 'src="/img/docs/assets/swagger-ui-bundle.js"' in docs
    assert 'href="/img/openapi.json"' in docs
    assert json_of(client.get(f"{path}/openapi.json"))["servers"] == [{"url": "/img"}]
    for asset in ("/web/app.js", "/docs/assets/swagger-ui.css", "/healthz", "/favicon.ico"):
        with client.get(f"{path}{asset}") as answer:
            assert answer.status_code == 200, asset
    assert client.get(f"{path}/readyz").status_code in (200, 503)
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert client.options(f"{path}/api/images", headers=preflight).status_code == 200


@pytest.mark.parametrize("settings", [{"script_name": "/img"}, {"trusted_proxies": 1}], ids=str)
def test_the_prefix_without_a_slash_redirects_to_the_page(
    make_app: Callable[..., Flask], settings: dict[str, Any]
) -> None:
    """Relative URLs in the page need the slash."""
    client = _client(make_app(**settings), {"X-Forwarded-Prefix": "/img", "X-Forwarded-Host": "evil.example"})
    for query in ("", "?v=1"):
        answer = client.get(f"/img{query}", headers={"Host": "evil.example"})
        assert (answer.status_code, answer.headers["Location"]) == (308, f"/img/{query}")
        assert b"evil" not in answer.data


def test_the_event_loop_finds_cached_images_below_the_prefix(make_app: Callable[..., Flask]) -> None:
    flask = make_app(script_name="/img")
    stored = json_of(_client(flask, {}).post("/api/images", data=PNG, content_type="image/png"))
    hooks = components_of(flask).loop_hooks
    found = hooks.find(f"/img/api/images/{stored['key']}", str)
    assert found is not None
    assert found.facts.key == stored["key"]
    found.body.close()
    for path in (f"/api/images/{stored['key']}", f"/imgs/api/images/{stored['key']}", "/img/api/images/"):
        assert hooks.find(path, str) is None
    assert hooks.quick == {"/healthz", "/img/healthz"}


@pytest.mark.parametrize(
    "path", ["/imgs/api/images", "/im", "/img.png", "/img/img/api/images", "/IMG/api/images"]
)
def test_paths_that_only_resemble_the_prefix_are_404(make_app: Callable[..., Flask], path: str) -> None:
    answer = _client(make_app(script_name="/img"), {}).get(path)
    assert (answer.status_code, json_of(answer)["code"]) == (404, "not_found")


INVALID_PREFIXES = [
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


@pytest.mark.parametrize("value", INVALID_PREFIXES)
def test_invalid_values_of_x_forwarded_prefix_are_ignored(make_app: Callable[..., Flask], value: str) -> None:
    client = _client(make_app(trusted_proxies=1), {"X-Forwarded-Prefix": value})
    sent = client.post("/api/images", data=PNG, content_type="image/png")
    url = json_of(sent)["image_url"]
    assert url == sent.headers["Location"] == f"http://localhost/api/images/{json_of(sent)['key']}"
    assert client.get(url).status_code == 200
    assert 'src="/web/app.js"' in client.get("/").get_data(as_text=True)
    assert "servers" not in json_of(client.get("/openapi.json"))


@pytest.mark.parametrize(("hops", "values"), [(0, "/img"), (2, "/img"), (3, "/a, /b"), (10, "/img")])
def test_x_forwarded_prefix_is_ignored_unless_a_trusted_proxy_set_it(
    make_app: Callable[..., Flask], hops: int, values: str
) -> None:
    client = _client(make_app(trusted_proxies=hops), {"X-Forwarded-Prefix": values})
    url = json_of(client.post("/api/images", data=PNG, content_type="image/png"))["image_url"]
    assert url.startswith("http://localhost/api/images/")
    assert client.get("/img/healthz").status_code == 404


def test_a_request_with_x_forwarded_prefix_is_not_local(config: Config) -> None:
    """Without keys only local programs may write, and the header means that there is a proxy."""
    flask = create_app(config)
    headers = {"X-Forwarded-Prefix": "/img"}
    answer = flask.test_client().post("/api/images", data=PNG, content_type="image/png", headers=headers)
    assert answer.status_code == 401
    components_of(flask).cache.close()


@pytest.mark.parametrize("prefix", ["/api", "/docs", "/v1", "/web/x"])
@pytest.mark.parametrize("settings", [BY_SETTING, BY_PROXY], ids=["setting", "header"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "removed"])
def test_the_prefix_may_equal_one_of_the_servers_paths(
    make_app: Callable[..., Flask], prefix: str, settings: dict[str, Any], kept: bool
) -> None:
    """`/api/images` does not mean `/images` below `/api`."""
    headers = {} if settings is BY_SETTING else {"X-Forwarded-Prefix": prefix}
    flask = make_app(**({"script_name": prefix} if settings is BY_SETTING else settings))
    client, sent_prefix = _client(flask, headers), prefix if kept else ""
    stored = json_of(client.post(f"{sent_prefix}/api/images", data=PNG, content_type="image/png"))
    assert stored["image_url"] == f"http://localhost{prefix}/api/images/{stored['key']}"
    for path in (f"/api/images/{stored['key']}", "/openapi.json", "/docs/assets/index.css", "/web/app.js"):
        with client.get(f"{sent_prefix}{path}") as answer:
            assert answer.status_code == 200, path
    if kept or settings is BY_PROXY:
        assert b"swagger-ui" in client.get(f"{sent_prefix}/docs").data


def test_a_wsgi_dispatcher_may_mount_the_application(make_app: Callable[..., Flask]) -> None:
    mounted = Client(DispatcherMiddleware(_respond_404, {"/a b": make_app()}))
    sent = mounted.post("/a b/api/images", data=PNG, content_type="image/png", headers=KEY)
    assert sent.json is not None
    assert sent.json["image_url"] == f"http://localhost/a%20b/api/images/{sent.json['key']}"
    with mounted.get(sent.json["image_url"].removeprefix("http://localhost")) as served:
        assert (served.data, served.headers["Cache-Status"]) == (PNG, HIT)


def _respond_404(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


def test_with_an_untrusted_host_the_url_is_a_path_with_the_prefix(make_app: Callable[..., Flask]) -> None:
    client = _client(make_app(script_name="/img"), {})
    sent = client.post(
        "/img/api/images", data=PNG, content_type="image/png", headers={"Host": "evil.example"}
    )
    stored = json_of(sent)
    assert stored["image_url"] == f"/img/api/images/{stored['key']}"


def test_public_base_url_replaces_the_prefix(make_app: Callable[..., Flask]) -> None:
    client = _client(make_app(script_name="/img", public_base_url="https://cdn.example/x"), {})
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
def test_script_name_is_normalized(text: str, prefix: str) -> None:
    assert Config.from_env({"SCRIPT_NAME": text}).script_name == prefix


@pytest.mark.parametrize(
    "text", [value for value in INVALID_PREFIXES if value.strip("/") and value == value.strip()]
)
def test_an_invalid_script_name_is_refused_at_start(text: str) -> None:
    with pytest.raises(ConfigError, match="SCRIPT_NAME="):
        Config.from_env({"SCRIPT_NAME": text})
    assert parse_prefix(text) is None
