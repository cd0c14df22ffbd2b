"""5xx: what the store, the generator or the server itself can't do."""

import math

from app.errors.base import AppError


class Busy(AppError):
    """As much is in work as memory and threads are meant for."""

    status = 503
    code = "busy"
    message = "The server has too much to do right now. Please try again shortly."
    retry_after = 2


class CacheStuck(AppError):
    """An image that was deleted or replaced can't be removed from the cache: it would be served for ever."""

    status = 503
    code = "cache_stuck"
    message = "The image could not be removed from the server's cache. Please try again."
    retry_after = 5


class CacheUnreadable(AppError):
    """The cache's figures can't be had: its directory or index is out of order."""

    status = 503
    code = "cache_unreadable"
    message = "The cache can't be read right now. Images come from the store meanwhile."
    retry_after = 10


class StateUnavailable(AppError):
    """The directory with the records of generations can't be read or written."""

    status = 503
    code = "state_unavailable"
    message = "The server can't keep its records of generations. Its operator finds the reason in the log."
    retry_after = 30


class StoreError(AppError):
    """The store answered something that makes no sense."""

    status = 502
    code = "store_error"
    message = "The image store gave an answer that can't be used."


class StoreRefused(StoreError):
    """The store said no: credentials, permissions or its own settings."""

    code = "store_refused"
    message = "The image store refused the request. Its operator finds the reason in the log."


class StoreUnreachable(StoreError):
    """No connection to the store, or the store is overloaded."""

    status = 503
    code = "store_unreachable"
    message = "The image store can't be reached right now. Please try again shortly."
    retry_after = 5


class StoreBusy(StoreUnreachable):
    """The most requests allowed wait for the store already, or it does not answer those that call it."""

    code = "store_busy"
    message = "The image store is too slow right now. Please try again shortly."


class StoreTimeout(StoreError):
    """The store did not answer within the deadline."""

    status = 504
    code = "store_timeout"
    message = "The image store did not answer in time. Please try again."
    retry_after = 5


class GeneratorError(AppError):
    """The generator failed or gave something that is no image."""

    status = 502
    code = "generator_error"
    message = "The image model gave no usable image. Please try again."


class GeneratorRefused(GeneratorError):
    """The generator said no to us, not to the prompt: credentials, quota, or a model that is gone."""

    code = "generator_refused"
    message = "The image model refused the request. The server's operator finds the reason in the log."


class GeneratorUnreachable(GeneratorError):
    """No connection to the generator, or it is overloaded: another try may succeed.

    `wait` is for how many seconds the generator asks to be left alone, where it says so.
    """

    status = 503
    code = "generator_unreachable"
    message = "The image model can't be reached right now. Please try again shortly."
    retry_after = 10

    def __init__(self, message: str | None = None, *, detail: str = "", wait: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.wait = wait
        if wait is not None:
            self.retry_after = math.ceil(wait)


class GeneratorTimeout(GeneratorError):
    """The generator did not finish within the deadline."""

    status = 504
    code = "generator_timeout"
    message = "The image model did not finish in time. Please try again."
