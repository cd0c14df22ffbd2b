"""Rate limits for the images that a client uploads and generates."""

import logging
import time
from collections.abc import Mapping

from limits import RateLimitItem, parse_many
from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from app.core.errors import BadRequest, ConfigError, RateLimited

_STORAGE_OPTIONS: dict[str, str | int] = {"socket_connect_timeout": 1, "socket_timeout": 1}
"""Timeouts in seconds for shared storage such as Redis."""

_RETRY_STORAGE_SECONDS = 5.0
"""For how many seconds a process counts on its own after the shared storage has failed. After that, it tries
the storage again."""

_log = logging.getLogger(__name__)


class RateLimits:
    """Counts images per client. `rates` maps scopes to limits in the notation of the `limits` package.

    If the storage at `storage_uri` fails, each process counts on its own, so that no request fails because
    of the outage.

    Raises `ConfigError` if the storage needs a package that is not installed, or if the URI can't be used.
    """

    def __init__(self, rates: Mapping[str, str], storage_uri: str) -> None:
        options = {} if storage_uri.startswith("memory:") else _STORAGE_OPTIONS
        try:
            storage = storage_from_string(storage_uri, **options)
        except ConfigurationError as exc:
            raise ConfigError(
                "RATELIMIT_STORAGE_URI needs a package that is not installed: pip install redis"
            ) from exc
        except (ValueError, TypeError) as exc:  # their messages may contain the password
            raise ConfigError(
                "RATELIMIT_STORAGE_URI can't be used. Check its port, its database and its options."
            ) from exc
        self._limits: dict[str, list[RateLimitItem]] = {
            scope: parse_many(rate) for scope, rate in rates.items() if rate
        }
        self._shared = MovingWindowRateLimiter(storage)
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._use_local_until = 0.0

    def check(self, scope: str, client: str, images: int = 1) -> None:
        """Count `images` new images of `client` in `scope`.

        Raises `RateLimited` if the client exceeds a limit, and `BadRequest` if a limit never allows that many
        images at once.
        """
        limits = self._limits.get(scope, ())
        if not limits:
            return
        maximum = min(limit.amount for limit in limits)
        if images > maximum:
            raise BadRequest(
                f"This server accepts at most {maximum} image{'' if maximum == 1 else 's'} in one request."
            )
        if time.monotonic() >= self._use_local_until:
            try:
                self._count(self._shared, limits, (scope, client), images)
            except RateLimited:
                raise
            except Exception as exc:  # each kind of storage has its own exceptions
                if not self._use_local_until:
                    _log.warning(
                        "The rate limit storage failed (%s). This process counts on its own until it works.",
                        type(exc).__name__,
                    )
                self._use_local_until = time.monotonic() + _RETRY_STORAGE_SECONDS
            else:
                self._use_local_until = 0.0
                return
        self._count(self._local, limits, (scope, client), images)

    @staticmethod
    def _count(
        counter: MovingWindowRateLimiter, limits: list[RateLimitItem], names: tuple[str, str], images: int
    ) -> None:
        for limit in limits:
            if not counter.hit(limit, *names, cost=images):
                reset_at = counter.get_window_stats(limit, *names).reset_time
                raise RateLimited(max(1, int(reset_at - time.time())))
