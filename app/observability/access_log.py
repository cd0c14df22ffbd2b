"""The access log: a line for each request, made at once and written at once.

It goes past `logging`, whose records and locks would cost a cache hit three times as much.

Times as the log writes them.

Text from outside, made fit for a line of the log.
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


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def escaped(text: str) -> str:
    """`text` without line breaks, escape sequences and whatever else a terminal or a reader acts on."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


_LONGEST = 256
"""Characters of a value: the line stays below 4096 bytes, which a pipe takes from many processes unmixed."""

_STDOUT = 1

_PROXY_FIX = "werkzeug.proxy_fix.orig"
"""Where ProxyFix leaves what it replaced: the address is the client's then."""


class _Answered(NamedTuple):
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
        answered = _Answered(
            timestamp(time.time()),
            environ.get(REQUEST_ID) or current_request_id(),
            self._client(environ)[:64],
            environ.get(API_KEY_NAME),
            environ["REQUEST_METHOD"][:64],
            _path(environ)[:_LONGEST],
            status[:3],
            sent,
            round(seconds * 1000, 3),
            environ.get(OBJECT_KEY, "")[:_LONGEST] or None,
            environ.get(CACHE_STATUS),
        )
        self._write(self._line(answered).encode("ascii", "backslashreplace"))

    def _client(self, environ: Mapping[str, Any]) -> str:
        """Hits are answered before ProxyFix has its turn."""
        client = str(environ.get("REMOTE_ADDR", ""))
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        if self._hops and forwarded:
            if _PROXY_FIX not in environ and len(named := forwarded.split(",")) >= self._hops:
                client = named[-self._hops].strip()
            return canonical_address(client)
        return client


def _path(environ: Mapping[str, Any]) -> str:
    """The path as it was sent, without the query, which may hold what is nobody's business."""
    raw = environ.get("RAW_URI", "")
    return str(raw if raw.startswith("/") else environ.get("PATH_INFO", "")).partition("?")[0]


def _as_json(it: _Answered) -> str:
    return (
        f'{{"time":"{it.time}","level":"INFO","logger":"access","request_id":{_quoted(it.request_id)},'
        f'"client":{_quoted(it.client)},"key_name":{_quoted(it.key_name)},"method":{_quoted(it.method)},'
        f'"path":{_quoted(it.path)},"status":{it.status},"bytes":{it.sent},"ms":{it.ms},'
        f'"image":{_quoted(it.image)},"cache":{_quoted(it.cache)}}}\n'
    )


def _quoted(value: str | None) -> str:
    return "null" if value is None else encode_basestring_ascii(value)


def _as_text(it: _Answered) -> str:
    """As other records are written; the message is the values in order, a dash for those that are missing."""
    return (
        f"{it.time} INFO [{_word(it.request_id)}] access: {_word(it.client)} {_word(it.key_name)} "
        f"{_word(it.method)} {_word(it.path)} {it.status} {it.sent} {it.ms} "
        f"{_word(it.image)} {_word(it.cache)}\n"
    )


def _word(value: str | None) -> str:
    if not value:
        return "-"
    return value if value.isprintable() and " " not in value else escaped(value).replace(" ", "\\x20")


def _to_stdout(line: bytes) -> None:
    with suppress(OSError):  # a full disk or a closed pipe fails no request
        os.write(_STDOUT, line)
