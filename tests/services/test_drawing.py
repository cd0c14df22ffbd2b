"""A generator is given up on at its deadline, and calls that never end stay bounded."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from app.core.errors import GeneratorBusy, GeneratorError, GeneratorTimeout
from app.core.limiters import DecodeLimiter
from app.core.objects import FORMATS
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.imaging.survey import ImageLimits
from app.services.drawing import GeneratorRunner
from tests.waiting import wait_until

LIMITS = ImageLimits(tuple(FORMATS), 1_000_000, 10, strip_metadata=True)
REQUEST = GenerationRequest("a cat", 8, 6, seed=1)


class Stalling(BaseGenerator):
    """Draws once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked: list[GenerationRequest] = []

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.asked)

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Wait for that."""
        self.asked.append(request)
        self.may.wait(120)
        return GeneratedImage(Image.new("RGB", (8, 6)), "stalling")


def test_images_are_drawn_side_by_side() -> None:
    generator = Stalling()
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(
            GeneratorRunner(generator, LIMITS, DecodeLimiter(4, 30), 60).draw, [REQUEST] * 3
        )
        wait_until(lambda: generator.calls == 3)
        generator.may.set()
        drawn = drawing.result(60)
    assert generator.calls == 3
    assert [(image.checked.width, image.model, image.seed) for image in drawn] == [(8, "stalling", None)] * 3


def test_the_deadline_is_kept() -> None:
    generator = Stalling()
    began = time.monotonic()
    with pytest.raises(GeneratorTimeout):
        GeneratorRunner(generator, LIMITS, DecodeLimiter(4, 5), 0.2).draw([REQUEST])
    assert time.monotonic() - began < 30
    generator.may.set()


def test_a_mistake_in_a_generator_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class Mistaken(BaseGenerator):
        def generate(self, request: GenerationRequest) -> GeneratedImage:
            raise KeyError("no such colour")

    with pytest.raises(GeneratorError):
        GeneratorRunner(Mistaken(), LIMITS, DecodeLimiter(4, 30), 60).draw([REQUEST])
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_what_is_drawn_waits_for_its_turn_to_be_decoded_until_the_deadline() -> None:
    generator, gate = Stalling(), DecodeLimiter(1, 0.05)
    generator.may.set()
    with ThreadPoolExecutor(1) as pool:
        with gate.passed():
            drawing = pool.submit(GeneratorRunner(generator, LIMITS, gate, 60).draw, [REQUEST])
            wait_until(lambda: generator.calls)
            time.sleep(0.5)
        assert drawing.result(60)[0].model == "stalling"
    with gate.passed(), pytest.raises(GeneratorTimeout):
        GeneratorRunner(generator, LIMITS, gate, 0.2).draw([REQUEST])


def test_calls_that_do_not_end_are_bounded() -> None:
    generator = Stalling()
    drawing = GeneratorRunner(generator, LIMITS, DecodeLimiter(4, 5), 0.01)
    for _ in range(128):
        with pytest.raises(GeneratorTimeout):
            drawing.draw([REQUEST])
    with pytest.raises(GeneratorBusy):
        drawing.draw([REQUEST])
    wait_until(lambda: generator.calls >= 128)
    assert generator.calls == 128
    generator.may.set()
    wait_until(lambda: not _is_busy(drawing))


def test_of_images_that_have_no_room_together_none_is_begun() -> None:
    generator = Stalling()
    drawing = GeneratorRunner(generator, LIMITS, DecodeLimiter(4, 5), 0.01)
    for _ in range(63):
        with pytest.raises(GeneratorTimeout):
            drawing.draw([REQUEST] * 2)
    for _ in range(2):
        with pytest.raises(GeneratorBusy):
            drawing.draw([REQUEST] * 3)
    with pytest.raises(GeneratorTimeout):
        drawing.draw([REQUEST] * 2)
    wait_until(lambda: generator.calls >= 128)
    assert generator.calls == 128
    generator.may.set()


def _is_busy(drawing: GeneratorRunner) -> bool:
    try:
        drawing.draw([REQUEST])
    except GeneratorBusy:
        return True
    except GeneratorTimeout:
        pass
    return False
