"""The fast path: middleware that answers cached images before Flask."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import AppError
from app.core.object_keys import looks_immutable
from app.core.request_context import CACHE_STATUS, OBJECT_KEY, STARTED
from app.delivery.conditional import content_length_sent, represent, response_body
from app.observability.metrics import ROUTE, Metrics
from app.services.images import ImageService
from app.services.urls import IMAGES_PATH

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)


def _ignore(*_: object, **__: object) -> None:
    """Do nothing and return None: the default of most hooks."""


def _no_headers(_: str) -> list[tuple[str, str]]:
    """Return no headers: the default of the hook that adds some."""
    return []


def _answer_nothing(*_: object) -> Iterable[bytes]:
    """Return no body: the default of a hook that is never called, since `find` finds nothing."""
    return ()


@dataclass(frozen=True, slots=True)
class LoopHooks:
    """What the worker's event loop calls to answer some requests without a thread.

    `find` returns the cache hit for a path, or None; `answer` is the WSGI application for such a hit. `quick`
    are other paths that the application answers without waiting. `flush` is called about once a second, and
    with `at_once=True` at the end. `count_refused` receives the status and code of each answer that the
    server sent without the application, `count_dropped` the reason for each dropped connection: `room`,
    `slow_head`, `slow_reader` or `failed`. `cors` returns the headers that let pages of an origin read an
    answer.
    """

    find: Callable[[str], CachedObject | None] = _ignore
    answer: "Callable[[WSGIEnvironment, StartResponse, CachedObject], Iterable[bytes]]" = _answer_nothing
    quick: frozenset[str] = frozenset()
    flush: Callable[..., None] = _ignore
    count_refused: Callable[[str, str], None] = _ignore
    count_dropped: Callable[[str], None] = _ignore
    cors: Callable[[str], list[tuple[str, str]]] = _no_headers


class FastPath:
    """Middleware that answers cached images; a hit costs neither routing, nor a lock, nor a copy in Python.

    A miss is answered here too if its key looks immutable. Images with chosen names are seldom fresh in the
    cache: unless they are, Flask answers them, as it does every other request.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        images: ImageService,
        cache: DiskCache,
        metrics: Metrics,
        script_name: str = "",
    ) -> None:
        """`script_name` is the mount point, which precedes the paths that `find` receives."""
        self._application = application
        self._images = images
        self._cache = cache
        self._counts = cache.counts
        self._metrics = metrics
        self._count_hit = metrics.hits.add
        self._prefix = script_name + IMAGES_PATH

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer the request if it is for an image that this path serves, else pass it on."""
        environ[STARTED] = time.perf_counter()
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or not path.startswith(IMAGES_PATH):
            return self._application(environ, start_response)
        key = path[len(IMAGES_PATH) :]
        try:
            cached = self._fetch(key)
        except Exception as exc:
            return self._answer_error(exc, environ, start_response)
        if cached is None:
            return self._application(environ, start_response)
        return self.answer(environ, start_response, cached)

    def _fetch(self, key: str) -> CachedObject | None:
        if looks_immutable(key):
            return self._cache.lookup_immutable(key) or self._images.fetch(key)
        return self._cache.lookup(key) if key.isascii() else None

    def find(self, path: str) -> CachedObject | None:
        """Return the cached image of an immutable object without reading the index; None for any other."""
        key = path[len(self._prefix) :]
        if path.startswith(self._prefix) and looks_immutable(key):
            return self._cache.lookup_immutable(key)
        return None

    def answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", cached: CachedObject
    ) -> Iterable[bytes]:
        """Answer with `cached`, whose body is closed when the answer is sent."""
        environ[OBJECT_KEY], environ[CACHE_STATUS] = cached.facts.key, cached.status.value
        try:
            answer = represent(environ, cached)
        except AppError as exc:
            cached.body.close()
            return self._answer_error(exc, environ, start_response)
        except BaseException:
            cached.body.close()
            raise
        if cached.status is CacheStatus.HIT:
            self._counts.hit(content_length_sent(environ, answer))
        else:
            self._counts.add(cached.status, content_length_sent(environ, answer))
            self._observe(environ)
        self._count_hit(answer.status)
        start_response(answer.status, answer.headers)
        return response_body(environ, cached, answer)

    def _answer_error(
        self, exc: Exception, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        error = exc if isinstance(exc, AppError) else AppError()
        log_error(exc, environ["REQUEST_METHOD"], environ["PATH_INFO"])
        self._metrics.requests.labels(ROUTE, error.status).inc()
        self._metrics.errors.labels(ROUTE, error.code).inc()
        self._observe(environ)
        body = json.dumps(error.body(), separators=(",", ":")).encode() + b"\n"  # as Flask writes it
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
    """Log why a request failed: client errors at DEBUG, 5xx at WARNING, bugs at ERROR with a traceback."""
    if isinstance(error, AppError):
        level = logging.WARNING if error.status >= 500 else logging.DEBUG
        _log.log(level, "%s %r: %s", method, path, error, extra={"code": error.code})
    else:
        _log.error("%s %r failed", method, path, exc_info=error)
