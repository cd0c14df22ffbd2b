"""Fixtures: a server with image models, credentials for it, and short pauses between attempts."""

from collections.abc import Iterator

import pytest

from app.generators import transport
from tests.providers import AWS_SECRET, ModelServer


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """One server with image models for the whole session. Tests use the fixture `models` instead."""
    server = ModelServer().start()
    yield server
    server.stop()


@pytest.fixture
def models(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """The server with image models, without recorded requests. Its credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", model_server.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", model_server.url)
    monkeypatch.setattr(transport, "_FIRST_PAUSE_SECONDS", 0.01)
    model_server.reset()
    yield model_server
    model_server.reset()
