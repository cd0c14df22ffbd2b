"""The WSGI front that answers cache hits before Flask; everything else goes through to it."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from app.cache import CachedObject, CacheStatus, DiskCache
from app.environ import CACHE, IMAGE
from app.errors import AppError
from app.keys import is_immutable
from app.links import SERVER_PATH
from app.representation import body_of, represent, sent_bytes

FOUND = "s3-image-server.found"
"""Where a server that has found the hit already puts it into the WSGI environment."""

HITS = "s3-image-server-hits"
"""Where `Flask.extensions` has `Delivery.find`."""

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Delivery:
    """Wraps `application`; a hit costs neither routing, nor a lock, nor a byte of the body in Python.

    `answered` is told each answer's status line.
    """

    def __init__(
        self, application: "WSGIApplication", cache: DiskCache, answered: Callable[[str], None]
    ) -> None:
        self._application = application
        self._cache = cache
        self._counts = cache.counts
        self._answered = answered

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a hit, or hand the request on."""
        if FOUND in environ:
            return self._answer(environ[FOUND], environ, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and environ["PATH_INFO"].startswith(SERVER_PATH):
            key = environ["PATH_INFO"][len(SERVER_PATH) :]
            cached = self._cache.lookup(key) if key.isascii() else None
            if cached is not None:
                return self._answer(cached, environ, start_response)
        return self._application(environ, start_response)

    def find(self, path: str) -> CachedObject | None:
        """What the cache has for this path without asking the index: an immutable object, or None."""
        key = path[len(SERVER_PATH) :]
        return self._cache.lookup(key) if path.startswith(SERVER_PATH) and is_immutable(key) else None

    def _answer(
        self, cached: CachedObject, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """A condition that fails has a JSON body, which is the application's to write."""
        try:
            answer = represent(environ, cached)
        except AppError:
            cached.body.close()
            return self._application(environ, start_response)
        except BaseException:
            cached.body.close()
            raise
        if cached.status is CacheStatus.HIT:
            self._counts.hit(sent_bytes(environ, answer))
        else:
            self._counts.add(cached.status, sent_bytes(environ, answer))
        self._answered(answer.status)
        environ[IMAGE], environ[CACHE] = cached.facts.key, cached.status.value
        start_response(answer.status, answer.headers)
        return body_of(environ, cached, answer)
