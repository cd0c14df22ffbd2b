"""The access log: a line for each request, made at once and written at once.

It goes past `logging`, whose records and locks would cost a cache hit three times as much.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from app.environ import CACHE, IMAGE, KEY_NAME, REQUEST_ID
from app.logs.escape import escaped
from app.logs.moment import timestamp
from app.requestid import current_request_id

_LONGEST = 256
"""Characters of a value: the line stays below 4096 bytes, which a pipe takes from many processes unmixed."""

_STDOUT = 1

_PROXY_FIX = "werkzeug.proxy_fix.orig"
"""Where ProxyFix leaves what it replaced: the address is the client's then."""

_to_json = json.JSONEncoder(separators=(",", ":")).encode


class AccessLog:
    """Writes lines to `write`, by default standard output; `log_format` is text or json.

    Behind `trusted_proxies` proxies the client is the one that the last of these names.
    """

    def __init__(
        self, log_format: str, trusted_proxies: int, write: Callable[[bytes], object] | None = None
    ) -> None:
        self._line = _as_json if log_format == "json" else _as_text
        self._hops = trusted_proxies
        self._write = write or _to_stdout

    def log(self, environ: Mapping[str, Any], status: str, sent: int, seconds: float) -> None:
        """Write the line of a request that was answered with `sent` bytes of body after so many seconds."""
        self._write(
            self._line(
                {
                    "time": timestamp(time.time()),
                    "level": "INFO",
                    "logger": "access",
                    "request_id": environ.get(REQUEST_ID) or current_request_id(),
                    "client": self._client(environ)[:64],
                    "key_name": environ.get(KEY_NAME),
                    "method": environ["REQUEST_METHOD"][:64],
                    "path": _path(environ)[:_LONGEST],
                    "status": int(status[:3]),
                    "bytes": sent,
                    "ms": round(seconds * 1000, 3),
                    "image": environ.get(IMAGE, "")[:_LONGEST] or None,
                    "cache": environ.get(CACHE),
                }
            )
        )

    def _client(self, environ: Mapping[str, Any]) -> str:
        """Hits are answered before ProxyFix has its turn."""
        if self._hops and _PROXY_FIX not in environ:
            named = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
            if len(named) >= self._hops:
                return str(named[-self._hops].strip())
        return str(environ.get("REMOTE_ADDR", ""))


def _path(environ: Mapping[str, Any]) -> str:
    """The path as it was sent, without the query, which may hold what is nobody's business."""
    raw = environ.get("RAW_URI", "")
    return str(raw if raw.startswith("/") else environ.get("PATH_INFO", "")).partition("?")[0]


def _as_json(fields: dict[str, Any]) -> bytes:
    return _to_json(fields).encode("ascii") + b"\n"


def _as_text(fields: dict[str, Any]) -> bytes:
    """As other records are written; the message is the values in order, a dash for those that are missing."""
    time_, level, logger, request_id, *values = fields.values()
    message = " ".join(map(_word, values))
    return f"{time_} {level} [{request_id}] {logger}: {message}\n".encode("ascii", "backslashreplace")


def _word(value: object) -> str:
    text = "-" if value is None or value == "" else str(value)
    return escaped(text).replace(" ", "\\x20")


def _to_stdout(line: bytes) -> None:
    with suppress(OSError):  # a full disk or a closed pipe fails no request
        os.write(_STDOUT, line)
