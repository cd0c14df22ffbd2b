"""Tests of calls to the generator, of their deadline, and of the limit on calls that never end."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from app.core.errors import GeneratorBusy, GeneratorError, GeneratorTimeout
from app.core.objects import FORMATS
from app.core.threads import DecodeLimiter
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.imaging.survey import ImageLimits
from app.services.drawing import DrawnImage, GeneratorRunner
from tests.waiting import wait_until

LIMITS = ImageLimits(tuple(FORMATS), 1_000_000, 10, strip_metadata=True)
REQUEST = GenerationRequest("a cat", 8, 6, seed=1)


class StallingGenerator(BaseGenerator):
    """Draws once `may_draw` is set."""

    def __init__(self) -> None:
        self.may_draw = threading.Event()
        self.requests: list[GenerationRequest] = []

    @property
    def calls(self) -> int:
        """The number of calls."""
        return len(self.requests)

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Wait, then draw."""
        self.requests.append(request)
        self.may_draw.wait(120)
        return GeneratedImage(Image.new("RGB", (8, 6)), "stalling")


@pytest.fixture
def generator() -> StallingGenerator:
    """Return a generator that is not allowed to draw yet."""
    return StallingGenerator()


def _runner(generator: BaseGenerator, decoding: DecodeLimiter | None = None) -> GeneratorRunner:
    return GeneratorRunner(generator, LIMITS, decoding or DecodeLimiter(4, 30))


def _draw(runner: GeneratorRunner, *, seconds: float = 60, count: int = 1) -> list[DrawnImage]:
    drawn: dict[int, DrawnImage] = {}
    requests = [(number, REQUEST) for number in range(count)]
    runner.draw(requests, time.monotonic() + seconds, drawn.__setitem__)
    return [drawn[number] for number in range(count)]


def test_images_are_drawn_at_the_same_time(generator: StallingGenerator) -> None:
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(_draw, _runner(generator), count=3)
        wait_until(lambda: generator.calls == 3)
        generator.may_draw.set()
        drawn = drawing.result(60)
    assert generator.calls == 3
    assert [(image.checked.width, image.model, image.seed) for image in drawn] == [(8, "stalling", None)] * 3


def test_a_generator_that_misses_its_deadline_is_abandoned(generator: StallingGenerator) -> None:
    began = time.monotonic()
    with pytest.raises(GeneratorTimeout):
        _draw(_runner(generator), seconds=0.2)
    assert time.monotonic() - began < 30
    generator.may_draw.set()


def test_an_image_drawn_after_the_deadline_is_not_lost(generator: StallingGenerator) -> None:
    drawn: dict[int, DrawnImage] = {}
    with pytest.raises(GeneratorTimeout):
        _runner(generator).draw([(7, REQUEST)], time.monotonic() + 0.05, drawn.__setitem__)
    assert not drawn
    generator.may_draw.set()
    wait_until(lambda: list(drawn) == [7])


def test_a_bug_in_a_generator_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class BuggyGenerator(BaseGenerator):
        def generate(self, request: GenerationRequest) -> GeneratedImage:
            raise KeyError("no such colour")

    with pytest.raises(GeneratorError):
        _draw(_runner(BuggyGenerator()))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_a_drawn_image_waits_for_decoding_until_the_deadline(generator: StallingGenerator) -> None:
    decoding = DecodeLimiter(1, 0.05)
    runner = _runner(generator, decoding)
    generator.may_draw.set()
    with ThreadPoolExecutor(1) as pool:
        with decoding.slot():
            drawing = pool.submit(_draw, runner)
            wait_until(lambda: generator.calls)
            time.sleep(0.5)
        assert drawing.result(60)[0].model == "stalling"
    with decoding.slot(), pytest.raises(GeneratorTimeout):
        _draw(runner, seconds=0.2)


def test_the_number_of_calls_that_never_end_is_limited(generator: StallingGenerator) -> None:
    runner = _runner(generator)
    for _ in range(128):
        with pytest.raises(GeneratorTimeout):
            _draw(runner, seconds=0.01)
    with pytest.raises(GeneratorBusy):
        _draw(runner, seconds=0.01)
    wait_until(lambda: generator.calls >= 128)
    assert generator.calls == 128
    generator.may_draw.set()
    wait_until(lambda: not _is_busy(runner))


def test_no_call_starts_if_there_are_too_few_for_all_images_of_a_request(
    generator: StallingGenerator,
) -> None:
    runner = _runner(generator)
    for _ in range(63):
        with pytest.raises(GeneratorTimeout):
            _draw(runner, seconds=0.01, count=2)
    for _ in range(2):
        with pytest.raises(GeneratorBusy):
            _draw(runner, seconds=0.01, count=3)
    with pytest.raises(GeneratorTimeout):
        _draw(runner, seconds=0.01, count=2)
    wait_until(lambda: generator.calls >= 128)
    assert generator.calls == 128
    generator.may_draw.set()


def _is_busy(runner: GeneratorRunner) -> bool:
    try:
        _draw(runner, seconds=0.01)
    except GeneratorBusy:
        return True
    except GeneratorTimeout:
        pass
    return False
