"""Responses for images, including conditional and range requests (RFC 9110) and `Cache-Status` (RFC 9211)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from io import FileIO
from typing import TYPE_CHECKING, cast

from werkzeug.http import http_date, parse_date, parse_etags, unquote_etag
from werkzeug.wsgi import wrap_file

from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import PreconditionFailed, RangeNotSatisfiable
from app.core.object_keys import cache_control
from app.core.objects import ObjectFacts, version_tag

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_NAME = "s3-image-server"

_CHUNK = 256 * 1024

_ONE_RANGE = re.compile(r"bytes=\s*(?:(?=\d*-\d)|(?=\d+-))(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
"""`bytes=first-last`, `bytes=first-` or `bytes=-suffix` (RFC 9110, 14.1.2)."""

_CACHE_STATUS = {
    CacheStatus.HIT: f"{_NAME}; hit",
    CacheStatus.MISS: f"{_NAME}; fwd=uri-miss; stored",
    CacheStatus.COLLAPSED: f"{_NAME}; fwd=uri-miss; collapsed",
    CacheStatus.REVALIDATED: f"{_NAME}; fwd=stale; fwd-status=304",
    CacheStatus.STALE: f"{_NAME}; hit; detail=stale-if-error",
    CacheStatus.BYPASS: f"{_NAME}; fwd=bypass",
}

_CONDITIONS = (
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_RANGE",
)

_SAFETY = (
    # Make browsers treat the response as an image, whatever the bytes contain.
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    ("Content-Disposition", "inline"),
    # Let pages of any origin embed the image with <img>.
    ("Cross-Origin-Resource-Policy", "cross-origin"),
)

_ALWAYS = {
    status: (("Cache-Status", value), ("Accept-Ranges", "bytes"), *_SAFETY)
    for status, value in _CACHE_STATUS.items()
}


@dataclass(frozen=True, slots=True)
class Representation:
    """A response to send. Its body is the `length` bytes of the object that begin at `start`."""

    status: str
    headers: list[tuple[str, str]]
    start: int
    length: int


def represent(environ: "WSGIEnvironment", cached: CachedObject) -> Representation:
    """Return the response to this GET or HEAD request, with the status 200, 206 or 304.

    Raises `PreconditionFailed` and `RangeNotSatisfiable`.
    """
    facts = cached.facts
    etag, caching, modified = _header_values(facts)
    always = [("ETag", etag), ("Cache-Control", caching), *_ALWAYS[cached.status]]
    if any(name in environ for name in _CONDITIONS):
        _check_preconditions(environ, facts, etag)
        if _not_modified(environ, facts, etag):
            return Representation("304 Not Modified", always, 0, 0)
        span = _range(environ, facts, etag) if cached.status is not CacheStatus.BYPASS else None
        if span is not None:
            return _partial(facts, always + _content_headers(facts, modified), *span)
    length = ("Content-Length", str(facts.size))
    return Representation("200 OK", [*always, *_content_headers(facts, modified), length], 0, facts.size)


def response_body(
    environ: "WSGIEnvironment", cached: CachedObject, response: Representation
) -> Iterable[bytes]:
    """Return the body of `response`. When the WSGI server closes it, the object's body is closed.

    If the object's body is a file, the response body still has its descriptor, so that the server can let the
    kernel send the file (sendfile(2)).
    """
    if not content_length_sent(environ, response):
        cached.body.close()
        return ()
    file = cast("FileIO", cached.body)
    if response.length == cached.facts.size:
        return wrap_file(environ, file, _CHUNK)
    file.seek(response.start)
    return wrap_file(environ, cast("FileIO", _Part(file, response.length)), _CHUNK)


def content_length_sent(environ: "WSGIEnvironment", response: Representation) -> int:
    """Return how many bytes of the object are sent. For a HEAD request this is 0."""
    return 0 if environ["REQUEST_METHOD"] == "HEAD" else response.length


class _Part:
    """A file-like object that ends after the next `length` bytes of a body."""

    def __init__(self, body: "FileIO", length: int) -> None:
        self._body = body
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` of the remaining bytes, or all of them if `size` is negative."""
        chunk = self._body.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk

    def fileno(self) -> int:
        """Return the file descriptor of the body, which sendfile(2) needs."""
        return self._body.fileno()

    def close(self) -> None:
        """Close the body."""
        self._body.close()


