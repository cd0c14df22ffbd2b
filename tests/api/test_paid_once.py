"""What a failure costs: the model is asked once, whatever fails behind it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from flask.testing import FlaskClient
from tenacity import wait_none

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import Busy, GeneratorBusy, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.services import generation as storing
from tests.conftest import json_of
from tests.live import live
from tests.services.generators import NAME


@pytest.fixture
def plain(config: Config) -> Iterator[FlaskClient]:
    """A client of a server whose generator obeys."""
    flask = create_app(replace(config, generator=NAME))
    yield flask.test_client()
    components_of(flask).cache.close()


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


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_backoff", wait_none())


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
        monkeypatch.setattr(components_of(plain.application).store, "put", _raising(error))
    with _openai(plain) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt=prompt, size="64x64")
    assert (caught.value.status_code, drawn()) == (status, 1)


def test_an_image_that_can_not_be_read_back_is_paid_once(
    plain: FlaskClient, drawn: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components_of(plain.application).images, "fetch", _raising(StoreUnreachable()))
    with _openai(plain) as client, pytest.raises(openai.InternalServerError):
        client.images.generate(prompt="a cat", size="64x64", response_format="b64_json")
    assert drawn() == 1


def test_what_is_refused_before_the_model_is_asked_is_tried_again(
    plain: FlaskClient, drawn: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = components_of(plain.application).generation
    for error in (Busy, GeneratorBusy):
        monkeypatch.setattr(error, "retry_after", 1)
    calls = iter([_raising(Busy()), _raising(GeneratorBusy()), generation.generate])
    monkeypatch.setattr(generation, "generate", lambda *args: next(calls)(*args))
    with _openai(plain) as client:
        assert client.images.generate(prompt="a cat", size="64x64").data
    assert drawn() == 1


class _Ailing:
    """A store's `put` that fails as `errors` say, and then works; or that works, but says it failed."""

    def __init__(self, put: Callable[..., Any], errors: Iterable[Exception], *, loses_answers: bool) -> None:
        self._put = put
        self._errors = iter(errors)
        self._loses_answers = loses_answers
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Put, or fail."""
        self.calls += 1
        error = next(self._errors, None)
        result = self._put(*args, **options) if self._loses_answers or error is None else None
        if error is not None:
            raise error
        return result


Ail = Callable[..., _Ailing]


@pytest.fixture
def ail(plain: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> Ail:
    """Makes the store fail so often, in this way."""
    store = components_of(plain.application).store

    def make(*errors: Exception, loses_answers: bool = False) -> _Ailing:
        ailing = _Ailing(store.put, errors, loses_answers=loses_answers)
        monkeypatch.setattr(store, "put", ailing)
        return ailing

    return make


def _generate(plain: FlaskClient) -> tuple[int, str]:
    response = plain.post("/api/generate-image", json={"prompt": "a cat", "size": "64x64"})
    return response.status_code, json_of(response)["message"]


@pytest.mark.parametrize("loses_answers", [False, True])
def test_a_moments_outage_of_the_store_throws_nothing_away(
    plain: FlaskClient, drawn: Callable[[], int], ail: Ail, loses_answers: bool
) -> None:
    ailing = ail(StoreUnreachable(), StoreTimeout(), loses_answers=loses_answers)
    assert _generate(plain) == (200, "Image generated and uploaded successfully")
    assert (ailing.calls, drawn()) == (3, 1)
    assert len(components_of(plain.application).store.list().objects) == 1


@pytest.mark.parametrize(
    ("error", "status", "puts"),
    [
        (StoreUnreachable(), 503, 4),
        (StoreTimeout(), 504, 4),
        (StoreRefused(), 502, 1),
        (StoreError(), 502, 1),
    ],
)
def test_the_store_is_given_up_on(
    plain: FlaskClient, drawn: Callable[[], int], ail: Ail, error: StoreError, status: int, puts: int
) -> None:
    ailing = ail(*[error] * 9)
    assert _generate(plain) == (status, error.message)
    assert (ailing.calls, drawn()) == (puts, 1)


def test_past_the_deadline_the_store_is_not_asked_again() -> None:
    ailing = _Ailing(_raising(ZeroDivisionError()), [StoreUnreachable()], loses_answers=False)
    with pytest.raises(StoreUnreachable):
        storing.store_patiently(ailing, time.monotonic())
    assert ailing.calls == 1
