"""Generate images from a prompt and store them, with limits on concurrency and time.

A request waits for its idempotency key and for slots. Then it calls the generator, keeps the images on disk,
and stores them. An image costs money as soon as it is generated, so later failures should not lose it. If
the store is unavailable, the put is retried. If the request has an idempotency key, the images are kept on
disk until they are in the store.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
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
    AppError,
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
from app.core.threads import blocking
from app.generators.base import GenerationRequest, ModelFacts
from app.services.drawing import DrawnImage, GeneratorRunner, PromptRequest, StoredGeneration
from app.services.idempotency import IdempotencyKeys, IdempotencyRecord, IdempotencyRecords
from app.services.images import ImageService
from app.services.slots import Slots
from app.services.unstored import UnstoredImage, UnstoredImages

_MAX_WAITING = 64
"""Maximum number of requests per process that wait for a slot or for another request with the same key."""

_MAX_PUTS = 4

_KEY_WAIT_EXTRA_SECONDS = 10.0
"""How much longer than its own generation deadline a request waits for another request with the same key."""

_put_backoff = wait_exponential_jitter(multiplier=0.5, jitter=0.5, max=5)
_log = logging.getLogger(__name__)


class GenerationService:
    """Generates images and stores them. All threads of a worker process share one instance.

    On one machine, at most `concurrency` images are generated at the same time. Each may take at most
    `timeout` seconds. The worker processes share slots, idempotency records and unstored images in
    `state_dir`. With `keep_prompts`, the prompt, the model, the seed, the size and the time are stored as
    metadata of the image.
    """

    def __init__(
        self,
        images: ImageService,
        runner: GeneratorRunner,
        state_dir: Path,
        *,
        concurrency: int,
        timeout: float,
        keep_prompts: bool,
    ) -> None:
        self._images = images
        self._runner = runner
        self._timeout = timeout
        self._keep_prompts = keep_prompts
        self._slots = Slots(state_dir / "slots", concurrency)
        self._keys = IdempotencyKeys(state_dir / "under-way", IdempotencyRecords(state_dir / "outcomes.db"))
        self._unstored = UnstoredImages(state_dir / "unstored")
        self._unstored.remove_expired()  # at startup, so that private images are not kept too long
        self._admitted = threading.BoundedSemaphore(concurrency + _MAX_WAITING)

    def model_name(self) -> str:
        """Return the ID of the model."""
        return self._runner.model_name()

    def describe_model(self) -> ModelFacts | None:
        """Return what the provider says about the model, or None if the generator has no provider.

        Raises the errors of `BaseGenerator.describe_model`.
        """
        return self._runner.describe_model()

    def generate(self, request: PromptRequest, idempotency_key: str | None = None) -> list[StoredGeneration]:
        """Generate the images and store each of them under a new, unguessable key.

        No image is stored before all images have been generated. `idempotency_key` is a digest. If a request
        with this key succeeded within the last day, return the images of that request and generate nothing.
        If that request ended with `PromptRefused`, raise the error again. Requests with the same key run one
        after another.

        Raises `InvalidKey`, `TooManyPixels`, `PromptRefused`, `GeneratorError` and its subclasses,
        `GeneratorBusy`, `IdempotencyKeyReused`, `IdempotencyKeyInUse`, `StateUnavailable`, and the errors of
        stores.
        """
        generated_key(datetime.now(UTC), FORMATS[request.image_format], request.folder)  # checks the folder
        self._runner.check_size(request.width, request.height)
        if not self._admitted.acquire(blocking=False):
            raise GeneratorBusy
        try:
            with blocking():
                if idempotency_key is None:
                    return self._draw_and_store(request, _PendingImages(request, self._unstored))
                return self._generate_once(request, idempotency_key)
        finally:
            self._admitted.release()

    def _deadline(self, rounds: int) -> float:
        """Return the time (of `time.monotonic`) by which `rounds` successive calls must have ended."""
        return time.monotonic() + self._timeout * rounds

    def _generate_once(self, request: PromptRequest, key: str) -> list[StoredGeneration]:
        digest = request.digest()
        deadline = self._deadline(request.count) + _KEY_WAIT_EXTRA_SECONDS
        with self._keys.claim(key, digest, deadline) as earlier:
            if earlier is not None:
                return earlier.generations(self._images.urls)
            name_on_disk = hashlib.sha256(f"{key} {digest}".encode()).hexdigest()
            images = _PendingImages(request, self._unstored, name_on_disk)
            try:
                generations = self._draw_and_store(request, images)
            except AppError as exc:
                is_final = isinstance(exc, PromptRefused)
                if self._keys.save(key, IdempotencyRecord.from_error(digest, exc, is_final)) and is_final:
                    images.remove_from_disk()
                raise
            if self._keys.save(key, IdempotencyRecord.from_images(digest, generations)):
                images.remove_from_disk()
            return generations

    def _draw_and_store(self, request: PromptRequest, images: "_PendingImages") -> list[StoredGeneration]:
        """Generate the images that are not on disk, then store all images. Store none if generating fails."""
        self._unstored.remove_expired()
        missing = images.missing()
        deadline = self._deadline(1)
        if missing:
            with self._slots.take(len(missing)) as slots:
                deadline = self._deadline(math.ceil(len(missing) / slots))
                for first in range(0, len(missing), slots):
                    self._draw(missing[first : first + slots], images)
        try:
            return [self._store(request, image, deadline) for image in images.in_order()]
        except StoreError:
            if not images.are_on_disk:
                _log.warning("Generated images were not stored. Without an Idempotency-Key they are lost.")
            raise

    def _draw(self, requests: Sequence[tuple[int, GenerationRequest]], images: "_PendingImages") -> None:
        try:
            self._runner.draw(requests, self._deadline(1), images.add)
        except GeneratorBusy as exc:
            if len(images):  # clients may retry after 429, and would pay twice for these images
                raise GeneratorUnreachable(detail=f"{exc}, after {len(images)} images were drawn") from exc
            raise

    def _store(self, request: PromptRequest, image: UnstoredImage, deadline: float) -> StoredGeneration:
        """Store an image. If the store is unavailable, retry until `deadline`.

        No other request uses the key of this image. So if the store already contains an object with this key,
        an earlier put of the image succeeded but its response was lost.
        """
        drawn = image.drawn
        metadata = NO_METADATA
        if self._keep_prompts:
            size = f"{request.width}x{request.height}"
            metadata = PromptMetadata(
                request.prompt, request.negative_prompt, drawn.model, drawn.seed, size, image.time
            ).to_metadata()
        attempts = Retrying(
            stop=stop_after_attempt(_MAX_PUTS) | stop_before_delay(max(0.0, deadline - time.monotonic())),
            wait=_put_backoff,
            retry=retry_if_exception_type((StoreUnreachable, StoreTimeout)),
            before_sleep=_log_failed_put,
            reraise=True,
        )
        stored = attempts(self._images.put, image.key, drawn.checked, metadata=metadata)
        return StoredGeneration(stored, drawn.model, drawn.seed, image.time)


class _PendingImages:
    """The images of one request that have been generated but are not stored yet.

    The images are numbered from 0. With `name_on_disk`, the images are
    kept in `unstored` under this name, and images that `unstored` already contains are not generated again.
    """

    def __init__(
        self, request: PromptRequest, unstored: UnstoredImages, name_on_disk: str | None = None
    ) -> None:
        self._request = request
        self._unstored = unstored
        self._name = name_on_disk
        self._images = unstored.read(name_on_disk, request.count) if name_on_disk else {}

    def __len__(self) -> int:
        return len(self._images)

    @property
    def are_on_disk(self) -> bool:
        """Return whether the images are also kept on disk."""
        return self._name is not None

    def missing(self) -> list[tuple[int, GenerationRequest]]:
        """Return a list of tuples: the number and the request of each image that is still to be generated."""
        requests = enumerate(self._request.generation_requests())
        return [(number, request) for number, request in requests if number not in self._images]

    def add(self, number: int, drawn: DrawnImage) -> None:
        """Add an image that was just generated. Generator threads call this, even after the deadline."""
        now = datetime.now(UTC)
        key = generated_key(now, drawn.checked.format, self._request.folder)
        image = UnstoredImage(key, drawn, now)
        if self._name:
            self._unstored.write(self._name, number, image)
        self._images[number] = image

    def in_order(self) -> list[UnstoredImage]:
        """Return all images of the request. Call this only when no image is missing."""
        return [self._images[number] for number in range(self._request.count)]

    def remove_from_disk(self) -> None:
        """Remove the images from disk. Call this when the request will not need them again."""
        if self._name:
            self._unstored.remove(self._name, self._request.count)


def _log_failed_put(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    _log.warning(
        "A generated image could not be stored (attempt %d of %d): %s",
        state.attempt_number,
        _MAX_PUTS,
        error,
    )
