"""Fixtures: the models' server, credentials for it, short pauses between tries."""

from collections.abc import Iterator

import pytest
from tenacity import wait_exponential_jitter

from app.generators import transport as tries
from tests.providers import AWS_SECRET, ModelServer


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """A models' server for the whole session; tests take `models`."""
    server = ModelServer().start()
    yield server
    server.stop()


@pytest.fixture
def models(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """The models' server, its record empty, credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_server.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", model_server.url)
    monkeypatch.setattr(tries, "_backoff", wait_exponential_jitter(multiplier=0.01, jitter=0.01))
    model_server.reset()
    yield model_server
    model_server.reset()
