"""Orders: nothing is left behind by a failure, and those who wait are bounded."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from flask import Flask

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import GeneratorBusy, GeneratorUnreachable, InvalidKey, PromptRefused
from app.generators.base import GenerationRequest
from app.services.drawing import Drawn, PromptRequest
from app.services.generation import GenerationService
from tests.services.generators import NAME

CAT = PromptRequest("a cat", 64, 64)


@pytest.fixture
def config(config: Config) -> Config:
    """With the generator that obeys."""
    return replace(config, generator=NAME)


@pytest.fixture
def generation(app: Flask) -> GenerationService:
    """The service of an application."""
    return components_of(app).generation


def test_images_have_seeds_of_their_own(generation: GenerationService) -> None:
    drawn = generation.generate(replace(CAT, seed=2**32 - 1, count=3))
    assert [image.seed for image in drawn] == [2**32 - 1, 0, 1]
    assert len({image.image.key for image in drawn}) == 3


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (replace(CAT, prompt="refuse", count=3), PromptRefused),
        (replace(CAT, prompt="fail"), GeneratorUnreachable),
        (replace(CAT, folder="../up"), InvalidKey),
    ],
)
def test_a_failure_stores_nothing(
    generation: GenerationService, app: Flask, order: PromptRequest, error: type[Exception]
) -> None:
    for key in (None, "digest"):
        with pytest.raises(error):
            generation.generate(order, key)
    assert components_of(app).store.list().objects == ()


def test_who_has_paid_for_some_images_is_not_told_to_come_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    flask = create_app(replace(config, generate_concurrency=1))
    generation = components_of(flask).generation
    draw, calls = generation._drawing.draw, itertools.count()

    def draw_once(requests: Sequence[GenerationRequest], ready: Callable[[int, Drawn], None]) -> list[Drawn]:
        if next(calls):
            raise GeneratorBusy
        return draw(requests, ready)

    monkeypatch.setattr(generation._drawing, "draw", draw_once)
    with pytest.raises(GeneratorUnreachable):
        generation.generate(replace(CAT, count=2))
    with pytest.raises(GeneratorBusy):
        generation.generate(CAT)
    components_of(flask).cache.close()


def test_those_who_wait_are_bounded(config: Config) -> None:
    flask = create_app(replace(config, generate_concurrency=1))
    generation = components_of(flask).generation
    places = 0
    while generation._free.acquire(blocking=False):
        places += 1
    assert places == 65
    with pytest.raises(GeneratorBusy):
        generation.generate(CAT)
    generation._free.release()
    assert generation.generate(CAT)[0].model == "test/obedient-1:0"
    components_of(flask).cache.close()


def test_one_instance_makes_no_directory_before_it_is_needed(config: Config) -> None:
    components_of(create_app(config)).cache.close()
    assert not config.state_dir.exists()
