"""Tests of the fields of the access log, and of requests that try to forge lines or contain secrets."""

import json
import os
import re
from typing import Any

import pytest

from app.core.request_context import API_KEY_NAME, CACHE_STATUS, OBJECT_KEY, REQUEST_ID, set_request_id
from app.observability.access_log import AccessLog

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/api/images/a/b.png?x=1",
    "PATH_INFO": "/api/images/a/b.png",
    "REMOTE_ADDR": "192.0.2.7",
    REQUEST_ID: "id-1",
    API_KEY_NAME: "ci",
    OBJECT_KEY: "a/b.png",
    CACHE_STATUS: "hit",
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _line(log_format: str, environ: dict[str, Any], *, proxies: int = 0) -> str:
    lines: list[bytes] = []
    AccessLog(log_format, proxies, lines.append).log(environ, "200 OK", 677, 0.0123456)
    (line,) = lines
    return line.decode("ascii")


def _fields(environ: dict[str, Any], *, proxies: int = 0) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(_line("json", environ, proxies=proxies))
    return loaded


def test_a_json_line_has_every_field() -> None:
    fields = _fields(ENVIRON)
    assert TIME.fullmatch(fields.pop("time"))
    assert fields == {
        "level": "INFO",
        "logger": "access",
        "request_id": "id-1",
        "client": "192.0.2.7",
        "key_name": "ci",
        "method": "GET",
        "path": "/api/images/a/b.png",
        "status": 200,
        "bytes": 677,
        "ms": 12.346,
        "image": "a/b.png",
        "cache": "hit",
    }


def test_a_text_line_has_the_same_values_in_order() -> None:
    time, rest = _line("text", ENVIRON).split(" ", 1)
    assert TIME.fullmatch(time)
    assert rest == "INFO [id-1] access: 192.0.2.7 ci GET /api/images/a/b.png 200 677 12.346 a/b.png hit\n"


def test_missing_values_are_a_dash_or_null() -> None:
    """If gunicorn's parser rejects a request, the application never sees it."""
    set_request_id("current")
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/x", "REMOTE_ADDR": ""}
    assert _line("text", environ).endswith("[current] access: - - GET /x 200 677 12.346 - -\n")
    fields = _fields(environ)
    set_request_id("")
    assert [fields[name] for name in ("request_id", "key_name", "image", "cache")] == [
        "current",
        None,
        None,
        None,
    ]


HOSTILE = [
    "/a\nINFO forged",
    "/a\r\n2026-11-22T00:00:00.000Z INFO [x] access: forged",
    "/\x1b[2J\x1b]0;owned\x07",
    "/\x00\x08\x7f",
    '/"},{"status":500,"x":"',
    "/\\n\\u000a",
    "/\u2028\u2029\u0085",
    "/\u202e\u2066gnp.tac",
    "/\ud800",
    "/ä€😀",
    "/ a b ",
    "/" + "\u2028" * 5000,
    "/" + "a" * 9000,
]
FIELDS = ["RAW_URI", "REMOTE_ADDR", "REQUEST_METHOD", OBJECT_KEY]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_one_request_is_one_line_of_printable_characters(log_format: str, field: str, hostile: str) -> None:
    line = _line(log_format, {**ENVIRON, field: hostile})
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line) < 4096
    if log_format == "json":
        assert json.loads(line)["status"] == 200
    else:
        assert len(line.split(" ")) == 13


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/x?api_key=SECRET", "/x"),
        ("/x?a=1?SECRET", "/x"),
        ("http://user:SECRET@host/x?SECRET", "/api/images/a/b.png"),
        ("*", "/api/images/a/b.png"),
        ("/%0aforged", "/%0aforged"),
    ],
)
def test_neither_query_nor_credentials_are_logged(uri: str, path: str) -> None:
    environ = {
        **ENVIRON,
        "RAW_URI": uri,
        "QUERY_STRING": "SECRET",
        "HTTP_AUTHORIZATION": "Bearer SECRET",
        "HTTP_X_API_KEY": "SECRET",
        "HTTP_COOKIE": "SECRET",
    }
    assert _fields(environ)["path"] == path
    assert "SECRET" not in _line("text", environ) + _line("json", environ)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "client"),
    [
        (0, "203.0.113.9", "192.0.2.7"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (2, "198.51.100.1, 203.0.113.9", "198.51.100.1"),
        (2, "203.0.113.9", "192.0.2.7"),
        (1, "::ffff:203.0.113.9", "203.0.113.9"),
        (1, "[2001:DB8::0:1]:4711", "2001:db8::1"),
        (1, "203.0.113.9:4711", "203.0.113.9"),
        (1, "a\nb", "a\nb"),
        (1, "", "192.0.2.7"),
    ],
)
def test_behind_proxies_the_client_comes_from_x_forwarded_for(
    proxies: int, forwarded: str, client: str
) -> None:
    environ = {**ENVIRON, "HTTP_X_FORWARDED_FOR": forwarded}
    assert _fields(environ, proxies=proxies)["client"] == client


def test_an_address_set_by_proxyfix_is_kept() -> None:
    environ = {**ENVIRON, "HTTP_X_FORWARDED_FOR": "203.0.113.9", "werkzeug.proxy_fix.orig": {}}
    assert _fields(environ, proxies=1)["client"] == "192.0.2.7"


def test_a_closed_standard_output_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr("app.observability.access_log._STDOUT", writer)
    AccessLog("text", 0).log(ENVIRON, "200 OK", 0, 0.0)
    os.close(writer)
