"""Stability AI's models on Amazon Bedrock.

What an account needs to be allowed for the Bedrock generator.

Bedrock's errors become ours, here and nowhere else.
"""

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3 import HTTPResponse

from app.aws.endpoints import is_aws_url
from app.aws.errors import Kind, classify, is_about_credentials, public_message, vendor_message
from app.aws.session import new_session
from app.config.settings import Config
from app.core.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable, PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest, ModelFacts
from app.generators.payload import (
    NO_CREDENTIALS,
    NO_MODEL,
    NO_QUOTA,
    UNREADABLE,
    cleaned,
    first,
    image_in,
    json_object,
    refusal,
)
from app.generators.sizes import bedrock_ratio
from app.generators.transport import PerProcess, Wire, retry_after, within_deadline


def bedrock_statement(partition: str, region: str, model: str, *, checked: bool = False) -> dict[str, Any]:
    """Return the least IAM statement for `model`, an id or an ARN; `checked`: also to read its lifecycle."""
    arn = f"arn:{partition}:bedrock:{region}::foundation-model/{model}"
    actions = ["bedrock:InvokeModel", *(["bedrock:GetFoundationModel"] if checked else [])]
    return {"Effect": "Allow", "Action": actions, "Resource": model if model.startswith("arn:") else arn}


_AGAIN = {408, 429}
_NO_CREDENTIALS = (Kind.CREDENTIALS, Kind.EXPIRED, Kind.SETTINGS)
_FIX = (
    "set what boto3 finds credentials by: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
)
_GONE = re.compile(r"end of (its )?life|model (identifier|version|id)\b|marked .* legacy", re.IGNORECASE)
_FILTERED = re.compile(r"content filter", re.IGNORECASE)


