"""OpenAI's image models, and servers that speak their protocol: LocalAI, vLLM and others."""

from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
from openai import OpenAI

from app.config import Config
from app.errors import GeneratorError, GeneratorUnreachable
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.generators.models import ModelFacts
from app.generators.openai_errors import errors_mapped
from app.generators.payload import decoded, first, json_object
from app.generators.per_process import PerProcess
from app.generators.sizes import openai_size
from app.generators.tries import within_deadline
from app.generators.wire import Wire

_FORMATS = ("png", "jpeg", "webp")
_CHECK_SECONDS = 10


class OpenAIGenerator(BaseGenerator):
    """Draws with `model` of OpenAI, or of the server at `base_url`.

    `timeout` is in seconds, for all tries together.
    """

    def __init__(self, model: str, *, api_key: str = "", base_url: str = "", timeout: float) -> None:
        self._model = model
        self._api_key = api_key
        self._base_url = base_url
        self._timeout = timeout
        self._wire = Wire()
        self._client = PerProcess(self._new_client)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """`GENERATOR_MODEL`, with `OPENAI_API_KEY`, at `OPENAI_BASE_URL`."""
        return cls(
            config.generator_model,
            api_key=config.openai_api_key,
            base_url=config.openai_base_url,
            timeout=config.generator_timeout,
        )

    def model_name(self) -> str:
        """The model's id, as configured."""
        return self._model

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """images.generate, in the nearest size that the model takes; it has no seeds."""
        with errors_mapped(self._model, self._api_key):
            client = self._client()
        return within_deadline(self._timeout, partial(self._ask, client, _form(self._model, request)))

    def describe_model(self) -> ModelFacts:
        """models.retrieve, for the operator; raises `GeneratorError` and its kin."""
        return within_deadline(_CHECK_SECONDS, self._describe)

    def _describe(self) -> ModelFacts:
        with errors_mapped(self._model, self._api_key):
            self._client().models.retrieve(self._model)
        return ModelFacts(self._model, "ACTIVE")

    def _ask(self, client: OpenAI, form: dict[str, Any]) -> GeneratedImage:
        with errors_mapped(self._model, self._api_key):
            answer = client.images.with_raw_response.generate(**form)
        drawn = first(json_object(answer.content), "data")
        if not isinstance(drawn, dict):
            raise GeneratorError(detail="the answer holds no image")
        url = drawn.get("url")
        image = self._fetch(url) if url and not drawn.get("b64_json") else decoded(drawn.get("b64_json"))
        return GeneratedImage(image, self._model)

    def _fetch(self, url: object) -> bytes:
        """The image at `url`, from the server that drew it alone: others might be any inside our network.

        What goes wrong here is final: another try would draw, and be paid, again.
        """
        if not isinstance(url, str) or _origin(url) != _origin(str(self._client().base_url)):
            raise GeneratorError(detail="the answer's URL is not on the server of OPENAI_BASE_URL")
        try:
            answer = self._wire.send("GET", url, [(b"Accept", b"image/*")], b"")
        except GeneratorUnreachable as exc:
            raise GeneratorError(detail=f"the drawn image can't be fetched: {exc.detail}") from exc
        if answer.status != 200:
            raise GeneratorError(detail=f"the drawn image can't be fetched: {answer.status}")
        return answer.body

    def _new_client(self) -> OpenAI:
        """A client that leaves sending to `Wire` and retrying to us; servers without keys ignore the key."""
        return OpenAI(
            api_key=self._api_key or "none",
            base_url=self._base_url or None,
            max_retries=0,
            http_client=httpx2.Client(
                transport=_Transport(self._wire), headers={"Accept-Encoding": "identity"}
            ),
        )


class _Transport(httpx2.BaseTransport):
    """What OpenAI's client sends, over `Wire`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, read to its end; our errors pass the client unchanged."""
        answer = self._wire.send(request.method, str(request.url), request.headers.raw, request.read())
        return httpx2.Response(answer.status, headers=list(answer.headers), content=answer.body)


def _form(model: str, request: GenerationRequest) -> dict[str, Any]:
    """GPT models take a format and always answer base64; others have to be asked for base64."""
    form: dict[str, Any] = {
        "model": model,
        "prompt": _prompt(request),
        "n": 1,
        "size": openai_size(model, request.width, request.height),
    }
    if "gpt-image" not in model:
        return form | {"response_format": "b64_json"}
    return form | {"output_format": request.image_format if request.image_format in _FORMATS else "png"}


def _prompt(request: GenerationRequest) -> str:
    """The protocol has no negative prompt."""
    if not request.negative_prompt:
        return request.prompt
    return f"{request.prompt}\n\nLeave out: {request.negative_prompt}"


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Scheme, host and port, where they are those of a web address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.scheme in ("http", "https") else None