@lru_cache(maxsize=10_000)
def _header_values(facts: ObjectFacts) -> tuple[str, str, str]:
    """Return the values of ETag, Cache-Control and Last-Modified.

    They are cached, because formatting them is slow. nginx may serve the cache files of immutable objects
    itself. It derives the ETag from a file's mtime and size, so this function must do the same.
    """
    etag = version_tag(facts.last_modified, facts.size) if facts.is_immutable else facts.etag
    return etag, cache_control(immutable=facts.is_immutable), http_date(facts.last_modified)


def _content_headers(facts: ObjectFacts, modified: str) -> list[tuple[str, str]]:
    """Return the headers that describe the content. A 304 response omits them (RFC 9110, 15.4.5)."""
    headers = [("Content-Type", facts.content_type), ("Last-Modified", modified)]
    if facts.content_encoding:
        headers.append(("Content-Encoding", facts.content_encoding))
    return headers


def _partial(facts: ObjectFacts, headers: list[tuple[str, str]], start: int, stop: int) -> Representation:
    headers += [
        ("Content-Length", str(stop - start)),
        ("Content-Range", f"bytes {start}-{stop - 1}/{facts.size}"),
    ]
    return Representation("206 Partial Content", headers, start, stop - start)


def _check_preconditions(environ: "WSGIEnvironment", facts: ObjectFacts, etag: str) -> None:
    """Check If-Match or, if it is missing, If-Unmodified-Since (RFC 9110, 13.2.2, steps 1 and 2).

    Raises `PreconditionFailed` if the condition does not hold.
    """
    if "HTTP_IF_MATCH" in environ:
        if not parse_etags(environ["HTTP_IF_MATCH"]).contains(_opaque(etag)):
            raise PreconditionFailed
    elif _date_passed(environ, "HTTP_IF_UNMODIFIED_SINCE", facts) is False:
        raise PreconditionFailed


def _not_modified(environ: "WSGIEnvironment", facts: ObjectFacts, etag: str) -> bool:
    """Evaluate If-None-Match or, if it is missing, If-Modified-Since (RFC 9110, 13.2.2, steps 3 and 4).

    Return whether the client already has the current version.
    """
    if "HTTP_IF_NONE_MATCH" in environ:
        return parse_etags(environ["HTTP_IF_NONE_MATCH"]).contains_weak(_opaque(etag))
    return _date_passed(environ, "HTTP_IF_MODIFIED_SINCE", facts) is True


def _range(environ: "WSGIEnvironment", facts: ObjectFacts, etag: str) -> tuple[int, int] | None:
    """Return the requested range as `(start, end)`, where `end` is exclusive, or None for the whole image.

    This is step 5 of RFC 9110, 13.2.2. A malformed Range is ignored (14.2). A request for several ranges gets
    the whole image, as the RFC allows.
    """
    asked = _ONE_RANGE.fullmatch(environ.get("HTTP_RANGE", ""))
    if asked is None or environ["REQUEST_METHOD"] != "GET" or not _if_range(environ, facts, etag):
        return None
    first, last = asked.groups()
    if not first:
        start, stop = max(facts.size - int(last), 0), facts.size
    else:
        start, stop = int(first), min(int(last) + 1, facts.size) if last else facts.size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise RangeNotSatisfiable(facts.size)
    return start, stop


def _if_range(environ: "WSGIEnvironment", facts: ObjectFacts, etag: str) -> bool:
    """Return whether If-Range is missing or matches. Weak ETags never match (RFC 9110, 13.1.5)."""
    value = environ.get("HTTP_IF_RANGE")
    if value is None:
        return True
    if value.startswith(('"', "W/")):
        return bool(value == etag)
    date = _date(value)
    return date is not None and date == facts.last_modified.replace(microsecond=0)


def _date_passed(environ: "WSGIEnvironment", name: str, facts: ObjectFacts) -> bool | None:
    """Return whether the object is unmodified since a header's date, or None if there is no valid date."""
    date = _date(environ.get(name))
    return None if date is None else facts.last_modified.replace(microsecond=0) <= date


def _date(value: str | None) -> datetime | None:
    """Return the date in a header, or None if it is not a date that `datetime` can represent."""
    try:
        return parse_date(value)
    except OverflowError:
        return None


def _opaque(etag: str) -> str:
    return unquote_etag(etag)[0] or ""
