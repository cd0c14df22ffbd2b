"""The setup of Python's `logging`, which writes text or JSON with request IDs to standard error."""

import logging
from logging.config import dictConfig
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.core.request_context import current_request_id
from app.observability.access_log import escape, timestamp


def configure_logging(level: str, log_format: str) -> None:
    """Set up logging, unless a server such as gunicorn has already done so."""
    if not logging.getLogger().handlers:
        dictConfig(logging_config(level, log_format))


def logging_config(level: str, log_format: str) -> dict[str, Any]:
    """Return the settings for `logging.config.dictConfig`. `log_format` is "text" or "json".

    `level` applies to the application, and also to gunicorn unless it is DEBUG: at that level, gunicorn logs
    what clients send, so it logs at INFO instead. Libraries log at WARNING, since botocore logs credentials
    at DEBUG.
    """
    gunicorn_level = logging.getLevelName(max(logging.INFO, getattr(logging, level)))
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            "request_id": {"()": RequestIdFilter},
            "library_exceptions": {"()": LibraryExceptionFilter},
        },
        "formatters": {"lines": {"()": JsonLinesFormatter if log_format == "json" else TextFormatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "lines",
                "filters": ["request_id", "library_exceptions"],
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "app": {"level": level},
            "gunicorn.error": {"level": gunicorn_level, "propagate": True},
        },
    }


class TextFormatter(logging.Formatter):
    """Formats a record as `time LEVEL [request id] logger: message`, and indents its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of the record, followed by the lines of the traceback."""
        request_id = getattr(record, "request_id", "") or "-"
        head = f"{timestamp(record.created)} {record.levelname} [{request_id}] {record.name}:"
        lines = [f"{head} {escape(record.getMessage())}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    {escape(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


class JsonLinesFormatter(JsonFormatter):
    """Formats a record as a JSON object with time, level, logger, request_id, message and any exception."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(request_id)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Add the time in the format of the access log, then the other fields."""
        log_data["time"] = timestamp(record.created)
        super().add_fields(log_data, record, message_dict)


class RequestIdFilter(logging.Filter):
    """Adds the ID of the request that the thread is handling to each record. It drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `record.request_id`, which is "" outside a request, and return True."""
        record.request_id = current_request_id()
        return True


_LIBRARIES = {
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
"""The names of the loggers of libraries that send secrets."""


class LibraryExceptionFilter(logging.Filter):
    """Removes exception messages from the records of libraries, since the messages may quote a secret.

    It drops no record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace exceptions in the record of a library with the names of their classes. Return True."""
        if record.name.partition(".")[0] not in _LIBRARIES:
            return True
        if isinstance(record.args, tuple):
            record.args = tuple(
                type(arg).__name__ if isinstance(arg, BaseException) else arg for arg in record.args
            )
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = f"{record.getMessage()} ({record.exc_info[0].__name__})", None
        record.exc_info = record.exc_text = None
        return True
