"""Tests of the log formats, the levels of loggers, and the exceptions of libraries."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from app.observability.logging import (
    JsonLinesFormatter,
    LibraryExceptionFilter,
    TextFormatter,
    logging_config,
)


def _record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    record = logging.makeLogRecord(
        {"name": "app.some", "levelname": "ERROR", "msg": message, "args": args, "created": 1.5, **more}
    )
    record.request_id = "id-1"
    return record


def _failure() -> Any:
    try:
        raise ValueError("first\n2026-11-22T00:00:00.000Z INFO [x] forged")
    except ValueError:
        return sys.exc_info()


def test_a_text_record_is_one_line() -> None:
    line = TextFormatter().format(_record("it is %s", "so"))
    assert line == "1970-01-01T00:00:01.500Z ERROR [id-1] app.some: it is so"


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "\x1b[31m", "\u2028", "\u202e", "\ud800"])
def test_a_hostile_message_stays_one_line(hostile: str) -> None:
    line = TextFormatter().format(_record("%s", hostile))
    assert line.isprintable()
    assert line.encode()


def test_a_traceback_is_indented() -> None:
    first, *others = TextFormatter().format(_record("oh", exc_info=_failure())).splitlines()
    assert first.endswith("app.some: oh")
    assert len(others) >= 4
    assert all(line.startswith("    ") for line in others)


def test_a_json_record_is_one_object() -> None:
    line = JsonLinesFormatter().format(_record("a\nb", exc_info=_failure(), code="store_error"))
    fields = json.loads(line)
    assert "\n" not in line
    assert "ValueError: first" in fields.pop("exception")
    assert fields == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "ERROR",
        "logger": "app.some",
        "request_id": "id-1",
        "message": "a\nb",
        "code": "store_error",
    }


LOG_EVERYTHING = """
import logging, sys
from app.observability.logging import configure_logging
configure_logging(sys.argv[1], "text")
for name in ("app.x", "botocore.auth", "gunicorn.error", "urllib3"):
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger(name), level)("%s %s", name, level)
"""


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("DEBUG", {"app.x debug", "app.x info", "app.x warning", "gunicorn.error info"}),
        ("INFO", {"app.x info", "app.x warning", "gunicorn.error info"}),
        ("WARNING", {"app.x warning"}),
    ],
)
def test_levels_by_logger(level: str, logged: set[str]) -> None:
    """At DEBUG, botocore logs signatures and tokens."""
    done = subprocess.run(
        [sys.executable, "-c", LOG_EVERYTHING, level], capture_output=True, text=True, timeout=30, check=True
    )
    lines = {line.split(": ", 1)[1] for line in done.stderr.splitlines()}
    assert lines == logged | {f"{name} warning" for name in ("botocore.auth", "gunicorn.error", "urllib3")}


def test_log_format_chooses_the_formatter() -> None:
    for log_format, formatter in (("text", TextFormatter), ("json", JsonLinesFormatter)):
        assert logging_config("INFO", log_format)["formatters"]["lines"]["()"] is formatter


def _filtered(record: logging.LogRecord) -> str:
    LibraryExceptionFilter().filter(record)
    return TextFormatter().format(record)


@pytest.mark.parametrize(
    "name",
    ["botocore.credentials", "urllib3.connectionpool", "openai._base_client", "redis"],
)
def test_exceptions_of_libraries_are_logged_by_name_only(name: str) -> None:
    """Their messages may quote a header or a command that contains a secret."""
    line = _filtered(
        _record("Refreshing failed: %s", ValueError("Bearer hush"), name=name, exc_info=_failure())
    )
    assert line.endswith(f"{name}: Refreshing failed: ValueError (ValueError)")


@pytest.mark.parametrize("name", ["app.api.error_responses", "gunicorn.error", "mypackage.models"])
def test_other_exceptions_are_logged_in_full(name: str) -> None:
    assert "ValueError: first" in _filtered(_record("oh %s", "no", name=name, exc_info=_failure()))


def test_the_handler_filters_library_exceptions() -> None:
    config = logging_config("INFO", "text")
    (handler,) = config["handlers"].values()
    filters = [config["filters"][name]["()"] for name in handler["filters"]]
    assert LibraryExceptionFilter in filters
