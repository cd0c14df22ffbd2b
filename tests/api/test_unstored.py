"""Generated images that are not stored: kept on disk, and stored when the request is sent again, unpaid."""

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from tenacity import wait_none
from werkzeug.test import TestResponse

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.core.errors import (
    GeneratorUnreachable,
    PromptRefused,
    StateUnavailable,
    StoreBusy,
    StoreError,
    StoreRefused,
    StoreTimeout,
    StoreUnreachable,
)
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.services import generation as generation_module
from app.services.idempotency import IdempotencyRecords
from app.services.slots import Slots
from app.services.unstored import UnstoredImages
from tests.conftest import json_of
from tests.services.generators import NAME, ScriptedGenerator
from tests.waiting import wait_until

URL = "/api/generate-image"
CAT = {"prompt": "a cat on a wall", "size": "64x64"}
Make = Callable[..., FlaskClient]


@pytest.fixture
def make(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return a factory of clients, whose servers share their directories, by settings."""
    monkeypatch.setenv("DRAWN", str(tmp_path / "drawn"))
    monkeypatch.setattr(generation_module, "_put_backoff", wait_none())
    made = []

    def make_one(**settings: Any) -> FlaskClient:
        made.append(create_app(replace(config, **{"generator": NAME, **settings})))
        return made[-1].test_client()

    yield make_one
    for flask in made:
        components_of(flask).cache.close()


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[[], int]:
    """Return a function that tells how many times the model was called."""
    path = tmp_path / "drawn"
    return lambda: len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def kept(config: Config) -> Callable[[], int]:
    """Return a function that tells how many images are kept on disk."""
    return lambda: len(list((config.state_dir / "unstored").glob("*")))


def _send(client: FlaskClient, key: str | None = "a", body: Any = CAT, **headers: str) -> TestResponse:
    return client.post(URL, json=body, headers={"Idempotency-Key": key, **headers} if key else headers)


def _keys(client: FlaskClient) -> list[str]:
    return [facts.key for facts in components_of(client.application).store.list().objects]


def _fail(client: FlaskClient, error: Exception | Callable[..., None], *, stores: bool = False) -> None:
    """Make each put of this server fail from now on; with `stores` after it has stored the object."""
    store = components_of(client.application).store
    real = store.put

    def put(*args: Any, **options: Any) -> Any:
        if stores:
            real(*args, **options)
        if isinstance(error, Exception):
            raise error
        error(*args, **options)
        return real(*args, **options)

    store.put = put  # type: ignore[method-assign]


@pytest.mark.parametrize("stores", [False, True], ids=["not stored", "answer lost"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnreachable(), 503),
        (StoreBusy(), 503),
        (StoreTimeout(), 504),
        (StoreRefused(), 502),
        (StoreError(), 502),
        pytest.param(ZeroDivisionError(), 500, marks=pytest.mark.crashes),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_image_that_was_not_stored_is_stored_by_the_next_request_with_the_key(
    make: Make,
    drawn: Callable[[], int],
    kept: Callable[[], int],
    error: Exception,
    status: int,
    stores: bool,
) -> None:
    failing = make()
    _fail(failing, error, stores=stores)
    for _ in range(3):
        assert _send(failing).status_code == status
        assert (drawn(), kept()) == (1, 1)
    restarted = make()
    answer = _send(restarted)
    assert (answer.status_code, json_of(answer)["message"]) == (
        200,
        "Image generated and uploaded successfully",
    )
    assert _keys(restarted) == [json_of(answer)["key"]]
    with restarted.get(json_of(answer)["image_url"]) as image:
        assert image.status_code == 200
    assert _send(failing).data == answer.data
    assert (drawn(), kept()) == (1, 0)


def test_requests_of_openais_api_are_treated_alike(make: Make, drawn: Callable[[], int]) -> None:
    failing, order = make(), {"prompt": "a cat", "n": 3, "size": "64x64", "response_format": "url"}
    _fail(failing, StoreRefused())
    headers = {"Idempotency-Key": "a"}
    assert failing.post("/v1/images/generations", json=order, headers=headers).status_code == 502
    answer = make().post("/v1/images/generations", json=order, headers=headers)
    assert (answer.status_code, len(json_of(answer)["data"]), drawn()) == (200, 3, 3)


def test_images_that_were_already_stored_are_not_stored_twice(make: Make, drawn: Callable[[], int]) -> None:
    failing, order = make(), {"prompt": "a cat", "n": 3, "size": "64x64", "response_format": "url"}
    puts = itertools.count()

    def fail_from_the_second_on(*_: Any, **__: Any) -> None:
        if next(puts):
            raise StoreRefused

    _fail(failing, fail_from_the_second_on)
    headers = {"Idempotency-Key": "a"}
    assert failing.post("/v1/images/generations", json=order, headers=headers).status_code == 502
    assert len(_keys(failing)) == 1
    restarted = make()
    assert restarted.post("/v1/images/generations", json=order, headers=headers).status_code == 200
    assert (len(_keys(restarted)), drawn()) == (3, 3)


@pytest.mark.parametrize("concurrency", [1, 4], ids=["one by one", "side by side"])
def test_only_missing_images_are_drawn_by_the_next_request(
    make: Make, monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], int], concurrency: int
) -> None:
    generate, calls = ScriptedGenerator.generate, itertools.count()

    def fail_once(self: ScriptedGenerator, request: GenerationRequest) -> GeneratedImage:
        image = generate(self, request)
        if next(calls) == 2:
            raise GeneratorUnreachable
        return image

    monkeypatch.setattr(ScriptedGenerator, "generate", fail_once)
    client, headers = make(generate_concurrency=concurrency), {"Idempotency-Key": "a"}
    order = {"prompt": "a cat", "n": 4, "size": "64x64", "seed": 5, "response_format": "url"}
    assert client.post("/v1/images/generations", json=order, headers=headers).status_code == 503
    assert _keys(client) == []
    before = drawn()
    assert client.post("/v1/images/generations", json=order, headers=headers).status_code == 200
    assert (drawn(), len(_keys(client))) == (5, 4)
    assert before == (3 if concurrency == 1 else 4)


def test_a_refused_request_keeps_no_image(
    make: Make, monkeypatch: pytest.MonkeyPatch, kept: Callable[[], int]
) -> None:
    generate, calls = ScriptedGenerator.generate, itertools.count()

    def refuse_the_second(self: ScriptedGenerator, request: GenerationRequest) -> GeneratedImage:
        if next(calls) == 1:
            raise PromptRefused
        return generate(self, request)

    monkeypatch.setattr(ScriptedGenerator, "generate", refuse_the_second)
    order, headers = {"prompt": "a cat", "n": 2, "size": "64x64"}, {"Idempotency-Key": "a"}
    response = make().post("/v1/images/generations", json=order, headers=headers)
    assert (response.status_code, kept()) == (400, 0)


class LateGenerator(BaseGenerator):
    """Draws once `may_draw` is set."""

    may_draw = threading.Event()
    calls = 0

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Wait, then draw."""
        LateGenerator.calls += 1
        LateGenerator.may_draw.wait(60)
        return GeneratedImage(Image.new("RGB", (8, 6)), "late")


def test_an_image_drawn_after_the_deadline_is_kept_for_the_next_request(
    make: Make, kept: Callable[[], int]
) -> None:
    LateGenerator.may_draw.clear()
    LateGenerator.calls = 0
    client = make(generator=f"{__name__}:LateGenerator", generator_timeout=1)
    assert _send(client).status_code == 504
    LateGenerator.may_draw.set()
    wait_until(lambda: kept() == 1)
    assert (_send(client).status_code, LateGenerator.calls) == (200, 1)


def test_storing_a_kept_image_needs_no_slot(make: Make, config: Config, drawn: Callable[[], int]) -> None:
    failing = make()
    _fail(failing, StoreRefused())
    _send(failing)
    with Slots(config.state_dir / "slots", 8).take(8):
        assert _send(make()).status_code == 200
    assert drawn() == 1


def test_two_workers_store_a_kept_image_once(make: Make, drawn: Callable[[], int]) -> None:
    workers = [make(), make()]
    for worker in workers:
        _fail(worker, StoreRefused())
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: _send(workers[n % 2]).status_code, range(8)))
    assert (statuses, drawn()) == ([502] * 8, 1)
    workers = [make(), make()]
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda n: _send(workers[n % 2]).data, range(8)))
    assert (len(answers), len(_keys(workers[0])), drawn()) == (1, 1, 1)


