"""How Python's `logging` is set up: one handler for everything, on standard error."""

import logging
from logging.config import dictConfig
from typing import Any

from app.logs.formatters import JsonLines, TextLines
from app.requestid import current_request_id


class WithRequestId(logging.Filter):
    """Lets every record through, with the id of the request that its thread works on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id."""
        record.request_id = current_request_id()
        return True


_THEIRS = {
    "boto3",
    "botocore",
    "flask-limiter",
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
