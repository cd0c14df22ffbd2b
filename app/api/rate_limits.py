"""How often a client may upload and generate: Flask-Limiter, with our error and no way to fail a request."""

import time
from collections.abc import Callable, Mapping

from flask import Flask, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import parse_many
from limits.errors import ConfigurationError

from app.core.addresses import one_address
from app.core.errors import BadRequest, ConfigError, RateLimited

_PATIENCE: dict[str, str | int] = {"socket_connect_timeout": 1, "socket_timeout": 1}
"""Seconds that a request waits for a Redis that does not answer; after that the worker counts for itself."""


class RateLimits:
    """Counts images by client; `rates` has for some scopes a rate as the `limits` package spells them.

    Raises `ConfigError` if the counters at `storage_uri` need a package that is missing, or can't be used.
    """

    def __init__(self, flask: Flask, rates: Mapping[str, str], storage_uri: str) -> None:
        limiter = Limiter(
            client_name,
            storage_uri=storage_uri,
            storage_options={} if storage_uri.startswith("memory:") else _PATIENCE,
            strategy="moving-window",
            swallow_errors=True,
            in_memory_fallback_enabled=True,
        )
        try:
            limiter.init_app(flask)
        except ConfigurationError as exc:
            raise ConfigError(
                "RATELIMIT_STORAGE_URI needs a package that is not installed: pip install redis"
            ) from exc
        except (ValueError, TypeError) as exc:  # whose text may hold the password
            raise ConfigError(
                "RATELIMIT_STORAGE_URI can't be used. Check its port, its database and its options."
            ) from exc
        self._limiter = limiter
        rates = {scope: rate for scope, rate in rates.items() if rate}
        self._checks = {scope: _counter(limiter, scope, rate) for scope, rate in rates.items()}
        self._most = {scope: min(limit.amount for limit in parse_many(rate)) for scope, rate in rates.items()}

    def check(self, scope: str, images: int = 1) -> None:
        """Count so many images of this request's client; raises `RateLimited` where they are too many.

        Raises `BadRequest` where they always would be.
        """
        count = self._checks.get(scope)
        if count is None:
            return
        if images > self._most[scope]:
            raise BadRequest(f"This server takes on no more than {_images(self._most[scope])} at once.")
        g.images = images
        try:
            count()
        except RateLimitExceeded as exc:
            raise RateLimited(self._seconds_to_wait()) from exc

    def _seconds_to_wait(self) -> int:
        limit = self._limiter.current_limit
        return max(1, limit.reset_at - int(time.time())) if limit else 1


def client_name() -> str:
    """Who calls: the key's name where one was checked, else the client's address."""
    name = g.get("key_name")
    return f"key {name}" if name is not None else f"address {one_address(request.remote_addr or '')}"


def _counter(limiter: Limiter, scope: str, rate: str) -> Callable[[], None]:
    """What Flask-Limiter decorates is a function, known to it by its name."""

    def count() -> None:
        pass

    count.__qualname__ = f"count_{scope}"
    return limiter.shared_limit(rate, scope=scope, cost=lambda: g.images)(count)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