def test_a_stored_image_that_was_not_recorded_gets_the_same_response_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], int]
) -> None:
    def full(*_: Any) -> None:
        raise StateUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(IdempotencyRecords, "save", full)
        first = _send(make())
    assert first.status_code == 200
    assert _send(make()).data == first.data
    assert drawn() == 1


def test_without_a_key_an_image_is_lost_and_the_log_says_so(
    make: Make, drawn: Callable[[], int], kept: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    failing = make()
    _fail(failing, StoreRefused())
    assert _send(failing, None).status_code == 502
    assert "Generated images were not stored. Without an Idempotency-Key they are lost." in caplog.text
    assert kept() == 0
    assert _send(make(), None).status_code == 200
    assert drawn() == 2


def test_another_client_key_or_prompt_does_not_get_a_kept_image(make: Make, drawn: Callable[[], int]) -> None:
    keys = {"api_keys": parse_keys("one,two")}
    failing = make(**keys)
    _fail(failing, StoreRefused())
    assert _send(failing, **{"X-API-Key": "one"}).status_code == 502
    client = make(**keys)
    assert _send(client, **{"X-API-Key": "two"}).status_code == 200
    assert drawn() == 2
    assert _send(client, "b", **{"X-API-Key": "one"}).status_code == 200
    assert drawn() == 3
    assert _send(client, "a", {**CAT, "prompt": "a dog"}, **{"X-API-Key": "one"}).status_code == 200
    assert drawn() == 4
    assert len(_keys(client)) == 3


@pytest.mark.parametrize("draws", [True, False], ids=["at the next drawing", "at the next start"])
def test_a_kept_image_is_removed_after_a_day(
    make: Make, config: Config, drawn: Callable[[], int], kept: Callable[[], int], draws: bool
) -> None:
    failing = make()
    _fail(failing, StoreRefused())
    _send(failing)
    (path,) = (config.state_dir / "unstored").iterdir()
    os.utime(path, (time.time() - 86_500,) * 2)
    assert (_send(failing, None).status_code == 502) if draws else make()
    assert kept() == 0
    assert _send(make()).status_code == 200
    assert drawn() == (3 if draws else 2)


def test_the_prompt_is_not_on_disk(make: Make, config: Config, kept: Callable[[], int]) -> None:
    failing = make()
    _fail(failing, StoreRefused())
    _send(failing, "quite-a-secret")
    assert kept() == 1
    contents = [path.read_bytes() for path in config.state_dir.rglob("*") if path.is_file()]
    assert not any(secret in content for content in contents for secret in (b"a cat", b"quite-a-secret"))


def test_generation_goes_on_if_an_image_cannot_be_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UnstoredImages, "_write", full)
    failing = make()
    _fail(failing, StoreRefused())
    assert _send(failing).status_code == 502
    assert "can't be kept in STATE_DIR until it is stored" in caplog.text
    assert _send(make()).status_code == 200
    assert drawn() == 2


