"""OpenAI's image models, and servers that speak their protocol: LocalAI, vLLM and others.

The errors of OpenAI's client become ours, here and nowhere else.

What a server's dialect of OpenAI's protocol lacks, learned from its refusals.

A name does not tell what a model takes: an Azure deployment or an alias of LiteLLM may be a GPT image model,
which refuses `response_format`, and has sizes of its own.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx2
from openai import APIStatusError, OpenAI, OpenAIError

from app.config.settings import Config
from app.core.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest, ModelFacts
from app.generators.payload import (
    NO_CREDENTIALS,
    NO_MODEL,
    NO_QUOTA,
    UNREADABLE,
    cleaned,
    image_in_answer,
    refusal,
)
from app.generators.sizes import nearest_size, openai_size
from app.generators.transport import (
    Answer,
    PerProcess,
    Wire,
    repeated,
    retry_after,
    same_server,
    within_deadline,
)

BLOCKED = {"moderation_blocked", "content_policy_violation"}
"""The codes of a refused prompt."""

_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_NO_MODEL = {"model_not_found", "model_deprecated"}
_AGAIN = {408, 409, 429}


@contextmanager
def errors_mapped(model: str, secret: str) -> Iterator[None]:
    """Raise our error for whatever OpenAI's client raises inside; `secret` is masked in its texts."""
    try:
        yield
    except APIStatusError as exc:
        raise _answered(exc, model, secret) from exc
    except OpenAIError as exc:
        raise GeneratorError(detail=f"{type(exc).__name__}: {cleaned(exc, secret)}") from exc
    except UNREADABLE as exc:
        raise GeneratorError(detail=f"an answer that can't be read: {type(exc).__name__}") from exc


def _answered(exc: APIStatusError, model: str, secret: str) -> AppError:
    status, codes = exc.status_code, {str(exc.code), str(exc.type)}  # of whatever types the JSON has
    said = (isinstance(exc.body, dict) and exc.body.get("message")) or exc.body  # FastAPI says `detail`
    detail = f"{status} {cleaned(exc.code or '')}: {cleaned(said, secret)}"
    if codes & _NO_QUOTA:
        return GeneratorRefused(NO_QUOTA, detail=detail)
    if status in _AGAIN or status >= 500:
        return GeneratorUnreachable(detail=detail, wait=retry_after(exc.response.headers))
    if codes & BLOCKED or exc.param == "prompt":
        return refusal(said, secret)
    if status == 404 or codes & _NO_MODEL or exc.param == "model":
        return GeneratorRefused(NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={model}: choose another)")
    if status in (401, 403):
        return GeneratorRefused(NO_CREDENTIALS, detail=detail)
    return GeneratorRefused(detail=detail)


_REFUSED = (400, 422)
"""FastAPI, and what is built on it, answers 422 for a field that it does not know."""

_OPTIONAL = ("response_format", "output_format", "n")
"""Parameters whose absence does not change what is seen: whether base64 or a URL is answered, the file's
format, and that one image is wanted, which is the default. Without `size` the picture would be another."""

_LONGEST_MESSAGE = 4000
_SIZES = re.compile(r"(?<!\w)([1-9]\d{1,4}) ?[x×] ?([1-9]\d{1,4})(?!\w)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """Parameters that are not sent, and sizes of which one is chosen; none means any."""

    left_out: frozenset[str] = frozenset()
    sizes: frozenset[str] = frozenset()

    def form(self, form: dict[str, Any]) -> dict[str, Any]:
        """Return `form` as this server takes it."""
        spoken = {name: value for name, value in form.items() if name not in self.left_out}
        if self.sizes:
            width, height = map(int, form["size"].split("x"))
            spoken["size"] = nearest_size(sorted(self.sizes), width, height)
        return spoken

    def after(self, form: dict[str, Any], refusal: APIStatusError) -> "Dialect | None":
        """Return the dialect in which `form` may be accepted after this refusal; None if there is none."""
        if refusal.status_code not in _REFUSED or {str(refusal.code), str(refusal.type)} & BLOCKED:
            return None
        sent, text = self.form(form), str(refusal.body)[:_LONGEST_MESSAGE]
        named = {str(refusal.param)} & form.keys() or _named_in(text, form)
        left_out = self.left_out | named.intersection(_OPTIONAL)
        sizes = self.sizes
        if "size" in named and not sizes:
            sizes = frozenset("x".join(pair) for pair in _SIZES.findall(text)) - {sent["size"]}
        learned = Dialect(left_out, sizes)
        return learned if learned.form(form) != sent else None


def _named_in(text: str, form: dict[str, Any]) -> set[str]:
    """Return which parameters of `form` a text names; a short name counts only in quotes."""
    found = {name for name in form if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}
    return {name for name in found if len(name) > 3 or re.search(rf"['\"`]{name}\\?['\"`]", text)}


_log = logging.getLogger(__name__)

_FORMATS = ("png", "jpeg", "webp")
_CHECK_SECONDS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 3
_NOT_YET = (404, 408, 425, 429)
"""Statuses after which another try may get the image; some servers answer before they have written it."""


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
        self._dialect = Dialect()
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
            answer = self._answer(client, form)
        return GeneratedImage(image_in_answer(answer, self._fetch), self._model)

    def _answer(self, client: OpenAI, form: dict[str, Any]) -> bytes:
        """Send `form`, and again without what the server refuses in it, which costs nothing.

        What was left out when it accepted is left out from then on; a size is chosen anew each time.
        """
        dialect = self._dialect
        while True:
            try:
                answer = client.images.with_raw_response.generate(**dialect.form(form)).content
            except APIStatusError as exc:
                learned = dialect.after(form, exc)
                if learned is None:
                    raise
                dialect = learned
            else:
                if more := dialect.left_out - self._dialect.left_out:
                    _log.warning("%s refuses %s: no longer sent", self._model, ", ".join(sorted(more)))
                    self._dialect = Dialect(self._dialect.left_out | more)
                return answer

    def _fetch(self, url: str) -> bytes:
        """The image at `url`, from the server that drew it alone: others might be any inside our network.

        What goes wrong here is final: to ask the model again would draw, and be paid, again. To ask for the
        image again costs nothing.
        """
        try:
            return repeated(partial(self._download, str(self._client().base_url), url))
        except GeneratorUnreachable as exc:
            raise GeneratorError(detail=f"the drawn image can't be fetched: {exc.detail}") from exc

    def _download(self, base: str, url: str) -> bytes:
        """What is at `url`, relative to `base` or not, or where that server redirects to on itself."""
        for _ in range(1 + _MOST_REDIRECTS):
            place = same_server(base, url)
            if place is None:
                raise GeneratorError(detail="the answer's URL is not on the server of OPENAI_BASE_URL")
            answer = self._get(place)
            location = next((value for name, value in answer.headers if name.lower() == b"location"), b"")
            if answer.status not in _REDIRECTS or not location:
                break
            base, url = place, location.decode("latin-1")
        if answer.status in _NOT_YET or answer.status >= 500:
            raise GeneratorUnreachable(detail=str(answer.status))
        if answer.status != 200:
            raise GeneratorError(detail=f"the drawn image can't be fetched: {answer.status}")
        return answer.body

    def _get(self, url: str) -> Answer:
        """The server that drew it has our key already, and may want it again."""
        accept, key = (b"Accept", b"image/*"), (b"Authorization", f"Bearer {self._api_key}".encode())
        answer = self._wire.send("GET", url, [accept], b"")
        if answer.status in (401, 403) and self._api_key:
            answer = self._wire.send("GET", url, [accept, key], b"")
        return answer

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
