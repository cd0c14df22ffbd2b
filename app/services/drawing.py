"""Requests for generated images, and calls to the image generator, which have a deadline.

Here, to draw an image means to generate it and to check the result.
"""

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from app.core.errors import (
    AppError,
    Busy,
    GeneratorBusy,
    GeneratorError,
    GeneratorTimeout,
    UndecodableImage,
    UnsupportedImage,
)
from app.core.objects import FORMATS
from app.core.threads import DecodeLimiter
from app.generators.base import BaseGenerator, GenerationRequest, ModelFacts
from app.imaging.check import CheckedImage
from app.imaging.encode import encode_image
from app.imaging.sandbox.client import check_in_sandbox
from app.imaging.survey import ImageLimits
from app.services.images import StoredImage

MAX_SIDE_PIXELS = 2048
"""Maximum width and height of a requested image."""

_MAX_DRAWN_PIXELS = MAX_SIDE_PIXELS**2
"""Minimum of the pixel limit for generated images. The limit for uploads may be lower, but some models draw
larger images than requested."""

_SEED_COUNT = 2**32

_MAX_CALLS = 128
"""Maximum number of concurrent generator calls per process, including calls that missed their deadline."""

_LATE_DECODE_SECONDS = 30.0
"""How many seconds a generated image may wait to be decoded, even if the deadline passes in the meantime."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A client's request for generated images.

    Sizes are in pixels. `image_format` is a name in `FORMATS`. If `seed` is None, a random seed is chosen.
    """

    prompt: str
    width: int = 1024
    height: int = 1024
    image_format: str = "png"
    folder: str | None = None
    seed: int | None = None
    negative_prompt: str = ""
    count: int = 1

    def generation_requests(self) -> list[GenerationRequest]:
        """Return a list with one request to the generator per image. Their seeds are consecutive numbers."""
        first = secrets.randbelow(_SEED_COUNT) if self.seed is None else self.seed
        request = GenerationRequest(
            self.prompt, self.width, self.height, first, self.negative_prompt, self.image_format
        )
        return [replace(request, seed=(first + number) % _SEED_COUNT) for number in range(self.count)]

    def digest(self) -> str:
        """Return a hex digest of this request. Equal requests have equal digests.

        Idempotency records on disk contain the digest.
        """
        return hashlib.sha256(json.dumps([asdict(self)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """A generated image that has been checked and can be stored. `seed` is None if the model has no seeds."""

    checked: CheckedImage
    model: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """A generated image in the store. `time` is when the image was drawn.

    `seed` is None if the model has no seeds.
    """

    image: StoredImage
    model: str
    seed: int | None
    time: datetime


class GeneratorRunner:
    """Calls the image generator and checks the images that it returns.

    Each call runs on its own thread, since a call can't be stopped. A call that misses its deadline occupies
    only that thread.

    `limits` are the limits for uploads. The size that a client requests must not exceed the pixel limit. A
    generated image has already been paid for, so its limits are wider: it may have any known format, and any
    size up to the largest that can be requested. `decoding` limits how many images are encoded and checked at
    the same time.
    """

    def __init__(self, generator: BaseGenerator, limits: ImageLimits, decoding: DecodeLimiter) -> None:
        self._generator = generator
        self._limits = limits
        self._limits_of_drawn = replace(
            limits, formats=tuple(FORMATS), max_pixels=max(limits.max_pixels, _MAX_DRAWN_PIXELS)
        )
        self._decoding = decoding
        self._free_calls = threading.BoundedSemaphore(_MAX_CALLS)

    def model_name(self) -> str:
        """Return the ID of the model."""
        return self._generator.model_name()

    def describe_model(self) -> ModelFacts | None:
        """Return what the provider says about the model, or None if the generator has no provider.

        Raises the errors of `BaseGenerator.describe_model`.
        """
        return self._generator.describe_model()

    def check_size(self, width: int, height: int) -> None:
        """Raise `TooManyPixels` if an image of this size, in pixels, must not be requested."""
        self._limits.check((width, height), 1)

    def draw(
        self,
        requests: Sequence[tuple[int, GenerationRequest]],
        deadline: float,
        on_drawn: Callable[[int, DrawnImage], None],
    ) -> None:
        """Draw an image for each of the numbered `requests`, concurrently.

        Each image is passed to `on_drawn` with its number, on the thread that drew it. So an image is not
        lost if a different image fails, or if it is finished after `deadline`, a time of `time.monotonic`.

        Raises `PromptRefused`, and `GeneratorError` or one of its subclasses (`GeneratorTimeout` at
        `deadline`). If too many calls are in progress, raises `GeneratorBusy` and starts no call.
        """
        self._reserve_calls(len(requests))
        futures = [self._start(number, request, deadline, on_drawn) for number, request in requests]
        if wait(futures, max(0.0, deadline - time.monotonic())).not_done:
            raise GeneratorTimeout(detail="no image within GENERATOR_TIMEOUT")
        for future in futures:
            future.result()

    def _reserve_calls(self, count: int) -> None:
        """Reserve all `count` calls, or none. Raises `GeneratorBusy` if fewer than `count` are free.

        Each call that is started costs money, so no call must be started if the request fails anyway.
        """
        for reserved in range(count):
            if not self._free_calls.acquire(blocking=False):
                for _ in range(reserved):
                    self._free_calls.release()
                raise GeneratorBusy(detail=f"{_MAX_CALLS} calls of the generator have not ended")

    def _start(
        self,
        number: int,
        request: GenerationRequest,
        deadline: float,
        on_drawn: Callable[[int, DrawnImage], None],
    ) -> Future[None]:
        future: Future[None] = Future()

        def run() -> None:
            try:
                on_drawn(number, self._draw_one(request, deadline))
                future.set_result(None)
            except BaseException as exc:
                future.set_exception(exc)
            finally:
                self._free_calls.release()

        context = copy_context()  # so that log lines of the thread have the ID of the request
        threading.Thread(target=context.run, args=(run,), daemon=True, name="generation").start()
        return future

    def _draw_one(self, request: GenerationRequest, deadline: float) -> DrawnImage:
        """Call the generator and check its image. Every failure is raised as an `AppError`.

        The image has been paid for, so it may wait to be decoded even beyond the deadline. By then the
        request has failed, but the image can be kept in case the client sends the request again.
        """
        try:
            generated = self._generator.generate(request)
            with self._decoding.slot(max(_LATE_DECODE_SECONDS, deadline - time.monotonic())):
                data = generated.image
                if not isinstance(data, bytes):
                    data = encode_image(data, FORMATS[request.image_format])
                checked = check_in_sandbox(data, self._limits_of_drawn)
            return DrawnImage(checked, generated.model, generated.seed)
        except Busy as exc:
            raise GeneratorTimeout(detail="the generated image was not decoded in time") from exc
        except (UnsupportedImage, UndecodableImage) as exc:
            raise GeneratorError(detail=f"the generator's image: {exc}") from exc
        except AppError:
            raise
        except Exception as exc:
            _log.exception("The generator failed")  # probably a bug in its code, so log the traceback
            raise GeneratorError(detail=f"{type(exc).__name__}: {exc}") from exc
