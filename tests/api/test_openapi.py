"""The OpenAPI document: its patterns take what the server takes, and it describes nothing else."""

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


def _taken(check: Callable[[], object]) -> bool:
    try:
        check()
    except InvalidKey:
        return False
    return True


def _matches(pattern: str, text: str) -> bool:
    """As ECMA-262 reads it, where `$` is the very end."""
    return re.search(pattern.replace("$", r"\Z"), text) is not None


@pytest.mark.fuzz
@given(_KEYS)
def test_keys_are_taken_as_described(text: str) -> None:
    described = _matches(KEY["pattern"], text) and len(text.encode()) <= KEY["maxLength"]
    assert described == _taken(lambda: check_readable(text))


@pytest.mark.fuzz
@given(_KEYS)
def test_folders_are_taken_as_described(text: str) -> None:
    assert _matches(FOLDER, text) == _taken(lambda: content_addressed_key(b"", PNG, text))


@pytest.mark.fuzz
@given(_KEYS)
def test_names_are_taken_as_described(text: str) -> None:
    taken = _taken(lambda: named_key(text, PNG))
    assert taken <= _matches(NAME, text)
    # The extension that a name gets may make it too long, and nobody may choose a hash's place.
    assert taken or not _matches(NAME, text) or "x" * 150 in text or looks_immutable(text)


def test_it_describes_the_calls_and_nothing_else(client: FlaskClient) -> None:
    document = json_of(client.get("/openapi.json"))
    text = str(document["paths"]) + str(document["components"])
    unused = [name for name in document["components"]["schemas"] if f"/schemas/{name}'" not in text]
    assert unused == []