@contextmanager
def errors_mapped(model: str) -> Iterator[None]:
    """Raise our error for whatever boto3 raises inside."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, model) from exc
    except Exception as exc:
        kind = classify(exc)
        if kind in _NO_CREDENTIALS:
            raise GeneratorRefused(
                NO_CREDENTIALS, detail=f"{type(exc).__name__}: {public_message(exc)} ({_FIX})"
            ) from exc
        if kind is None and not isinstance(exc, UNREADABLE):
            raise
        if isinstance(exc, BotoCoreError):
            raise GeneratorError(detail=f"{type(exc).__name__}: {public_message(exc)}") from exc
        raise GeneratorError(detail=f"an answer that can't be read: {type(exc).__name__}") from exc


def _answered(exc: ClientError, model: str) -> AppError:
    error, metadata = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 0)
    said = cleaned(vendor_message(exc))
    detail = f"{status} {code}: {said}"
    if status in _AGAIN or status >= 500:
        return GeneratorUnreachable(detail=detail, wait=retry_after(metadata.get("HTTPHeaders", {})))
    if code == "ValidationException" and _FILTERED.search(said):
        return refusal(said)
    if code == "ResourceNotFoundException" or (code == "ValidationException" and _GONE.search(said)):
        return GeneratorRefused(NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={model}: choose another)")
    if code == "ServiceQuotaExceededException":
        return GeneratorRefused(NO_QUOTA, detail=detail)
    if status in (401, 403) or is_about_credentials(exc):
        return GeneratorRefused(NO_CREDENTIALS, detail=detail)
    return GeneratorError(detail=detail) if status == 424 else GeneratorRefused(detail=detail)


_JSON = "application/json"
_FORMATS = ("png", "jpeg")
_MAX_PROMPT = 10_000
_CHECK_SECONDS = 10

_SEEDS = 2**32
"""https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-stable-image-core-text-image-request-response.html"""


_log = logging.getLogger(__name__)


class BedrockGenerator(BaseGenerator):
    """Draws with `model`, the id or ARN of a Stability model in `region`; credentials are found by boto3.

    `timeout` is in seconds, for all tries together.
    """

    def __init__(self, model: str, *, region: str, timeout: float) -> None:
        self._model = model
        self._region = region
        self._timeout = timeout
        self._client = PerProcess(self._new_client)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """`GENERATOR_MODEL` in `BEDROCK_REGION`."""
        return cls(config.generator_model, region=config.bedrock_region, timeout=config.generator_timeout)

    def model_name(self) -> str:
        """The model's id, as configured."""
        return self._model

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """InvokeModel, in the ratio of sides nearest to the one asked for."""
        if max(len(request.prompt), len(request.negative_prompt)) > _MAX_PROMPT:
            raise PromptRefused(f"The prompt is longer than the {_MAX_PROMPT:,} characters the model takes.")
        body = json.dumps(_body(request)).encode()
        with errors_mapped(self._model):
            client = self._client()  # making the first takes a second, which is not the model's
        return within_deadline(self._timeout, partial(self._ask, client, body))

    def describe_model(self) -> ModelFacts:
        """GetFoundationModel, for the operator; raises `GeneratorError` and its kin."""
        config = ClientConfig(
            connect_timeout=_CHECK_SECONDS, read_timeout=_CHECK_SECONDS, retries={"total_max_attempts": 1}
        )
        with errors_mapped(self._model):
            client: Any = new_session(region=self._region).client(
                "bedrock", region_name=self._region, config=config
            )
            try:
                answer = client.get_foundation_model(modelIdentifier=self._model)
            finally:
                client.close()
            life = answer["modelDetails"].get("modelLifecycle", {})
            return ModelFacts(self._model, life.get("status", "unknown"), life.get("endOfLifeTime"))

    def _ask(self, client: Any, body: bytes) -> GeneratedImage:
        with errors_mapped(self._model):
            answer = client.invoke_model(modelId=self._model, body=body, contentType=_JSON, accept=_JSON)
            found = json_object(answer["body"].read())
        _check_finished(first(found, "finish_reasons"))
        seed = first(found, "seeds")
        image = image_in(found.get("images"), _fetch_nothing)
        is_seed = type(seed) is int and 0 <= seed < _SEEDS
        return GeneratedImage(image, self._model, seed if is_seed else None)

    def _new_client(self) -> Any:
        """A client that signs, and leaves sending to `Wire` and retrying to us."""
        session = new_session(region=self._region)
        if not (session.get_credentials() or os.environ.get("AWS_BEARER_TOKEN_BEDROCK")):
            raise NoCredentialsError  # a client made now would never find any
        client: Any = session.client(
            "bedrock-runtime",
            region_name=self._region,
            config=ClientConfig(retries={"mode": "standard", "total_max_attempts": 1}),
        )
        asked = client.meta.endpoint_url
        if not is_aws_url(asked):  # AWS_ENDPOINT_URL may be meant for S3 alone
            _log.warning(
                "Prompts for Bedrock go to %s: AWS_ENDPOINT_URL, or another like it, says so.", asked
            )
        client.meta.events.register("before-send.bedrock-runtime.InvokeModel", partial(_send, Wire()))
        return client


def _body(request: GenerationRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": request.prompt,
        "mode": "text-to-image",
        "aspect_ratio": bedrock_ratio(request.width, request.height),
        "output_format": request.image_format if request.image_format in _FORMATS else "png",
        "seed": request.seed,
    }
    return body | ({"negative_prompt": request.negative_prompt} if request.negative_prompt else {})


def _check_finished(reason: object) -> None:
    """A refused prompt is a 200: the reason is null, or with some models SUCCESS, where all went well."""
    if reason is None or (isinstance(reason, str) and reason.lower() == "success"):
        return
    text = cleaned(reason)
    if text.lower().startswith("filter"):
        raise refusal(text)
    raise GeneratorError(detail=f"finish reason: {text}")


def _fetch_nothing(url: str) -> bytes:
    raise GeneratorError(detail="the answer holds a URL, which Bedrock's never do")


def _send(wire: Wire, request: AWSPreparedRequest, **event: Any) -> AWSResponse:
    """boto3's request, signed, over `wire`."""
    headers = [(name.encode(), _bytes(value)) for name, value in request.headers.items()]
    answer = wire.send(request.method, request.url, headers, _bytes(request.body))
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    raw: Any = HTTPResponse(io.BytesIO(answer.body), named, answer.status, preload_content=False)
    return AWSResponse(request.url, answer.status, raw.headers, raw)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
