"""A key that can't be sent in a header is refused, and appears neither in errors nor in the log."""

import pytest

from app.core.errors import AppError
from app.generators.base import BaseGenerator, GenerationRequest
from app.generators.bedrock import BedrockGenerator
from app.generators.openai import OpenAIGenerator
from tests.providers import ModelServer

SECRET = "tell-tale-of-a-secret"
ENDS = ["\n", "\r\nX-Injected: 1", "\x00", "…", "\udcff"]


def _refusal_of(generator: BaseGenerator) -> str:
    with pytest.raises(AppError) as caught:
        generator.generate(GenerationRequest("sea", 64, 64, seed=1))
    assert caught.value.status == 502
    return str(caught.value)


@pytest.mark.parametrize("end", ENDS)
def test_openais_key_is_not_shown(models: ModelServer, end: str, caplog: pytest.LogCaptureFixture) -> None:
    generator = OpenAIGenerator("gpt-image-x", api_key=SECRET + end, base_url=f"{models.url}/v1", timeout=20)
    assert SECRET not in _refusal_of(generator) + caplog.text
    assert models.received == []


@pytest.mark.parametrize("end", [end for end in ENDS if "\x00" not in end])
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"])
def test_bedrocks_keys_are_not_shown(
    models: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    end: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, f"{SECRET}{end}{SECRET}")
    generator = BedrockGenerator("stability.x", region="us-west-2", timeout=20)
    assert SECRET not in _refusal_of(generator) + caplog.text
    assert models.received == []
