"""The fast path, a middleware that serves cached images without Flask."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import AppError
from app.core.object_keys import is_readable, looks_immutable
from app.core.request_context import CACHE_STATUS, OBJECT_KEY, STARTED
from app.core.variant_keys import (
    INFO,
    LISTED,
    MAX_PATH_LENGTH,
    can_have_variants,
    is_variant_key,
    requested_path,
    split_variant_path,
)
from app.delivery.conditional import content_length_sent, represent, response_body
from app.delivery.negotiation import VARY, preferred_format
from app.observability.metrics import ROUTE, Metrics
from app.services.images import ImageService
from app.services.urls import IMAGES_PATH
from app.services.variant_rules import VariantRules, asks_for_variant

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)


def _ignore(*_: object, **__: object) -> None:
    """Do nothing and return None. This is the default of most hooks."""


def _no_headers(_: str) -> list[tuple[str, str]]:
    """Return no headers. This is the default of `cors`."""
    return []


def _answer_nothing(*_: object) -> Iterable[bytes]:
    """Return no body. This is the default of `answer`, which is never called if `find` returns None."""
    return ()


@dataclass(frozen=True, slots=True)
class LoopHooks:
    """The functions that the event loop of the worker calls to answer some requests without a thread.

    - `find` returns the cached image for a path, or None if the image is not cached or not immutable. Its
      second argument is a function that returns the `Accept` header.
    - `answer` is like a WSGI application, but also takes the cached image, and serves it.
    - `quick` contains the paths, besides those of images, that the application answers without blocking.
    - `flush` is called about once a second, and with `at_once=True` when the worker stops.
    - `count_refused` is called with the status and the code of each response that the server sent without the
      application.
    - `count_dropped` is called for each dropped connection with the reason, which is `room`, `slow_head`,
      `slow_reader` or `failed`.
    - `cors` returns the headers that let pages of an origin read a response.
    """

    find: Callable[[str, Callable[[], str]], CachedObject | None] = _ignore
    answer: "Callable[[WSGIEnvironment, StartResponse, CachedObject], Iterable[bytes]]" = _answer_nothing
    quick: frozenset[str] = frozenset()
    flush: Callable[..., None] = _ignore
    count_refused: Callable[[str, str], None] = _ignore
    count_dropped: Callable[[str], None] = _ignore
    cors: Callable[[str], list[tuple[str, str]]] = _no_headers


class FastPath:
    """Middleware that serves cached images without routing, locking, or copying bytes in Python.

    If the key looks like the key of an immutable image, cache misses are served here too. An image whose name
    the client chose is served here only if the cached copy is fresh. Flask handles all other requests.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        images: ImageService,
        cache: DiskCache,
        metrics: Metrics,
        rules: VariantRules,
        script_name: str = "",
    ) -> None:
        """Create the middleware. The paths passed to `find` begin with the mount point `script_name`.

        `rules` say which variants are served without a signature.
        """
        self._application = application
        self._images = images
        self._cache = cache
        self._counts = cache.counts
        self._metrics = metrics
        self._count_image = metrics.hits.add
        self._count_variant = metrics.hits.add_variant
        self._prefix = script_name + IMAGES_PATH
        self._rules = rules
        self._listed = lru_cache(maxsize=4096)(self._find_listed)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer the request if it is for an image that the fast path can serve. Otherwise pass it on."""
        environ[STARTED] = time.perf_counter()
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or not path.startswith(IMAGES_PATH):
            return self._application(environ, start_response)
        key = path[len(IMAGES_PATH) :]
        try:
            cached = self._fetch(key, environ)
        except Exception as exc:
            return self._answer_error(exc, environ, start_response)
        if cached is None:
            return self._application(environ, start_response)
        return self.answer(environ, start_response, cached)

    def _fetch(self, key: str, environ: "WSGIEnvironment") -> CachedObject | None:
        query = environ.get("QUERY_STRING")
        if query and asks_for_variant(query) and can_have_variants(key):
            return None
        if len(key) > MAX_PATH_LENGTH:
            return None
        if looks_immutable(key):
            return self._cache.lookup_immutable(key) or self._images.fetch(key)
        if not key.isascii() or key.startswith("/"):  # cache keys of variants begin with a slash
            return None
        listed = self._listed_key(key, lambda: environ.get("HTTP_ACCEPT", ""))
        if listed is None:
            self._check_permitted(key, query or "")
        return self._cache.lookup(listed or key)

    def _check_permitted(self, path: str, query: str) -> None:
        """Raise an error for a variant that may not be requested, if the path can't be that of an object.

        So made-up variants of an image cost as little as requests for missing images. Raises `InvalidVariant`
        and `VariantNotPermitted`. Signatures are left to Flask.
        """
        parts = split_variant_path(path)
        if parts is None or not looks_immutable(parts.source) or "sig=" in query or path.endswith(f"/{INFO}"):
            return
        canonical, _ = self._rules.canonical(parts)
        if str(canonical) == path:
            self._rules.check(canonical, {})

    def _listed_key(self, path: str, accept: Callable[[], str]) -> str | None:
        """Return the cache key of a listed variant, or None if `path` is not the canonical path of one.

        Return None as well if the format is negotiated and the client accepts neither AVIF nor WebP.
        """
        found = self._listed(path)
        if found is None:
            return None
        key, has_extension = found
        if has_extension:
            return key
        extension = preferred_format(accept())
        return f"{key}.{extension}" if extension else None

    def _find_listed(self, path: str) -> tuple[str, bool] | None:
        """Return the cache key of a listed variant, and whether the path has an extension.

        Without an extension, the cache key has none, either. Return None if the path is not the canonical
        path of a listed variant.
        """
        parts = split_variant_path(path)
        if parts is None or not is_readable(parts.source):
            return None
        name = path.rpartition("/")[2]
        is_listed = name in self._rules.listed or name in self._rules.negotiable
        return (LISTED + path, name in self._rules.listed) if is_listed else None

    def find(self, path: str, accept: Callable[[], str]) -> CachedObject | None:
        """Return the cached image for a path if the image is immutable, or else None.

        `accept` returns the `Accept` header of the request. This does not read the index.
        """
        if not path.startswith(self._prefix) or len(path) > MAX_PATH_LENGTH:
            return None
        key = path[len(self._prefix) :]
        if not looks_immutable(key):
            listed = self._listed_key(key, accept)
            if listed is None:
                return None
            key = listed
        return self._cache.lookup_immutable(key)

    def answer(
        self,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        cached: CachedObject,
    ) -> Iterable[bytes]:
        """Answer the request with `cached`, whose body is closed when the response has been sent."""
        path = requested_path(cached.facts.key)
        environ[OBJECT_KEY], environ[CACHE_STATUS] = path, cached.status.value
        try:
            found = represent(environ, cached)
        except AppError as exc:
            cached.body.close()
            return self._answer_error(exc, environ, start_response)
        except BaseException:
            cached.body.close()
            raise
        if cached.status is CacheStatus.HIT:
            self._counts.hit(content_length_sent(environ, found))
        else:
            self._counts.add(cached.status, content_length_sent(environ, found))
            self._observe(environ)
        if is_variant_key(cached.facts.key):
            self._count_variant(found.status)
            if not environ["PATH_INFO"].endswith(path):
                found.headers.append(VARY)  # the format was negotiated
        else:
            self._count_image(found.status)
        start_response(found.status, found.headers)
        return response_body(environ, cached, found)

    def _answer_error(
        self, exc: Exception, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        error = exc if isinstance(exc, AppError) else AppError()
        log_error(exc, environ["REQUEST_METHOD"], environ["PATH_INFO"])
        self._metrics.requests.labels(ROUTE, error.status).inc()
        self._metrics.count_error(ROUTE, error.code)
        self._observe(environ)
        body = json.dumps(error.body(), separators=(",", ":")).encode() + b"\n"  # formatted like Flask's JSON
        start_response(
            f"{error.status} {HTTPStatus(error.status).phrase}",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                *error.headers().items(),
            ],
        )
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)

    def _observe(self, environ: "WSGIEnvironment") -> None:
        now = time.perf_counter()
        self._metrics.request_seconds.labels(ROUTE).observe(now - environ.get(STARTED, now))


def log_error(error: Exception, method: str, path: str) -> None:
    """Log why a request failed.

    Client errors are logged at DEBUG, errors with a 5xx status at WARNING, and bugs at ERROR with a
    traceback.
    """
    if isinstance(error, AppError):
        level = logging.WARNING if error.status >= 500 else logging.DEBUG
        _log.log(level, "%s %r: %s", method, path, error, extra={"code": error.code})
    else:
        _log.error("%s %r failed", method, path, exc_info=error)
