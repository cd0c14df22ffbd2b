"""What is specific to Bedrock: the signed request, error codes, the lifecycle of models, the IAM policy."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import (
    AppError,
    GeneratorError,
    GeneratorRefused,
    GeneratorTimeout,
    GeneratorUnreachable,
    PromptRefused,
)
from app.generators.base import GenerationRequest
from app.generators.bedrock import ASPECT_RATIOS, BedrockGenerator, bedrock_statement, nearest_ratio
from tests.providers import AWS_SECRET, BEDROCK, IMAGE, ModelServer, answer, stall

ROOT = Path(__file__).parent.parent.parent
REGION = "us-west-2"
REQUEST = GenerationRequest("a red boat ⛵", 1600, 900, seed=4294967295, negative_prompt="people")


@pytest.fixture(scope="module")
def generator() -> BedrockGenerator:
    """A generator that calls the server of the fixture `models`."""
    return BedrockGenerator(BEDROCK.model, region=REGION, timeout=30)


def _drawn(models: ModelServer, generator: BedrockGenerator, request: GenerationRequest = REQUEST) -> Any:
    models.script = [BEDROCK.success()]
    generator.generate(request)
    return models.received[0]


def test_the_request_contains_prompt_ratio_format_and_seed(
    models: ModelServer, generator: BedrockGenerator
) -> None:
    received = _drawn(models, generator)
    assert received.uri == "/model/stability.stable-image-core-v1%3A1/invoke"
    assert received.headers["content-type"] == received.headers["accept"] == "application/json"
    assert received.json == {
        "prompt": "a red boat ⛵",
        "mode": "text-to-image",
        "aspect_ratio": "16:9",
        "output_format": "png",
        "seed": 4294967295,
        "negative_prompt": "people",
    }


def test_the_request_without_a_negative_prompt(models: ModelServer, generator: BedrockGenerator) -> None:
    received = _drawn(models, generator, GenerationRequest("sea", 64, 64, seed=0, image_format="jpeg"))
    assert received.json == {
        "prompt": "sea",
        "mode": "text-to-image",
        "aspect_ratio": "1:1",
        "output_format": "jpeg",
        "seed": 0,
    }


def test_the_signature_matches_the_request_that_arrives(
    models: ModelServer, generator: BedrockGenerator
) -> None:
    """The check is the one that AWS makes.

    See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
    """
    received = _drawn(models, generator)
    authorization = received.headers["authorization"]
    signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date"} <= set(signed)
    request = AWSRequest(
        received.method,
        f"{models.url}{received.uri}",
        headers={name: received.headers[name] for name in signed},
        data=received.body,
    )
    request.context["timestamp"] = received.headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIAEXAMPLE", AWS_SECRET), "bedrock", REGION)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    assert authorization.endswith(f"Signature={auth.signature(to_sign, request)}")


def _error(status: str, code: str, message: str = "") -> Any:
    return answer(status, {"message": message}, x_amzn_ErrorType=code)


ERRORS: list[tuple[Any, type[AppError], int]] = [
    (_error("500 Oops", "InternalServerException"), GeneratorUnreachable, 3),
    (_error("408 Request Timeout", "ModelTimeoutException"), GeneratorUnreachable, 3),
    (_error("429 Too Many Requests", "ModelNotReadyException"), GeneratorUnreachable, 3),
    (answer("502 Bad Gateway", b"<html>"), GeneratorUnreachable, 3),
    (_error("424 Failed Dependency", "ModelErrorException"), GeneratorError, 1),
    (_error("403 Forbidden", "AccessDeniedException"), GeneratorRefused, 1),
    (_error("403 Forbidden", "ExpiredTokenException"), GeneratorRefused, 1),
    (_error("400 Bad Request", "ServiceQuotaExceededException"), GeneratorRefused, 1),
    (_error("400 Bad Request", "ValidationException", "Malformed input request"), GeneratorRefused, 1),
    (
        _error("400 Bad Request", "ValidationException", "The provided model identifier is invalid."),
        GeneratorRefused,
        1,
    ),
    (
        _error("400 Bad Request", "ValidationException", "This request was blocked by our content filters."),
        PromptRefused,
        1,
    ),
    (answer("200 OK", {"finish_reasons": ["Filter reason: output image"]}), PromptRefused, 1),
    (answer("200 OK", {"finish_reasons": ["Inference error"], "images": []}), GeneratorError, 1),
    (answer("200 OK", {"finish_reasons": None, "images": "abc"}), GeneratorError, 1),
]


@pytest.mark.parametrize(("behaviour", "expected", "attempts"), ERRORS)
def test_error_responses_are_mapped(
    models: ModelServer, generator: BedrockGenerator, behaviour: Any, expected: type[AppError], attempts: int
) -> None:
    models.script = [behaviour]
    with pytest.raises(AppError) as caught:
        generator.generate(REQUEST)
    assert (type(caught.value), models.attempts) == (expected, attempts)


def test_the_signed_request_that_aws_quotes_is_not_logged(
    models: ModelServer, generator: BedrockGenerator
) -> None:
    models.script = [BEDROCK.bad_key]
    with pytest.raises(GeneratorRefused) as caught:
        generator.generate(REQUEST)
    assert "does not match" in caught.value.detail
    assert "session-token" not in str(caught.value)


@pytest.mark.parametrize("text", ["prompt", "negative_prompt"])
def test_a_prompt_too_long_for_the_model_is_refused_without_a_request(
    models: ModelServer, generator: BedrockGenerator, text: str
) -> None:
    request = {"prompt": "sea", "negative_prompt": "", text: "x" * 10_001}
    with pytest.raises(PromptRefused, match="at most 10,000 characters"):
        generator.generate(GenerationRequest(width=64, height=64, seed=1, **request))
    assert models.attempts == 0


def test_without_credentials_nothing_is_sent(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = BedrockGenerator(BEDROCK.model, region=REGION, timeout=10)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(GeneratorRefused, match="rejected the server's credentials"):
        generator.generate(REQUEST)
    assert models.received == []


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        ({"status": "ACTIVE"}, ("ACTIVE", None)),
        (
            {"status": "LEGACY", "endOfLifeTime": "2026-09-30T00:00:00Z"},
            ("LEGACY", datetime(2026, 9, 30, tzinfo=UTC)),
        ),
        (None, ("unknown", None)),
    ],
)
def test_describe_model_returns_the_lifecycle(
    models: ModelServer,
    generator: BedrockGenerator,
    life: dict[str, str] | None,
    expected: tuple[str, datetime | None],
) -> None:
    details = {"modelArn": "arn:aws:bedrock:us-west-2::foundation-model/x", "modelId": BEDROCK.model}
    models.script = [answer("200 OK", {"modelDetails": details | ({"modelLifecycle": life} if life else {})})]
    facts = generator.describe_model()
    assert (facts.model, facts.status, facts.ends) == (BEDROCK.model, *expected)
    assert models.received[0].uri == "/foundation-models/stability.stable-image-core-v1%3A1"


@pytest.mark.parametrize("body", [{}, [], {"modelDetails": []}, {"modelDetails": {"modelLifecycle": 5}}])
def test_describe_model_rejects_a_malformed_response(
    models: ModelServer, generator: BedrockGenerator, body: Any
) -> None:
    models.script = [answer("200 OK", body)]
    with pytest.raises(GeneratorError):
        generator.describe_model()


def test_describe_model_of_a_removed_model(models: ModelServer, generator: BedrockGenerator) -> None:
    models.script = [BEDROCK.gone]
    with pytest.raises(GeneratorRefused, match="not available"):
        generator.describe_model()


def test_each_generation_has_its_own_deadline(models: ModelServer) -> None:
    generator = BedrockGenerator(BEDROCK.model, region=REGION, timeout=4)
    models.script = [stall]
    with pytest.raises(GeneratorTimeout):
        generator.generate(REQUEST)
    models.script = [BEDROCK.success()]
    assert generator.generate(REQUEST).model == BEDROCK.model


@pytest.mark.parametrize(
    ("region", "model", "resource"),
    [
        ("us-west-2", "stability.x-v1:1", "arn:aws:bedrock:us-west-2::foundation-model/stability.x-v1:1"),
        ("cn-north-1", "m", "arn:aws-cn:bedrock:cn-north-1::foundation-model/m"),
        ("us-gov-west-1", "m", "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/m"),
        (
            "us-west-2",
            "arn:aws:bedrock:us-west-2:1:custom-model/m",
            "arn:aws:bedrock:us-west-2:1:custom-model/m",
        ),
    ],
)
def test_the_statement_allows_one_model(region: str, model: str, resource: str) -> None:
    partition = resource.split(":")[1]
    assert bedrock_statement(partition, region, model) == {
        "Effect": "Allow",
        "Action": ["bedrock:InvokeModel"],
        "Resource": resource,
    }
    assert bedrock_statement(partition, region, model, with_lifecycle=True)["Action"] == [
        "bedrock:InvokeModel",
        "bedrock:GetFoundationModel",
    ]


@pytest.mark.parametrize("document", ["docs/generators.md"])
def test_the_documentation_shows_the_minimal_policy(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    (policy,) = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    assert policy == {"Version": "2012-10-17", "Statement": [bedrock_statement("aws", REGION, BEDROCK.model)]}
    for setting in (f"GENERATOR_MODEL={BEDROCK.model}", f"BEDROCK_REGION={REGION}"):
        assert f"    {setting}\n" in text


@pytest.mark.parametrize("seed", [10**30, -1, True, "1", 1.5, None])
def test_an_invalid_seed_in_the_response_is_ignored(
    models: ModelServer, generator: BedrockGenerator, seed: object
) -> None:
    drawn = {"seeds": [seed], "finish_reasons": [None], "images": [base64.b64encode(IMAGE).decode()]}
    models.script = [answer("200 OK", drawn)]
    assert generator.generate(REQUEST).seed is None


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"])
def test_an_endpoint_outside_aws_is_logged(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    """boto3 applies AWS_ENDPOINT_URL to every service, but it may be meant only for the bucket."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
    monkeypatch.setenv(variable, models.url)
    _drawn(models, BedrockGenerator(BEDROCK.model, region=REGION, timeout=30))
    assert f"Prompts for Bedrock go to {models.url}" in caplog.text


def test_an_endpoint_of_aws_is_not_logged(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
    client = BedrockGenerator(BEDROCK.model, region="us-gov-west-1", timeout=30)._client()
    assert client.meta.endpoint_url == "https://bedrock-runtime.us-gov-west-1.amazonaws.com"
    assert "Prompts" not in caplog.text


_SIDES = st.integers(1, 4096)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ((1024, 1024), "1:1"),
        ((64, 64), "1:1"),
        ((1920, 1080), "16:9"),
        ((1080, 1920), "9:16"),
        ((2048, 64), "21:9"),
        ((64, 2048), "9:21"),
        ((600, 400), "3:2"),
        ((1280, 1024), "5:4"),
        ((1000, 999), "1:1"),
    ],
)
def test_the_nearest_ratio_is_chosen(size: tuple[int, int], ratio: str) -> None:
    assert nearest_ratio(*size) == ratio


@given(_SIDES, _SIDES)
def test_portrait_and_landscape_get_inverse_ratios(width: int, height: int) -> None:
    ratio = nearest_ratio(width, height)
    assert ratio in ASPECT_RATIOS
    assert nearest_ratio(height, width) == ":".join(reversed(ratio.split(":")))
