"""Storing what was paid for: a moment's outage of the store does not throw it away.

Orders of images: who may draw now, what was drawn already, and where the images go.

From a prompt to stored images: bounded in number and time, and done once where a client asks twice.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from app.core.errors import (
    GeneratorBusy,
    GeneratorUnreachable,
    PromptRefused,
    StoreError,
    StoreTimeout,
    StoreUnreachable,
)
from app.core.object_keys import generated_key
from app.core.object_metadata import PromptMetadata
from app.core.objects import FORMATS, NO_METADATA
from app.core.thread_pool import blocking
from app.generators.base import GenerationRequest, ModelFacts
from app.services.drawing import Drawn, GeneratorRunner, PromptRequest, StoredGeneration
from app.services.idempotency import Ledger, Once, Outcome, Rules, generations_in, keys_in, outcome_of
from app.services.images import ImageService, StoredImage
from app.services.slots import Slots
from app.services.unstored import Spool, Unstored

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


_MOST_WAITING = 64
"""Requests of a process that wait for a slot, or for another with their key, besides those that draw."""

_DAY = 86_400.0
_CENTURY = 100 * 365 * _DAY
"""Drawings to be used again are forgotten for want of room alone."""


class GenerationService:
    """Has images drawn and stores them; one instance serves all threads of a worker process.

    At most `concurrency` images are drawn at once on this machine. The worker processes agree on that, and on
    what was drawn already, in `state_dir`. With `reuse` an order with a seed is drawn once. With
    `keep_prompts` what was asked is kept with the image.

    An order that can be recognised when it is sent again, by its idempotency key or with `reuse`, is paid for
    once: its images are on disk in `state_dir` from the moment they are drawn until they are stored.
    """

    def __init__(
        self,
        images: ImageService,
        drawing: GeneratorRunner,
        state_dir: Path,
        *,
        concurrency: int,
        reuse: bool,
        keep_prompts: bool,
    ) -> None:
        self._images = images
        self._drawing = drawing
        self._slots = Slots(state_dir / "slots", concurrency)
        self._once = Once(state_dir / "under-way", Ledger(state_dir / "outcomes.db"))
        self._spool = Spool(state_dir / "unstored")
        self._spool.sweep()  # the images are somebody's, and may be private: none outstays its day for long
        self._reuse = reuse
        self._keep_prompts = keep_prompts
        self._free = threading.BoundedSemaphore(concurrency + _MOST_WAITING)

    def model_name(self) -> str:
        """What draws."""
        return self._drawing.model_name()

    def describe_model(self) -> ModelFacts | None:
        """What its provider says of it, if there is one; raises what generators raise."""
        return self._drawing.describe_model()

    def generate(self, order: PromptRequest, idempotency_key: str | None = None) -> list[StoredGeneration]:
        """Have `order` drawn, and store each image under a new, unguessable key: all of them or none.

        Where an order came with the same `idempotency_key` (a digest) within a day, the answer is the same
        and nothing is drawn.

        Raises `InvalidKey`, `TooManyPixels`, `PromptRefused`, `GeneratorError` and its kin, `GeneratorBusy`,
        `IdempotencyKeyReused`, `IdempotencyKeyInUse`, `StateUnavailable`, and what stores raise.
        """
        generated_key(datetime.now(UTC), FORMATS[order.image_format], order.folder)  # a bad folder shows now
        self._drawing.check_size(order.width, order.height)
        with self._place(), blocking():
            if idempotency_key is None:
                return self._reused_or_drawn(order, None)
            request = order.digest()
            spooled = hashlib.sha256(f"{idempotency_key} {request}".encode()).hexdigest()
            rules = Rules(_DAY, self._patience(order), on_kept=partial(self._forget, spooled, order.count))
            work = partial(self._reused_or_drawn, order, spooled)
            draw = partial(outcome_of, request, work, PromptRefused)
            return self._images_of(self._once.run(idempotency_key, request, rules, draw))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise GeneratorBusy
        try:
            yield
        finally:
            self._free.release()

    def _patience(self, order: PromptRequest) -> float:
        return self._drawing.seconds * order.count + 10

    def _images_of(self, outcome: Outcome) -> list[StoredGeneration]:
        return generations_in(outcome, self._images.url_of)

    def _forget(self, spooled: str, count: int, outcome: Outcome) -> None:
        """Remove from the spool what a request sent again won't need, since its outcome is remembered."""
        if outcome.is_final:
            self._spool.forget(spooled, count)

    def _reused_or_drawn(self, order: PromptRequest, spooled: str | None) -> list[StoredGeneration]:
        """The order's images; `spooled` is its name in the spool, None if it can't be recognised."""
        if not self._reuse or order.seed is None:
            return self._draw(order, spooled)
        request = order.digest(self.model_name())
        made: list[Outcome] = []

        def draw() -> Outcome:
            made.append(outcome_of(request, partial(self._draw, order, request)))
            return made[0]

        forget = partial(self._forget, request, order.count)
        rules = Rules(_CENTURY, self._patience(order), counts=self._still_has, on_kept=forget)
        generations = self._images_of(self._once.run(request, request, rules, draw))
        return generations if made else [_seen_before(generation) for generation in generations]

    def _still_has(self, outcome: Outcome) -> bool:
        return all(self._images.exists(key) for key in keys_in(outcome))

    def _draw(self, order: PromptRequest, spooled: str | None) -> list[StoredGeneration]:
        """All are drawn before one is stored, so that a failure leaves nothing behind in the store."""
        self._spool.sweep()
        images = self._spool.recall(spooled, order.count) if spooled else {}
        missing = {n: request for n, request in enumerate(order.requests()) if n not in images}
        deadline = time.monotonic() + self._drawing.seconds
        if missing:
            deadline = self._draw_missing(order, missing, images, spooled)
        try:
            return [self._store(order, images[number], deadline) for number in range(order.count)]
        except StoreError:
            if spooled is None:
                _log.warning("The store took no drawn image; without an Idempotency-Key it is not kept")
            raise

    def _draw_missing(
        self,
        order: PromptRequest,
        missing: Mapping[int, GenerationRequest],
        images: dict[int, Unstored],
        spooled: str | None,
    ) -> float:
        """Add the images of `missing` to `images`; returns the time until which the store may take."""
        numbers = list(missing)

        def keep(first: int, index: int, drawn: Drawn) -> None:
            now, number = datetime.now(UTC), numbers[first + index]
            image = Unstored(generated_key(now, drawn.checked.format, order.folder), drawn, now)
            if spooled:
                self._spool.keep(spooled, number, image)
            images[number] = image

        with self._slots.take(len(numbers)) as taken:
            deadline = time.monotonic() + self._drawing.seconds * math.ceil(len(numbers) / taken)
            for first in range(0, len(numbers), taken):
                batch = [missing[number] for number in numbers[first : first + taken]]
                with _paid_for(images):
                    self._drawing.draw(batch, partial(keep, first))
        return deadline

    def _store(self, order: PromptRequest, image: Unstored, deadline: float) -> StoredGeneration:
        drawn = image.drawn
        metadata = _asked(order, drawn, image.time).to_metadata() if self._keep_prompts else NO_METADATA
        put = partial(self._images.put, image.key, drawn.checked, overwrite=False, metadata=metadata)
        return StoredGeneration(store_patiently(put, deadline), drawn.model, drawn.seed, image.time)


@contextmanager
def _paid_for(drawn: Sized) -> Iterator[None]:
    """Who is told to be too many comes again: only where nothing is drawn yet may that be said."""
    try:
        yield
    except GeneratorBusy as exc:
        if drawn:
            raise GeneratorUnreachable(detail=f"{exc}, after {len(drawn)} of the images were drawn") from exc
        raise


def _asked(order: PromptRequest, drawn: Drawn, now: datetime) -> PromptMetadata:
    size = f"{order.width}x{order.height}"
    return PromptMetadata(order.prompt, order.negative_prompt, drawn.model, drawn.seed, size, now)


def _seen_before(generation: StoredGeneration) -> StoredGeneration:
    return replace(generation, image=replace(generation.image, created=False))
