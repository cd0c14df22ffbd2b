"""Stability AI's models on Amazon Bedrock, called through boto3."""

import io
import json
import logging
import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3 import HTTPResponse

from app.aws.endpoints import is_aws_url
from app.aws.errors import ErrorKind, classify, is_about_credentials, public_message, vendor_message
from app.aws.session import new_session
from app.config.settings import Config
from app.core.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable, PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest, ModelFacts
from app.generators.payload import (
    MALFORMED_ERRORS,
    NO_CREDENTIALS,
    NO_MODEL,
    NO_QUOTA,
    find_image,
    one_line,
    parse_json_object,
    prompt_refused,
)
from app.generators.transport import Transport, deadline, retry, retry_after

ASPECT_RATIOS = ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
_FORMATS = ("png", "jpeg")
_MAX_PROMPT_LENGTH = 10_000
_SEEDS = 2**32
"""Number of possible seeds. This limit and the values above are those of Stability's models
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-stable-image-core-text-image-request-response.html)."""

_JSON = "application/json"
_DESCRIBE_TIMEOUT_SECONDS = 10

_RETRIED_STATUSES = {408, 429}
_NO_CREDENTIALS = (ErrorKind.CREDENTIALS, ErrorKind.EXPIRED, ErrorKind.SETTINGS)
_CREDENTIALS_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
_MODEL_GONE = re.compile(
    r"end of (its )?life|model (identifier|version|id)\b|marked .* legacy", re.IGNORECASE
)
"""Matches AWS's error messages about a model that does not exist or has been switched off."""
_FILTERED = re.compile(r"content filter", re.IGNORECASE)
"""Matches AWS's error messages about a prompt that was refused."""

_log = logging.getLogger(__name__)


class BedrockGenerator(BaseGenerator):
    """Generates images with a Stability model on Amazon Bedrock.

    `model` is the ID or the ARN of the model, and `region` is the AWS region. boto3 finds the credentials.
    `timeout` is in seconds and applies to all attempts together.
    """

    def __init__(self, model: str, *, region: str, timeout: float) -> None:
        self._model = model
        self._region = region
        self._timeout = timeout
        self._lock = threading.Lock()
        self._process_client: tuple[int, Any] | None = None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return a generator for the model `GENERATOR_MODEL` in the region `BEDROCK_REGION`."""
        return cls(config.generator_model, region=config.bedrock_region, timeout=config.generator_timeout)

    def model_name(self) -> str:
        """Return the ID of the model, as configured."""
        return self._model

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Call InvokeModel with the aspect ratio that is nearest to the requested size."""
        if max(len(request.prompt), len(request.negative_prompt)) > _MAX_PROMPT_LENGTH:
            raise PromptRefused(
                f"The prompt is too long: the image model accepts at most {_MAX_PROMPT_LENGTH:,} characters."
            )
        body = json.dumps(_invocation(request)).encode()
        with errors_mapped(self._model):
            client = self._client()  # outside the deadline, since creating the first client takes a second
        with deadline(self._timeout):
            return retry(lambda: self._invoke(client, body))

    def describe_model(self) -> ModelFacts:
        """Call GetFoundationModel, and return the lifecycle of the model."""
        config = ClientConfig(
            connect_timeout=_DESCRIBE_TIMEOUT_SECONDS,
            read_timeout=_DESCRIBE_TIMEOUT_SECONDS,
            retries={"total_max_attempts": 1},
        )
        with errors_mapped(self._model):
            client: Any = new_session(region=self._region).client(
                "bedrock", region_name=self._region, config=config
            )
            try:
                response = client.get_foundation_model(modelIdentifier=self._model)
            finally:
                client.close()
            lifecycle = response["modelDetails"].get("modelLifecycle", {})
            return ModelFacts(self._model, lifecycle.get("status", "unknown"), lifecycle.get("endOfLifeTime"))

    def _invoke(self, client: Any, body: bytes) -> GeneratedImage:
        with errors_mapped(self._model):
            response = client.invoke_model(modelId=self._model, body=body, contentType=_JSON, accept=_JSON)
            found = parse_json_object(response["body"].read())
        _check_finish_reason(_first(found, "finish_reasons"))
        seed = _first(found, "seeds")
        is_seed = type(seed) is int and 0 <= seed < _SEEDS
        image = find_image(found.get("images"), _refuse_url)
        return GeneratedImage(image, self._model, seed if is_seed else None)

    def _client(self) -> Any:
        """Return the boto3 client that all threads of this process share.

        The client is created on first use. After a fork, the child process creates its own client.
        """
        with self._lock:
            if self._process_client is None or self._process_client[0] != os.getpid():
                self._process_client = (os.getpid(), self._new_client())
            return self._process_client[1]

    def _new_client(self) -> Any:
        """Return a client that signs requests, sends them through `Transport`, and never retries."""
        session = new_session(region=self._region)
        if not (session.get_credentials() or os.environ.get("AWS_BEARER_TOKEN_BEDROCK")):
            raise NoCredentialsError  # a client created without credentials never looks for them again
        client: Any = session.client(
            "bedrock-runtime",
            region_name=self._region,
            config=ClientConfig(retries={"mode": "standard", "total_max_attempts": 1}),
        )
        url = client.meta.endpoint_url
        if not is_aws_url(url):  # AWS_ENDPOINT_URL applies to all services, but may be intended only for S3
            _log.warning(
                "Prompts for Bedrock go to %s, because AWS_ENDPOINT_URL or a similar variable is set.", url
            )
        transport = Transport()
        client.meta.events.register(
            "before-send.bedrock-runtime.InvokeModel", lambda request, **_: _send(transport, request)
        )
        return client


