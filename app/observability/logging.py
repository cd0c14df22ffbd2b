"""Records as lines: text for people, JSON for machines. Both hold the id of the request.

How Python's `logging` is set up: one handler for everything, on standard error.

What is logged: records as text or JSON, each with its request's id, and a line for each request.
"""

import logging
from logging.config import dictConfig
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.core.request_context import current_request_id
from app.observability.access_log import escaped, timestamp


class TextLines(logging.Formatter):
    """`time LEVEL [request id] logger: message`; tracebacks are indented, and so are no records."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of the traceback."""
        request_id = getattr(record, "request_id", "") or "-"
        head = f"{timestamp(record.created)} {record.levelname} [{request_id}] {record.name}:"
        lines = [f"{head} {escaped(record.getMessage())}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    {escaped(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


class JsonLines(JsonFormatter):
    """Objects with `time`, `level`, `logger`, `request_id`, `message`, and `exception` where there is one."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(request_id)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """The time first, as the access log has it."""
        log_data["time"] = timestamp(record.created)
        super().add_fields(log_data, record, message_dict)


class WithRequestId(logging.Filter):
    """Lets every record through, with the id of the request that its thread works on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id."""
        record.request_id = current_request_id()
        return True


_THEIRS = {
    "boto3",
    "botocore",
    "httpcore2",
    "httpx2",
    "limits",
    "openai",
    "redis",
    "s3transfer",
    "urllib3",
}
"""Loggers of libraries that send secrets."""


class WithoutTheirExceptions(logging.Filter):
    """Lets every record through, those of libraries without texts of exceptions: they may quote a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave the exceptions' classes."""
        if record.name.partition(".")[0] not in _THEIRS:
            return True
        if isinstance(record.args, tuple):
            record.args = tuple(
                type(arg).__name__ if isinstance(arg, BaseException) else arg for arg in record.args
            )
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = f"{record.getMessage()} ({record.exc_info[0].__name__})", None
        record.exc_info = record.exc_text = None
        return True


def logging_config(level: str, log_format: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`; `level` is that of our own records, `log_format` is text or json.

    Others' are heard from WARNING on, gunicorn's from INFO on: in their debug output botocore shows
    credentials, and gunicorn what clients have sent.
    """
    spoken = logging.getLevelName(max(logging.INFO, getattr(logging, level)))
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": WithRequestId}, "theirs": {"()": WithoutTheirExceptions}},
        "formatters": {"lines": {"()": JsonLines if log_format == "json" else TextLines}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "lines",
                "filters": ["request_id", "theirs"],
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"app": {"level": level}, "gunicorn.error": {"level": spoken, "propagate": True}},
    }


def configure_logging(level: str, log_format: str) -> None:
    """Set up logging, unless a server has done so already."""
    if not logging.getLogger().handlers:
        dictConfig(logging_config(level, log_format))
