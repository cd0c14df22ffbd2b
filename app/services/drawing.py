"""Having a generator draw, within its time, and checking what it gives.

What a client orders, and what it gets.
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
from functools import partial

from app.core.errors import (
    AppError,
    Busy,
    GeneratorBusy,
    GeneratorError,
    GeneratorTimeout,
    UndecodableImage,
    UnsupportedImage,
)
from app.core.limiters import DecodeLimiter
from app.core.objects import FORMATS
from app.generators.base import BaseGenerator, GenerationRequest, ModelFacts
from app.imaging.check import CheckedImage
from app.imaging.encode import encode_image
from app.imaging.sandbox.client import check_in_sandbox
from app.imaging.survey import ImageLimits
from app.services.images import StoredImage

MOST_SIDE = 2048
"""Pixels of a side of the largest image that can be ordered."""

_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """Images to draw. Sizes are in pixels; `image_format` is a name in `FORMATS`; None as seed means any."""

    prompt: str
    width: int = 1024
    height: int = 1024
    image_format: str = "png"
    folder: str | None = None
    seed: int | None = None
    negative_prompt: str = ""
    count: int = 1

    def requests(self) -> list[GenerationRequest]:
        """What each image asks of the generator: a seed of its own, counted up from the one given."""
        first = secrets.randbelow(_SEEDS) if self.seed is None else self.seed
        request = GenerationRequest(
            self.prompt, self.width, self.height, first, self.negative_prompt, self.image_format
        )
        return [replace(request, seed=(first + number) % _SEEDS) for number in range(self.count)]

    def digest(self, *more: str) -> str:
        """The same text for the same order, and `more` that goes with it."""
        text = json.dumps([asdict(self), *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """A generated image in the store, what drew it, and when; `seed` is None where the model has none."""

    image: StoredImage
    model: str
    seed: int | None
    time: datetime


_log = logging.getLogger(__name__)

_MOST_THREADS = 128
"""Calls under way in a process, those included that went on past their time."""

_LATE_SECONDS = 30.0
"""For how long an image that was drawn at the last moment, or too late, may wait to be decoded."""

_MOST_PIXELS = MOST_SIDE**2
"""Of an image drawn, however few uploads may have: some models draw more than they are asked for."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image fit to be stored, and what drew it."""

    checked: CheckedImage
    model: str
    seed: int | None


def _ignore(number: int, drawn: Drawn) -> None:
    pass


class GeneratorRunner:
    """Calls the generator, and gives up on it after `seconds`.

    It is somebody else's code, which nothing can stop: a call runs on a thread of its own, so that past the
    deadline only that thread is lost. `decoding` bounds how many images are encoded and checked at once.

    `limits` are those of uploads. What may be ordered is held to their pixels. What was drawn is paid for: it
    may be of any format that we know, and of the largest size that can be ordered.
    """

    def __init__(
        self, generator: BaseGenerator, limits: ImageLimits, decoding: DecodeLimiter, seconds: float
    ) -> None:
        self._generator = generator
        self._limits = limits
        self._limits_of_drawn = replace(
            limits, formats=tuple(FORMATS), max_pixels=max(limits.max_pixels, _MOST_PIXELS)
        )
        self._decoding = decoding
        self._seconds = seconds
        self._free = threading.BoundedSemaphore(_MOST_THREADS)

    @property
    def seconds(self) -> float:
        """How long one image may take."""
        return self._seconds

    def model_name(self) -> str:
        """What draws."""
        return self._generator.model_name()

    def describe_model(self) -> ModelFacts | None:
        """What its provider says of it, as the generator tells it."""
        return self._generator.describe_model()

    def check_size(self, width: int, height: int) -> None:
        """Let an order of this size, in pixels, pass, or raise `TooManyPixels`."""
        self._limits.check((width, height), 1)

    def draw(
        self, requests: Sequence[GenerationRequest], ready: Callable[[int, Drawn], None] = _ignore
    ) -> list[Drawn]:
        """Return the images for `requests`, drawn side by side.

        `ready` is called with each image and the index of its request as soon as it is drawn, from the
        thread that drew it; also if other images fail, and after the deadline, when this has raised.

        Raises `PromptRefused`, `GeneratorError` and its kin; `GeneratorBusy` if too many calls hang, and
        then none is begun.
        """
        self._take_places(len(requests))
        deadline = time.monotonic() + self._seconds

        def draw_one(number: int, request: GenerationRequest) -> Drawn:
            drawn = self._draw(request, deadline)
            ready(number, drawn)
            return drawn

        futures = [self._begin(partial(draw_one, *pair)) for pair in enumerate(requests)]
        if wait(futures, self._seconds).not_done:
            raise GeneratorTimeout(detail=f"no image after {self._seconds:g} s")
        return [future.result() for future in futures]

    def _take_places(self, count: int) -> None:
        """All or none: each image that is begun is paid for."""
        for taken in range(count):
            if not self._free.acquire(blocking=False):
                for _ in range(taken):
                    self._free.release()
                raise GeneratorBusy(detail=f"{_MOST_THREADS} calls of the generator have not ended")

    def _begin(self, call: Callable[[], Drawn]) -> Future[Drawn]:
        future: Future[Drawn] = Future()
        context = copy_context()  # so that what is logged there has the request's id
        arguments = (self._run, future, call)
        threading.Thread(target=context.run, args=arguments, daemon=True, name="generation").start()
        return future

    def _run(self, future: Future[Drawn], call: Callable[[], Drawn]) -> None:
        try:
            future.set_result(call())
        except BaseException as exc:
            future.set_exception(exc)
        finally:
            self._free.release()

    def _draw(self, request: GenerationRequest, deadline: float) -> Drawn:
        """Whatever a generator raises or returns becomes one of our errors.

        What it returns is paid for, and waits for its turn to be decoded as long as there is time, and a
        little longer: the request is answered then, but the image may be kept for the next one.
        """
        try:
            given = self._generator.generate(request)
            image = given.image
            with self._decoding.passed(max(_LATE_SECONDS, deadline - time.monotonic())):
                data = (
                    image if isinstance(image, bytes) else encode_image(image, FORMATS[request.image_format])
                )
                return Drawn(check_in_sandbox(data, self._limits_of_drawn), given.model, given.seed)
        except Busy as exc:
            raise GeneratorTimeout(detail="no turn to decode what was drawn") from exc
        except (UnsupportedImage, UndecodableImage) as exc:
            raise GeneratorError(detail=f"the generator's image: {exc}") from exc
        except AppError:
            raise
        except Exception as exc:
            _log.exception("The generator failed")  # a mistake in its code, which only a traceback shows
            raise GeneratorError(detail=f"{type(exc).__name__}: {exc}") from exc
