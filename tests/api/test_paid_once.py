"""What a failure costs: the model is asked once, whatever fails behind it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from flask.testing import FlaskClient

from app import create_app
from app.config import Config
from app.errors import Busy, GeneratorBusy, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from tests.conftest import parts_of
from tests.generation.generators import NAME
from tests.live import live


@pytest.fixture
def plain(config: Config) -> Iterator[FlaskClient]:
    """A client of a server whose generator obeys."""
    flask = create_app(replace(config, generator=NAME))
    yield flask.test_client()
    parts_of(flask).cache.close()


@contextmanager
def _openai(plain: FlaskClient) -> Iterator[openai.OpenAI]:
    """OpenAI's client as a user has it: it tries again by itself where it may."""
    with live(plain.application) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        yield client


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Tells how often the model was asked."""
    path = tmp_path / "drawn"
    path.touch()
    monkeypatch.setenv("DRAWN", str(path))
    return lambda: len(path.read_text().splitlines())


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("prompt", "error", "status"),
    [
        ("fail", None, 503),
        ("a cat", StoreUnreachable(), 503),
        ("a cat", StoreTimeout(), 504),
        ("a cat", StoreRefused(), 502),
        ("a cat", StoreError(), 502),
        pytest.param("a cat", ZeroDivisionError(), 500, marks=pytest.mark.crashes),
    ],
)
def test_a_call_that_fails_is_paid_once(
    plain: FlaskClient,
    drawn: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    prompt: str,
    error: Exception | None,
    status: int,
) -> None:
    if error is not None:
        monkeypatch.setattr(parts_of(plain.application).store, "put", _raising(error))
    with _openai(plain) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt=prompt, size="64x64")
    assert (caught.value.status_code, drawn()) == (status, 1)


def test_an_image_that_can_not_be_read_back_is_paid_once(
    plain: FlaskClient, drawn: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_of(plain.application).service, "fetch", _raising(StoreUnreachable()))
    with _openai(plain) as client, pytest.raises(openai.InternalServerError):
        client.images.generate(prompt="a cat", size="64x64", response_format="b64_json")
    assert drawn() == 1


def test_what_is_refused_before_the_model_is_asked_is_tried_again(
    plain: FlaskClient, drawn: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = parts_of(plain.application).generation
    for error in (Busy, GeneratorBusy):
        monkeypatch.setattr(error, "retry_after", 1)
    calls = iter([_raising(Busy()), _raising(GeneratorBusy()), generation.generate])
    monkeypatch.setattr(generation, "generate", lambda *args: next(calls)(*args))
    with _openai(plain) as client:
        assert client.images.generate(prompt="a cat", size="64x64").data
    assert drawn() == 1
