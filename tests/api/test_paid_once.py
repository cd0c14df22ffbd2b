"""What a failure costs: the model is called once, whatever fails after it."""

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
from app.services import generation as generation_module
from tests.conftest import json_of
from tests.live import live
from tests.services.generators import NAME


@pytest.fixture
def plain(config: Config) -> Iterator[FlaskClient]:
    """A client of a server with the scripted generator."""
    flask = create_app(replace(config, generator=NAME))
    yield flask.test_client()
    components_of(flask).cache.close()


@contextmanager
def _openai(plain: FlaskClient) -> Iterator[openai.OpenAI]:
    """Yield OpenAI's client as users have it: it retries requests if the response lets it."""
    with live(plain.application) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        yield client


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that tells how many times the model was called."""
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
    monkeypatch.setattr(generation_module, "_put_backoff", wait_none())


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


def test_an_image_that_cannot_be_read_back_is_paid_once(
    plain: FlaskClient, drawn: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components_of(plain.application).images, "fetch", _raising(StoreUnreachable()))
    with _openai(plain) as client, pytest.raises(openai.InternalServerError):
        client.images.generate(prompt="a cat", size="64x64", response_format="b64_json")
    assert drawn() == 1


def test_a_request_refused_before_the_model_is_called_is_retried(
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


class _FailingPut:
    """A store's `put` that raises `errors`, then works. With `loses_answers` it stores before it raises."""

    def __init__(self, put: Callable[..., Any], errors: Iterable[Exception], *, loses_answers: bool) -> None:
        self._put = put
        self._errors = iter(errors)
        self._loses_answers = loses_answers
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Store the object, or fail."""
        self.calls += 1
        error = next(self._errors, None)
        result = self._put(*args, **options) if self._loses_answers or error is None else None
        if error is not None:
            raise error
        return result


FailPuts = Callable[..., _FailingPut]


@pytest.fixture
def fail_puts(plain: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> FailPuts:
    """Return a function that makes the puts of the store raise these errors."""
    store = components_of(plain.application).store

    def make(*errors: Exception, loses_answers: bool = False) -> _FailingPut:
        put = _FailingPut(store.put, errors, loses_answers=loses_answers)
        monkeypatch.setattr(store, "put", put)
        return put

    return make


def _generate(plain: FlaskClient) -> tuple[int, str]:
    response = plain.post("/api/generate-image", json={"prompt": "a cat", "size": "64x64"})
    return response.status_code, json_of(response)["message"]


@pytest.mark.parametrize("loses_answers", [False, True])
def test_a_short_outage_of_the_store_loses_no_image(
    plain: FlaskClient, drawn: Callable[[], int], fail_puts: FailPuts, loses_answers: bool
) -> None:
    put = fail_puts(StoreUnreachable(), StoreTimeout(), loses_answers=loses_answers)
    assert _generate(plain) == (200, "Image generated and uploaded successfully")
    assert (put.calls, drawn()) == (3, 1)
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
def test_the_number_of_puts_is_limited(
    plain: FlaskClient,
    drawn: Callable[[], int],
    fail_puts: FailPuts,
    error: StoreError,
    status: int,
    puts: int,
) -> None:
    put = fail_puts(*[error] * 9)
    assert _generate(plain) == (status, error.message)
    assert (put.calls, drawn()) == (puts, 1)
