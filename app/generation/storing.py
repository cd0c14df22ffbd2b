"""Storing what was paid for: a moment's outage of the store does not throw it away."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from app.errors import StoreTimeout, StoreUnreachable
from app.service import StoredImage

MAX_PUTS = 4

_backoff = wait_exponential_jitter(multiplier=0.5, jitter=0.5, max=5)
_log = logging.getLogger(__name__)


def store_patiently(put: Callable[[], StoredImage], deadline: float) -> StoredImage:
    """What `put` gives, tried again where the store is away, not after `deadline` (monotonic seconds).

    The image's key is nobody else's: one that is there already is of a put whose answer was lost. Raises what
    the last try raised.
    """
    tries = Retrying(
        stop=stop_after_attempt(MAX_PUTS) | stop_before_delay(max(0.0, deadline - time.monotonic())),
        wait=_backoff,
        retry=retry_if_exception_type((StoreUnreachable, StoreTimeout)),
        before_sleep=_say,
        reraise=True,
    )
    return replace(tries(put), created=True)


def _say(state: RetryCallState) -> None:
    failure = state.outcome and state.outcome.exception()
    _log.warning("Put %d of %d of a drawn image failed: %s", state.attempt_number, MAX_PUTS, failure)
