"""The WSGI front that answers images before Flask; everything else goes through to it, errors too."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import AppError
from app.core.object_keys import looks_immutable
from app.core.request_context import CACHE_STATUS, FAILURE, OBJECT_KEY, STARTED
from app.delivery.conditional import content_length_sent, represent, response_body
from app.observability.metrics import ROUTE, Metrics
from app.services.images import ImageService
from app.services.urls import IMAGES_PATH

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FOUND = "s3-image-server.found"
"""Where a server that has found the hit already puts it into the WSGI environment."""


def _ignore(*_: object, **__: object) -> None:
    """Do nothing and return None: the default of most hooks."""


def _no_headers(_: str) -> list[tuple[str, str]]:
    """Return no headers: the default of the hook for them."""
    return []


@dataclass(frozen=True, slots=True)
class LoopHooks:
    """What the worker's event loop needs from the application to answer some requests itself.

    `find` returns the cache hit for a path, or None; `quick` are other paths that the application answers
    without waiting for anything. `flush` is called about once a second, and with `at_once=True` at the end.
    `count_refused` gets status and code of each answer that the server gave without the application,
    `count_dropped` the reason for each connection that it dropped: `room`, `slow_head`, `slow_reader` or
    `failed`. `cors` returns the headers that let pages of an origin read an answer.
    """

    NAME: ClassVar[str] = "s3-image-server-loop"
    """The key in `Flask.extensions`."""

    find: Callable[[str], CachedObject | None] = _ignore
    quick: frozenset[str] = frozenset()
    flush: Callable[..., None] = _ignore
    count_refused: Callable[[str, str], None] = _ignore
    count_dropped: Callable[[str], None] = _ignore
    cors: Callable[[str], list[tuple[str, str]]] = _no_headers


class FastPath:
    """Wraps `application`; a hit costs neither routing, nor a lock, nor a byte of the body in Python.

    An image whose key looks immutable is fetched here as well if it is no hit. Of named ones, few of which
    are fresh, only hits are answered.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        service: ImageService,
        cache: DiskCache,
        metrics: Metrics,
        script_name: str = "",
    ) -> None:
        """`script_name` stands before the paths that `find` gets."""
        self._application = application
        self._service = service
        self._cache = cache
        self._counts = cache.counts
        self._answered = metrics.hits.add
        self._seconds = metrics.request_seconds
        self._images = script_name + IMAGES_PATH

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer an image, or hand the request on; what goes wrong is the application's to say."""
        if FOUND in environ:
            return self._answer(environ[FOUND], environ, start_response)
        environ[STARTED] = time.perf_counter()
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and environ["PATH_INFO"].startswith(IMAGES_PATH):
            try:
                cached = self._fetch(environ["PATH_INFO"][len(IMAGES_PATH) :])
            except Exception as exc:
                environ[FAILURE] = exc
            else:
                if cached is not None:
                    return self._answer(cached, environ, start_response)
        return self._application(environ, start_response)

    def find(self, path: str) -> CachedObject | None:
        """What the cache has for this path without asking the index: an immutable object, or None."""
        key = path[len(self._images) :]
        if path.startswith(self._images) and looks_immutable(key):
            return self._cache.lookup_immutable(key)
        return None

    def _fetch(self, key: str) -> CachedObject | None:
        if looks_immutable(key):
            return self._service.fetch(key)
        return self._cache.lookup(key) if key.isascii() else None

    def _answer(
        self, cached: CachedObject, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        environ[OBJECT_KEY], environ[CACHE_STATUS] = cached.facts.key, cached.status.value
        try:
            answer = represent(environ, cached)
        except AppError as exc:
            cached.body.close()
            environ[FAILURE] = exc
            return self._application(environ, start_response)
        except BaseException:
            cached.body.close()
            raise
        if cached.status is CacheStatus.HIT:
            self._counts.hit(content_length_sent(environ, answer))
        else:
            self._counts.add(cached.status, content_length_sent(environ, answer))
            self._seconds.labels(ROUTE).observe(time.perf_counter() - environ[STARTED])
        self._answered(answer.status)
        start_response(answer.status, answer.headers)
        return response_body(environ, cached, answer)
