"""Tests of generation, of failures that store nothing, and of the limit on waiting requests."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from flask import Flask

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import (
    GeneratorBusy,
    GeneratorUnreachable,
    InvalidKey,
    PromptRefused,
    StoreUnreachable,
)
from app.core.objects import FORMATS
from app.generators.base import GenerationRequest
from app.imaging.check import CheckedImage
from app.services.drawing import DrawnImage, PromptRequest
from app.services.generation import GenerationService
from app.services.unstored import UnstoredImage
from tests.services.generators import NAME

CAT = PromptRequest("a cat", 64, 64)


@pytest.fixture
def config(config: Config) -> Config:
    """Return settings with the scripted generator."""
    return replace(config, generator=NAME)


@pytest.fixture
def generation(app: Flask) -> GenerationService:
    """Return the generation service of an application."""
    return components_of(app).generation


def test_each_image_has_its_own_seed_and_key(generation: GenerationService) -> None:
    drawn = generation.generate(replace(CAT, seed=2**32 - 1, count=3))
    assert [image.seed for image in drawn] == [2**32 - 1, 0, 1]
    assert len({image.image.key for image in drawn}) == 3


@pytest.mark.parametrize(
    ("prompt_request", "error"),
    [
        (replace(CAT, prompt="refuse", count=3), PromptRefused),
        (replace(CAT, prompt="fail"), GeneratorUnreachable),
        (replace(CAT, folder="../up"), InvalidKey),
    ],
    ids=["refused", "failed", "bad folder"],
)
def test_a_failure_stores_nothing(
    generation: GenerationService, app: Flask, prompt_request: PromptRequest, error: type[Exception]
) -> None:
    for key in (None, "digest"):
        with pytest.raises(error):
            generation.generate(prompt_request, key)
    assert components_of(app).store.list().objects == ()


def test_a_client_is_not_told_to_retry_once_an_image_is_paid_for(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    flask = create_app(replace(config, generate_concurrency=1))
    generation = components_of(flask).generation
    draw, calls = generation._runner.draw, itertools.count()

    def draw_once(
        requests: Sequence[tuple[int, GenerationRequest]],
        deadline: float,
        on_drawn: Callable[[int, DrawnImage], None],
    ) -> None:
        if next(calls):
            raise GeneratorBusy
        draw(requests, deadline, on_drawn)

    monkeypatch.setattr(generation._runner, "draw", draw_once)
    with pytest.raises(GeneratorUnreachable):
        generation.generate(replace(CAT, count=2))
    with pytest.raises(GeneratorBusy):
        generation.generate(CAT)
    components_of(flask).cache.close()


def test_the_number_of_waiting_requests_is_limited(config: Config) -> None:
    flask = create_app(replace(config, generate_concurrency=1))
    generation = components_of(flask).generation
    admitted = 0
    while generation._admitted.acquire(blocking=False):
        admitted += 1
    assert admitted == 65
    with pytest.raises(GeneratorBusy):
        generation.generate(CAT)
    generation._admitted.release()
    assert generation.generate(CAT)[0].model == "test/scripted-1:0"
    components_of(flask).cache.close()


def test_the_store_is_not_tried_again_after_the_deadline(
    generation: GenerationService, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = []

    def fail(key: str, *_: object, **__: object) -> None:
        puts.append(key)
        raise StoreUnreachable

    monkeypatch.setattr(components_of(app).store, "put", fail)
    drawn = DrawnImage(CheckedImage(b"bytes", FORMATS["png"], 64, 64, 1), "model", None)
    with pytest.raises(StoreUnreachable):
        generation._store(CAT, UnstoredImage("a.png", drawn, datetime.now(UTC)), time.monotonic())
    assert puts == ["a.png"]


def test_the_state_directory_is_not_created_before_it_is_needed(config: Config) -> None:
    components_of(create_app(config)).cache.close()
    assert not config.state_dir.exists()
