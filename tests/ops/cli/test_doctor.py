"""The JSON, the table and the exit status of `flask bucket doctor`."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.ops.doctor.findings import Status
from app.ops.doctor.runner import checks_for
from tests.s3server import CREDENTIALS, S3Server


def _run(app: Flask, *arguments: str, **options: Any) -> Result:
    return app.test_cli_runner().invoke(args=["bucket", "doctor", *arguments], **options)


@pytest.fixture
def s3_app(s3_config: Config) -> Iterator[Flask]:
    """An application with moto's S3. It has a problem: moto lets everyone write."""
    flask = create_app(replace(s3_config, cache_max_bytes=10**7))
    yield flask
    components_of(flask).cache.close()


def test_json_lists_every_check(s3_app: Flask) -> None:
    result = _run(s3_app, "--json")
    rows = json.loads(result.stdout)
    assert [row["check"] for row in rows] == [check.name for check in checks_for("s3")]
    assert all(list(row) == ["check", "status", "finding", "fix"] for row in rows)
    assert {"check": "anonymous-put", "status": "problem"}.items() <= rows[-8].items()
    assert result.exit_code == 1


def test_the_table_fits_into_80_columns_and_shows_the_fix(s3_app: Flask) -> None:
    result = _run(s3_app)
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert max(map(len, lines)) <= 80
    assert "problem  anonymous-put           Everyone can upload to the bucket." in lines
    assert lines[
        lines.index("problem  anonymous-put           Everyone can upload to the bucket.") + 1
    ].startswith(" " * 33 + "→ ")
    assert "\x1b" not in result.stdout
    assert lines[-1].startswith(f"{sum(line.startswith('ok ') for line in lines)} ok, ")


def test_no_secret_is_printed(s3_app: Flask) -> None:
    printed = _run(s3_app).output + _run(s3_app, "--json").output
    assert not [value for value in CREDENTIALS.values() if value in printed]


def test_a_terminal_gets_colors(app: Flask) -> None:
    assert click.style("ok       ", fg="green") in _run(app, color=True).stdout


def test_without_a_problem_the_exit_status_is_0(config: Config) -> None:
    app = create_app(replace(config, cache_max_bytes=10**7, api_keys=parse_keys("short")))
    result = _run(app)
    components_of(app).cache.close()
    assert result.exit_code == 0
    assert "warning  api-keys" in result.stdout
    assert "skipped  store" in result.stdout


def test_an_unreachable_bucket_is_one_problem(s3: S3Server, s3_config: Config) -> None:
    app = create_app(replace(s3_config, cache_max_bytes=10**7, aws_endpoint_url_s3="http://127.0.0.1:9"))
    rows = json.loads(_run(app, "--json").stdout)
    components_of(app).cache.close()
    assert [row["check"] for row in rows if row["status"] == Status.PROBLEM] == ["s3-answers"]
