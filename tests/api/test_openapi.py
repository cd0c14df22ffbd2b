"""The OpenAPI document: it describes every API call, and its patterns match what the server accepts."""

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from app.api.openapi import FOLDER, KEY, NAME
from app.core.errors import InvalidKey
from app.core.object_keys import check_readable, content_addressed_key, looks_immutable, named_key
from app.core.objects import FORMATS
from tests.conftest import json_of

PNG = FORMATS["png"]

_PIECES = [
    "a",
    "B1",
    "-",
    ".",
    "..",
    "/",
    "//",
    "\\",
    "_x",
    ".png",
    ".JPG",
    ".gif/",
    "é",
    " ",
    "\0",
    "\n",
    "\x7f",
]
_KEYS = st.lists(st.sampled_from([*_PIECES, "x" * 150]), max_size=8).map("".join)


def _is_accepted(check: Callable[[], object]) -> bool:
    try:
        check()
    except InvalidKey:
        return False
    return True


def _matches(pattern: str, text: str) -> bool:
    """Return whether `pattern` matches in ECMA-262, in which `$` is the end of the text only."""
    return re.search(pattern.replace("$", r"\Z"), text) is not None


@pytest.mark.fuzz
@given(_KEYS)
def test_keys_are_accepted_if_they_match_the_pattern(text: str) -> None:
    described = _matches(KEY["pattern"], text) and len(text.encode()) <= KEY["maxLength"]
    assert described == _is_accepted(lambda: check_readable(text))


@pytest.mark.fuzz
@given(_KEYS)
def test_folders_are_accepted_if_they_match_the_pattern(text: str) -> None:
    assert _matches(FOLDER, text) == _is_accepted(lambda: content_addressed_key(b"", PNG, text))


@pytest.mark.fuzz
@given(_KEYS)
def test_accepted_names_match_the_pattern(text: str) -> None:
    accepted = _is_accepted(lambda: named_key(text, PNG))
    assert accepted <= _matches(NAME, text)
    # The pattern does not exclude names that are too long with the extension, or that look like hashes.
    assert accepted or not _matches(NAME, text) or "x" * 150 in text or looks_immutable(text)


def test_the_document_names_every_call(client: FlaskClient) -> None:
    paths = json_of(client.get("/openapi.json"))["paths"]
    assert {
        (path, method) for path, calls in paths.items() for method in calls if method != "parameters"
    } == {
        ("/api/images", "get"),
        ("/api/images", "post"),
        ("/api/images/{key}", "get"),
        ("/api/images/{key}", "delete"),
        ("/api/images/{key}/info", "get"),
        ("/api/images/{key}/{variant}", "get"),
        ("/api/generate-image", "post"),
        ("/v1/images/generations", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/api/cache", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }


def test_the_document_describes_both_headers_for_keys(client: FlaskClient) -> None:
    document = json_of(client.get("/openapi.json"))
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for method, path in (
        ("post", "/api/images"),
        ("get", "/api/images"),
        ("post", "/api/generate-image"),
        ("get", "/api/cache"),
        ("get", "/metrics"),
    ):
        assert document["paths"][path][method]["security"] == [{"bearer": []}, {"apiKey": []}]


def test_every_schema_in_the_document_is_used(client: FlaskClient) -> None:
    document = json_of(client.get("/openapi.json"))
    text = str(document["paths"]) + str(document["components"])
    unused = [name for name in document["components"]["schemas"] if f"/schemas/{name}'" not in text]
    assert unused == []
