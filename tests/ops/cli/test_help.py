"""Every group and command has a useful `--help`."""

import pytest
from flask import Flask


def _help(app: Flask, *command: str) -> str:
    result = app.test_cli_runner().invoke(args=[*command, "--help"])
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", ["bucket", "cache", "images", "keys"])
def test_each_group_has_a_description_that_fits_on_one_line(app: Flask, name: str) -> None:
    (line,) = (line for line in _help(app).splitlines() if line.startswith(f"  {name} "))
    assert not line.endswith("...")
    assert len(line.split()) > 3


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("bucket setup", "--bucket"),
        ("bucket iam-policy", "--bucket"),
        ("bucket create-user", "--bucket"),
        ("bucket doctor", "--json"),
        ("bucket cost", "--json"),
        ("cache stats", "--json"),
        ("cache check", "--json"),
        ("cache purge", "--json"),
        ("cache clear", "--json"),
        ("cache warm", "--json"),
        ("images import", "--json"),
        ("images export", "--json"),
        ("images sign", "--expires"),
        ("keys new", "--json"),
    ],
)
def test_each_command_lists_its_options(app: Flask, command: str, option: str) -> None:
    assert option in _help(app, *command.split())
