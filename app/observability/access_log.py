"""The access log, which has one line for each request, as text or JSON.

Lines are built and written directly, since the records and locks of `logging` would make a cache hit three
times as expensive. `app.observability.logging` also uses the helpers for timestamps and escaping.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from app.core.addresses import canonical_address
from app.core.request_context import API_KEY_NAME, CACHE_STATUS, OBJECT_KEY, REQUEST_ID, current_request_id

_MAX_VALUE_CHARACTERS = 256
"""Maximum length of a value, which keeps lines shorter than 4096 bytes. Up to this size, lines that several
processes write to one pipe don't mix."""

_STDOUT = 1

_PROXY_FIX = "werkzeug.proxy_fix.orig"
"""The environ key that is present if ProxyFix has already set the client's address."""


class AccessLog:
    """Writes lines with `write`, by default to standard output. `log_format` is "text" or "json".

    If `trusted_proxies` is not 0, it is the number of proxies in front of the server. In this case, the
    address that the outermost of them added to `X-Forwarded-For` is logged as the client.
    """

    def __init__(
        self, log_format: str, trusted_proxies: int, write: Callable[[bytes], object] | None = None
    ) -> None:
        self._format = _json_line if log_format == "json" else _text_line
        self._trusted_proxies = trusted_proxies
        self._write = write or _write_to_stdout

    def log(self, environ: Mapping[str, Any], status: str, sent: int, seconds: float) -> None:
        """Write the log line for a request. The response had `sent` bytes in its body and took `seconds`."""
        entry = _Entry(
            timestamp(time.time()),
            environ.get(REQUEST_ID) or current_request_id(),
            self._client(environ)[:64],
            environ.get(API_KEY_NAME),
            environ["REQUEST_METHOD"][:64],
            _path(environ)[:_MAX_VALUE_CHARACTERS],
            status[:3],
            sent,
            round(seconds * 1000, 3),
            environ.get(OBJECT_KEY, "")[:_MAX_VALUE_CHARACTERS] or None,
            environ.get(CACHE_STATUS),
        )
        self._write(self._format(entry).encode("ascii", "backslashreplace"))

    def _client(self, environ: Mapping[str, Any]) -> str:
        client = str(environ.get("REMOTE_ADDR", ""))
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        if self._trusted_proxies and forwarded:
            addresses = forwarded.split(",")
            # Cache hits are answered before the request reaches ProxyFix.
            if _PROXY_FIX not in environ and len(addresses) >= self._trusted_proxies:
                client = addresses[-self._trusted_proxies].strip()
            return canonical_address(client)
        return client


class _Entry(NamedTuple):
    time: str
    request_id: str
    client: str
    key_name: str | None
    method: str
    path: str
    status: str
    sent: int
    ms: float
    image: str | None
    cache: str | None


def _path(environ: Mapping[str, Any]) -> str:
    """Return the path as the client sent it, without the query, which may hold secrets."""
    raw = environ.get("RAW_URI", "")
    return str(raw if raw.startswith("/") else environ.get("PATH_INFO", "")).partition("?")[0]


def _json_line(entry: _Entry) -> str:
    return (
        f'{{"time":"{entry.time}","level":"INFO","logger":"access","request_id":{_quote(entry.request_id)},'
        f'"client":{_quote(entry.client)},"key_name":{_quote(entry.key_name)},'
        f'"method":{_quote(entry.method)},"path":{_quote(entry.path)},"status":{entry.status},'
        f'"bytes":{entry.sent},"ms":{entry.ms},"image":{_quote(entry.image)},"cache":{_quote(entry.cache)}}}\n'
    )


def _quote(value: str | None) -> str:
    return "null" if value is None else encode_basestring_ascii(value)


def _text_line(entry: _Entry) -> str:
    """Return a line that begins like other log records.

    The values of `entry` follow in order, with "-" for None.
    """
    return (
        f"{entry.time} INFO [{_word(entry.request_id)}] access: {_word(entry.client)} "
        f"{_word(entry.key_name)} {_word(entry.method)} {_word(entry.path)} {entry.status} {entry.sent} "
        f"{entry.ms} {_word(entry.image)} {_word(entry.cache)}\n"
    )


def _word(value: str | None) -> str:
    if not value:
        return "-"
    return value if value.isprintable() and " " not in value else escape(value).replace(" ", "\\x20")


def _write_to_stdout(line: bytes) -> None:
    with suppress(OSError):  # a full disk or a closed pipe must not make a request fail
        os.write(_STDOUT, line)


def timestamp(seconds: float) -> str:
    """Format a Unix time as a date and time in UTC with milliseconds (RFC 3339)."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def escape(text: str) -> str:
    """Return `text` with line breaks, terminal sequences and other unprintable characters escaped.

    Clients can't forge log lines with the values that they send.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
