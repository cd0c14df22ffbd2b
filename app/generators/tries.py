"""How often a model is asked, and until when: one wall-clock deadline over all tries of a generation."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from app.errors import GeneratorTimeout, GeneratorUnreachable

T = TypeVar("T")

MAX_TRIES = 3
"""Every try may be billed, also one whose answer never arrives."""

_MAX_WAIT = 3600
_backoff = wait_exponential_jitter(multiplier=0.5, jitter=0.5, max=10)
_deadline: ContextVar[float] = ContextVar("deadline")
_log = logging.getLogger(__name__)


def within_deadline(seconds: float, one_try: Callable[[], T]) -> T:
    """What `one_try` gives, asked again where it raises `GeneratorUnreachable` and time and tries are left.

    Inside, `seconds_left` tells the time left. Raises what the last try raised.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        return repeated(one_try)
    finally:
        _deadline.reset(token)


def repeated(one_try: Callable[[], T]) -> T:
    """What `one_try` gives, asked again as `within_deadline` does, whose deadline runs already."""
    return Retrying(
        stop=stop_after_attempt(MAX_TRIES) | stop_before_delay(seconds_left()),
        wait=_pause,
        retry=retry_if_exception_type(GeneratorUnreachable),
        before_sleep=_say,
        reraise=True,
    )(one_try)


def seconds_left() -> float:
    """Seconds until the deadline of this thread's generation; raises `GeneratorTimeout` past it."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise GeneratorTimeout(detail="the deadline has passed")
    return left


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds in `Retry-After` (RFC 9110, 10.2.3), whether given as such or as a date, if it is there."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return min(float(value), _MAX_WAIT)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    now = datetime.now(UTC if then.tzinfo else None)
    return min(max((then - now).total_seconds(), 0.0), _MAX_WAIT)


def _failure(state: RetryCallState) -> GeneratorUnreachable | None:
    exc = state.outcome.exception() if state.outcome else None
    return exc if isinstance(exc, GeneratorUnreachable) else None


def _pause(state: RetryCallState) -> float:
    """What the provider asks for, or longer after each try; with jitter, so that clients spread out."""
    failure = _failure(state)
    if failure is None or failure.wait is None:
        return _backoff(state)
    return failure.wait + _backoff(state) / 10


def _say(state: RetryCallState) -> None:
    _log.info("Try %d of %d failed: %s", state.attempt_number, MAX_TRIES, _failure(state))