def _send(transport: Transport, request: AWSPreparedRequest) -> AWSResponse:
    """Send the signed request through `transport`, and return the response.

    If a handler of the event "before-send" returns a response, botocore uses it instead of sending the
    request.
    """
    body: Any = request.body
    body = body.encode() if isinstance(body, str) else bytes(body)
    response = transport.send(request.method, request.url, dict(request.headers.items()), body)
    raw: Any = HTTPResponse(
        io.BytesIO(response.body), response.headers, response.status, preload_content=False
    )
    return AWSResponse(request.url, response.status, raw.headers, raw)


def _invocation(request: GenerationRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": request.prompt,
        "mode": "text-to-image",
        "aspect_ratio": nearest_ratio(request.width, request.height),
        "output_format": request.image_format if request.image_format in _FORMATS else "png",
        "seed": request.seed,
    }
    return body | ({"negative_prompt": request.negative_prompt} if request.negative_prompt else {})


def nearest_ratio(width: int, height: int) -> str:
    """Return the ratio in `ASPECT_RATIOS` that is nearest to width : height.

    The distance is logarithmic, so 1:2 is as far from 1:1 as 2:1 is.
    """

    def distance(ratio: str) -> float:
        across, down = map(int, ratio.split(":"))
        return abs(math.log(across / down) - math.log(width / height))

    return min(ASPECT_RATIOS, key=distance)


def _first(found: dict[str, Any], name: str) -> Any:
    value = found.get(name)
    return value[0] if isinstance(value, list) and value else None


def _check_finish_reason(reason: object) -> None:
    """Raise an error if the model did not finish the image.

    The HTTP status is 200 even if the model failed. If the model succeeded, the reason is null or SUCCESS.
    Raises `PromptRefused` if the prompt was filtered, and `GeneratorError` for any other reason.
    """
    if reason is None or (isinstance(reason, str) and reason.lower() == "success"):
        return
    text = one_line(reason)
    if text.lower().startswith("filter"):
        raise prompt_refused(text)
    raise GeneratorError(detail=f"finish reason: {text}")


def _refuse_url(url: str) -> bytes:
    raise GeneratorError(detail="the response contains a URL, which is never the case with Bedrock")


@contextmanager
def errors_mapped(model: str) -> Iterator[None]:
    """Convert any exception that boto3 raises in the block into an `AppError`.

    Every call to boto3 must be made in a block with this context manager.
    """
    try:
        yield
    except ClientError as exc:
        raise _error_for(exc, model) from exc
    except Exception as exc:
        kind = classify(exc)
        if kind in _NO_CREDENTIALS:
            raise GeneratorRefused(
                NO_CREDENTIALS, detail=f"{type(exc).__name__}: {public_message(exc)} ({_CREDENTIALS_HINT})"
            ) from exc
        if kind is None and not isinstance(exc, MALFORMED_ERRORS):
            raise
        if isinstance(exc, BotoCoreError):
            raise GeneratorError(detail=f"{type(exc).__name__}: {public_message(exc)}") from exc
        raise GeneratorError(detail=f"the response can't be read: {type(exc).__name__}") from exc


def _error_for(exc: ClientError, model: str) -> AppError:
    """Return the `AppError` for an error response from AWS."""
    error, metadata = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 0)
    message = one_line(vendor_message(exc))
    detail = f"{status} {code}: {message}"
    if status in _RETRIED_STATUSES or status >= 500:
        return GeneratorUnreachable(detail=detail, wait=retry_after(metadata.get("HTTPHeaders", {})))
    if code == "ValidationException" and _FILTERED.search(message):
        return prompt_refused(message)
    if code == "ResourceNotFoundException" or (code == "ValidationException" and _MODEL_GONE.search(message)):
        return GeneratorRefused(
            NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={model}: choose a different model)"
        )
    if code == "ServiceQuotaExceededException":
        return GeneratorRefused(NO_QUOTA, detail=detail)
    if status in (401, 403) or is_about_credentials(exc):
        return GeneratorRefused(NO_CREDENTIALS, detail=detail)
    return GeneratorError(detail=detail) if status == 424 else GeneratorRefused(detail=detail)


def bedrock_statement(
    partition: str, region: str, model: str, *, with_lifecycle: bool = False
) -> dict[str, Any]:
    """Return an IAM statement that allows generating images with `model`, and nothing else.

    `model` is an ID or an ARN. If `with_lifecycle` is true, the statement also allows the API call that
    `describe_model` makes.
    """
    arn = f"arn:{partition}:bedrock:{region}::foundation-model/{model}"
    actions = ["bedrock:InvokeModel", *(["bedrock:GetFoundationModel"] if with_lifecycle else [])]
    return {"Effect": "Allow", "Action": actions, "Resource": model if model.startswith("arn:") else arn}
