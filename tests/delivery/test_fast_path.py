"""The delivery front and Flask answer alike, whatever is asked."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date
from werkzeug.test import Client, TestResponse

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import AppError, NotFound, StoreRefused, StoreTimeout
from app.core.request_context import RequestIds
from app.delivery.fast_path import FastPath
from tests.conftest import json_of
from tests.pictures import noise

DATA = noise(1)
SIZE = len(DATA)
OLD, FUTURE, NONSENSE = http_date(0), http_date(4_000_000_000), "yesterday"

CONDITIONS: list[dict[str, str]] = [
    {},
    {"If-None-Match": "ETAG"},
    {"If-None-Match": "W/ETAG"},
    {"If-None-Match": "*"},
    {"If-None-Match": '"other"'},
    {"If-None-Match": '"other", ETAG'},
    {"If-None-Match": ""},
    {"If-Modified-Since": "MODIFIED"},
    {"If-Modified-Since": OLD},
    {"If-Modified-Since": FUTURE},
    {"If-Modified-Since": NONSENSE},
    {"If-Match": "ETAG"},
    {"If-Match": "W/ETAG"},
    {"If-Match": "*"},
    {"If-Match": '"other"'},
    {"If-Unmodified-Since": "MODIFIED"},
    {"If-Unmodified-Since": OLD},
    {"If-Unmodified-Since": NONSENSE},
    {"If-None-Match": "ETAG", "If-Modified-Since": OLD},
    {"If-Match": '"other"', "If-None-Match": "ETAG"},
    {"If-Range": "ETAG"},
    {"If-Range": "MODIFIED"},
    {"If-Range": '"other"'},
    {"If-Range": OLD},
    {"Origin": "https://example.org", "Authorization": "Bearer x", "Cookie": "a=b"},
    {"Accept": "text/html", "Accept-Encoding": "gzip, br", "Cache-Control": "no-cache"},
]
RANGES = [
    None,
    "bytes=0-0",
    "bytes=5-9",
    "bytes=100-",
    "bytes=-5",
    "bytes=-0",
    "bytes=9-5",
    f"bytes={SIZE}-",
    "bytes=0-999999999999999999999",
    "bytes=0-1,5-6",
    "lines=1-2",
    "bytes=",
    "\xff",
]


class Ways:
    """One application, asked through the front and past it."""

    def __init__(self, flask: Flask) -> None:
        assert isinstance(flask.wsgi_app, RequestIds)
        front = flask.wsgi_app._application  # request ids differ by their nature
        assert isinstance(front, FastPath)
        upload = {"data": DATA, "content_type": "image/png"}
        client = flask.test_client()
        self.paths = [
            f"/api/images/{json_of(client.post('/api/images', **upload, query_string=query))['key']}"
            for query in ({}, {"name": "me.png"})
        ]
        self._front, self._flask = Client(front), Client(front._application)
        with self._front.get(self.paths[0]) as answer:
            self._words = {"ETAG": answer.headers["ETAG"], "MODIFIED": answer.headers["Last-Modified"]}

    def both(self, method: str, path: str, headers: dict[str, str]) -> tuple[Any, Any]:
        """Status, headers and body of both answers."""
        for word, value in self._words.items():
            headers = {name: text.replace(word, value) for name, text in headers.items()}
        sent = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        answers = [
            client.open(path, method=method, environ_overrides=sent) for client in (self._front, self._flask)
        ]
        return _facts(answers[0]), _facts(answers[1])


def _facts(answer: TestResponse) -> tuple[int, list[tuple[str, str]], bytes]:
    with answer:
        return answer.status_code, sorted(answer.headers), answer.data


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """Both ways to an image made from its bytes and to a named one, which are in the cache."""
    root: Path = tmp_path_factory.mktemp("ways")
    directories = {name: str(root / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    flask = create_app(Config.from_env(directories))
    yield Ways(flask)
    components_of(flask).cache.close()


@pytest.mark.parametrize("headers", CONDITIONS, ids=str)
def test_one_table_through_both(ways: Ways, headers: dict[str, str]) -> None:
    for method, path, asked in product(("GET", "HEAD"), ways.paths, RANGES):
        front, flask = ways.both(method, path, {**headers, **({"Range": asked} if asked is not None else {})})
        assert front == flask, (method, path, asked)


@pytest.mark.parametrize(
    "path",
    [
        "no/such.png",
        "..",
        "a//b",
        "",
        "images/00",
        "%00",
        "me.png/",
        "me.PNG",
        "ME.png",
        "me.png?x=1",
        "\xe9.png",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_what_is_no_hit(ways: Ways, method: str, path: str) -> None:
    front, flask = ways.both(method, f"/api/images/{path}", {})
    assert front == flask


_NUMBERS = st.one_of(st.integers(0, SIZE + 2), st.integers(0, 10**30)).map(str) | st.just("")
_SPANS = st.builds("{}-{}".format, _NUMBERS, _NUMBERS)
_ASKED = st.one_of(
    _SPANS.map("bytes={}".format),
    st.lists(_SPANS, max_size=3).map(lambda spans: "bytes=" + ",".join(spans)),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
_TAGS = st.one_of(
    st.sampled_from(["ETAG", "W/ETAG", "*", '"other"', "", '"', "W/", "ETAG,", ",,ETAG", '"a,b", ETAG']),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
_DATES = st.one_of(
    st.sampled_from(["MODIFIED", OLD, FUTURE, NONSENSE, "Sun, 06 Nov 99999 08:49:37 GMT", "0", "-1"]),
    st.datetimes().map(http_date),
    st.text(st.characters(max_codepoint=255), max_size=30),
)
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Range": _ASKED,
        "If-Range": _TAGS | _DATES,
        "If-Match": _TAGS,
        "If-None-Match": _TAGS,
        "If-Modified-Since": _DATES,
        "If-Unmodified-Since": _DATES,
    },
)


@pytest.mark.fuzz
@given(headers=_HEADERS, method=st.sampled_from(["GET", "HEAD"]), immutable=st.booleans())
def test_any_headers_through_both(ways: Ways, headers: dict[str, str], method: str, immutable: bool) -> None:
    front, flask = ways.both(method, ways.paths[0 if immutable else 1], headers)
    assert front == flask
    status, fields, body = front
    assert status in (200, 206, 304, 412, 416)
    if status == 206:
        start, _, stop = dict(fields)["Content-Range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert body == DATA[int(start) : int(stop) + 1]
    elif status == 200:
        assert body == (DATA if method == "GET" else b"")


MISSED = f"/api/images/images/00/{'0' * 30}.png"


@pytest.mark.parametrize(
    ("failure", "status"), [(StoreRefused(), 502), (StoreTimeout(), 504), (NotFound(), 404)], ids=str
)
def test_what_the_store_refuses_it_is_not_asked_again(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, failure: AppError, status: int
) -> None:
    get = Mock(side_effect=failure)
    monkeypatch.setattr(components_of(app).store, "get", get)
    answer = client.get(MISSED)
    assert (answer.status_code, answer.get_json()["code"], get.call_count) == (status, failure.code, 1)


def test_a_condition_on_what_can_not_be_kept_costs_one_call(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    flask = create_app(replace(config, cache_max_object_bytes=10))
    client = flask.test_client()
    url = client.post("/api/images", data=DATA, content_type="image/png").get_json()["image_url"]
    get = Mock(wraps=components_of(flask).store.get)
    monkeypatch.setattr(components_of(flask).store, "get", get)
    answer = client.get(url, headers={"If-Match": '"other"'})
    assert (answer.status_code, get.call_count) == (412, 1)
    components_of(flask).cache.close()
