"""If a response is not JSON or has an unexpected structure, the result is a `GeneratorError`."""

import pytest

from app.core.errors import GeneratorError, PromptRefused
from app.generators import transport
from app.generators.base import BaseGenerator, GenerationRequest
from app.generators.bedrock import BedrockGenerator
from app.generators.openai import OpenAIGenerator
from tests.providers import API_KEY, BEDROCK, OPENAI, ModelServer, answer

REQUEST = GenerationRequest("a red boat", 96, 64, seed=1)
NESTED = 100_000 * b"["
MALFORMED = [
    b"",
    b"null",
    b"[1]",
    b'"text"',
    b"1e999",
    NESTED,
    b'{"message": {"a": 1}, "__type": 5, "code": [1], "seeds": 5, "images": 5, "finish_reasons": {}}',
    b'{"message": ' + NESTED + b"}",
    b'{"error": []}',
    b'{"error": {"code": [1], "type": {"a": 1}, "param": [2], "message": [3]}}',
    b'{"error": {"code": null, "type": 7, "param": "prompt", "message": {"a": 1}}}',
    b'{"seeds": [1e400], "images": [{"a": 1}], "finish_reasons": [[]], "data": [[]]}',
    b'{"data": [{"b64_json": 5, "url": [1]}]}',
    b'{"data": [{"url": "http://[::1"}]}',
    b"\xff\xfe\x00",
]


@pytest.fixture(params=["bedrock", "openai"])
def generator(request: pytest.FixtureRequest, models: ModelServer) -> BaseGenerator:
    """A generator of each provider."""
    if request.param == "bedrock":
        return BedrockGenerator(BEDROCK.model, region="us-west-2", timeout=30)
    return OpenAIGenerator(OPENAI.model, api_key=API_KEY, base_url=f"{models.url}/v1", timeout=30)


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("status", ["200 OK", "400 No", "403 No", "404 No", "500 No"])
def test_generate_raises_a_generator_error(
    models: ModelServer,
    generator: BaseGenerator,
    status: str,
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "MAX_ATTEMPTS", 1)
    models.script = [answer(status, body)]
    with pytest.raises((GeneratorError, PromptRefused)):
        generator.generate(REQUEST)


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("status", ["400 No", "404 No", "500 No"])
def test_describe_model_raises_a_generator_error(
    models: ModelServer, generator: BaseGenerator, status: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ATTEMPTS", 1)
    models.script = [answer(status, body)]
    with pytest.raises((GeneratorError, PromptRefused)):
        generator.describe_model()