def _refuse_long_values(*_: Any, metadata: Any, **__: Any) -> None:
    """Fail as Swift does for more than 256 bytes in a value."""
    if any(len(value) > 256 for value in metadata.values()):
        raise StoreUnreachable


def test_an_image_refused_for_its_metadata_is_paid_once(make: Make, drawn: Callable[[], int]) -> None:
    long = {**CAT, "prompt": "a cat " * 100}
    failing = make()
    _fail(failing, _refuse_long_values)
    assert [_send(failing, body=long).status_code for _ in range(3)] == [503] * 3
    repaired = make(keep_prompts=False)
    _fail(repaired, _refuse_long_values)
    assert _send(repaired, body=long).status_code == 200
    assert drawn() == 1


def test_a_kept_image_is_stored_with_its_prompt_and_the_time_it_was_drawn(make: Make) -> None:
    failing = make()
    _fail(failing, StoreRefused())
    _send(failing)
    client = make()
    key = json_of(_send(client))["key"]
    metadata = components_of(client.application).store.head(key).metadata
    assert (metadata["prompt"], metadata["model"]) == ("a cat on a wall", "test/scripted-1:0")
    digits = "".join(char for char in metadata["time"] if char.isdigit())
    assert key.split("/")[-1].startswith(f"{digits[:8]}_{digits[8:14]}_")
