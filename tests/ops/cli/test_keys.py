"""`flask keys new` prints a key and its entry for `API_KEYS`."""

import json

import pytest
from flask import Flask

from app.config.api_keys import find_key, parse_keys


@pytest.mark.parametrize(
    ("arguments", "name", "scopes"),
    [
        ([], "key", {"upload", "generate", "delete", "list", "metrics"}),
        (["--name", "web", "--scopes", "upload+generate"], "web", {"upload", "generate"}),
    ],
)
def test_the_entry_accepts_the_key_with_its_name_and_scopes(
    app: Flask, arguments: list[str], name: str, scopes: set[str]
) -> None:
    result = app.test_cli_runner().invoke(args=["keys", "new", "--json", *arguments])
    assert result.exit_code == 0, result.output
    made = json.loads(result.output)
    found = find_key(parse_keys(made["entry_for_API_KEYS"]), made["key"].encode())
    assert found is not None
    assert (found.name, set(found.scopes)) == (name, scopes)


def test_text_output_contains_the_same_facts(app: Flask) -> None:
    lines = app.test_cli_runner().invoke(args=["keys", "new", "--name", "web"]).output.splitlines()
    key, entry = (line.split()[-1] for line in lines)
    assert find_key(parse_keys(entry), key.encode())


@pytest.mark.parametrize(
    "arguments", [["--scopes", "write"], ["--scopes", ""], ["--name", "a=b"], ["--name", "a,b"]]
)
def test_values_that_are_invalid_in_the_setting_are_usage_errors(app: Flask, arguments: list[str]) -> None:
    result = app.test_cli_runner().invoke(args=["keys", "new", *arguments])
    assert result.exit_code == 2
    assert "Error: Invalid value" in result.output
