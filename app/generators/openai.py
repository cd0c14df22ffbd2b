"""OpenAI's image models, and servers that speak its protocol: LocalAI, vLLM, LiteLLM and others.

A generation is one POST (https://platform.openai.com/docs/api-reference/images/create). We send it ourselves,
because OpenAI's client costs a second and 25 MiB to import, and bounds neither time nor size.
"""

import base64
import json
import logging
import os
from typing import Any, Self
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from app.config.settings import Config
from app.core.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest, ModelFacts
from app.generators.openai_dialect import PROMPT_REFUSED_CODES, Dialect, Refusal, size_for
from app.generators.payload import (
    NO_CREDENTIALS,
    NO_MODEL,
    NO_QUOTA,
    find_image_in_body,
    one_line,
    parse_json_object,
    prompt_refused,
)
from app.generators.transport import ModelResponse, Transport, deadline, retry

_OPENAI_URL = "https://api.openai.com/v1"
_USER_AGENT = "s3-image-server"
_FORMATS = ("png", "jpeg", "webp")
_DESCRIBE_TIMEOUT_SECONDS = 10

_NO_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_NO_MODEL_CODES = {"model_not_found", "model_deprecated"}
_RETRIED_STATUSES = {408, 409, 429}

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 3
_RETRIED_DOWNLOAD_STATUSES = (404, 408, 425, 429)
"""Some servers send the URL of an image before they have written the image."""

_PORTS = {"http": 80, "https": 443}
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
"""Host names that servers use in URLs if nobody has configured their own name."""

_SAFE_IN_SEGMENTS = ":@!$&'()*+,;="
_SAFE_IN_PATHS = _SAFE_IN_SEGMENTS + "/%"

_log = logging.getLogger(__name__)


class OpenAIGenerator(BaseGenerator):
    """Generates images with `model` of OpenAI, or of the server at `base_url`.

    `timeout` is in seconds and applies to all attempts together, and to the download of the image.
    """

    def __init__(self, model: str, *, api_key: str = "", base_url: str = "", timeout: float) -> None:
        self._model = model
        self._api_key = api_key
        parts = urlsplit(base_url or _OPENAI_URL)
        self._headers = _headers(api_key, parts.username, parts.password)
        self._query = parts.query
        host = parts.netloc.rpartition("@")[2]
        host = host if host.isascii() else host.encode("idna").decode()
        path = quote(parts.path.rstrip("/"), safe=_SAFE_IN_PATHS) + "/"
        self._base_url = urlunsplit((parts.scheme, host, path, "", ""))
        self._timeout = timeout
        self._transport = Transport()
        self._dialect = Dialect()

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return a generator with `GENERATOR_MODEL`, `OPENAI_API_KEY` and `OPENAI_BASE_URL`."""
        return cls(
            config.generator_model,
            api_key=config.openai_api_key,
            base_url=config.openai_base_url,
            timeout=config.generator_timeout,
        )

    def model_name(self) -> str:
        """Return the model's id, as configured."""
        return self._model

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """POST images/generations with the nearest size that the model takes. There are no seeds."""
        form = _form(self._model, request)
        with deadline(self._timeout):
            body = retry(lambda: self._post(form))
            return GeneratedImage(find_image_in_body(body, self._fetch), self._model)

    def describe_model(self) -> ModelFacts:
        """GET models/{id}; a model that the server describes is ACTIVE."""
        path = f"models/{quote(self._model, safe=_SAFE_IN_SEGMENTS)}"
        with deadline(_DESCRIBE_TIMEOUT_SECONDS):
            response = retry(lambda: self._raise_for_status(self._send("GET", path)))
        parse_json_object(response.body)
        return ModelFacts(self._model, "ACTIVE")

    def _post(self, form: dict[str, Any]) -> bytes:
        """Send `form`, and again without each parameter that the server refuses, which costs nothing.

        Parameters that were left out when the server accepted are left out from then on. A size is chosen
        again for each request.
        """
        dialect = self._dialect
        while True:
            response = self._send("POST", "images/generations", dialect.translate(form))
            if 200 <= response.status < 300:
                break
            refusal = Refusal.from_response(response)
            learned = dialect.learn(form, refusal)
            if learned is None:
                raise self._error_for(refusal)
            dialect = learned
        if more := dialect.left_out - self._dialect.left_out:
            _log.warning("%s refuses %s: no longer sent", self._model, ", ".join(sorted(more)))
            self._dialect = Dialect(self._dialect.left_out | more)
        return response.body

    def _send(self, method: str, path: str, form: dict[str, Any] | None = None) -> ModelResponse:
        url = f"{self._base_url}{path}" + (f"?{self._query}" if self._query else "")
        if form is None:
            return self._transport.send(method, url, self._headers)
        body = json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return self._transport.send(method, url, {"content-type": "application/json", **self._headers}, body)

    def _raise_for_status(self, response: ModelResponse) -> ModelResponse:
        if 200 <= response.status < 300:
            return response
        raise self._error_for(Refusal.from_response(response))

    def _error_for(self, refusal: Refusal) -> AppError:
        """Return our error for an error response; details hold the provider's text, without the API key."""
        status, codes = refusal.status, {refusal.code, refusal.kind}
        message = one_line(refusal.message, self._api_key)
        detail = f"{status} {one_line(refusal.code, self._api_key)}: {message}"
        if codes & _NO_QUOTA_CODES:
            return GeneratorRefused(NO_QUOTA, detail=detail)
        if status in _RETRIED_STATUSES or status >= 500:
            return GeneratorUnreachable(detail=detail, wait=refusal.retry_after)
        if codes & PROMPT_REFUSED_CODES or refusal.parameter == "prompt":
            return prompt_refused(message)
        if status == 404 or codes & _NO_MODEL_CODES or refusal.parameter == "model":
            return GeneratorRefused(
                NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={self._model}: choose another)"
            )
        if status in (401, 403):
            return GeneratorRefused(NO_CREDENTIALS, detail=detail)
        return GeneratorRefused(detail=detail)

    def _fetch(self, url: str) -> bytes:
        """Download the image at `url`, from the server that generated it and from no other.

        Another server might be any inside our network. A failure is final: to ask the model again would
        generate, and be paid for, again. To download again costs nothing.
        """
        try:
            return retry(lambda: self._download(url))
        except GeneratorUnreachable as exc:
            raise GeneratorError(detail=f"the generated image can't be downloaded: {exc.detail}") from exc

    def _download(self, url: str) -> bytes:
        base = self._base_url
        for _ in range(1 + _MAX_REDIRECTS):
            address = url_on_same_server(base, url)
            if address is None:
                raise GeneratorError(detail="the response's URL is not on the server of OPENAI_BASE_URL")
            headers = {"accept": "image/*", "user-agent": _USER_AGENT}
            response = self._transport.send("GET", address, headers)
            if response.status in (401, 403) and self._api_key:  # which this server has already
                headers["authorization"] = f"Bearer {self._api_key}"
                response = self._transport.send("GET", address, headers)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                break
            base, url = address, location
        if response.status in _RETRIED_DOWNLOAD_STATUSES or response.status >= 500:
            raise GeneratorUnreachable(detail=str(response.status))
        if response.status != 200:
            raise GeneratorError(detail=f"the generated image can't be downloaded: {response.status}")
        return response.body


def _headers(api_key: str, user: str | None, password: str | None) -> dict[str, str]:
    """Return the headers of every request, names in lower case.

    User and password are those in the base URL. Servers that take no key ignore the one that they get.
    The variables are those of OpenAI's own clients; OPENAI_CUSTOM_HEADERS has a header in each line.
    """
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "authorization": f"Bearer {api_key or 'none'}",
        "user-agent": _USER_AGENT,
    }
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    for name, variable in (
        ("openai-organization", "OPENAI_ORG_ID"),
        ("openai-project", "OPENAI_PROJECT_ID"),
    ):
        if value := os.environ.get(variable):
            headers[name] = value
    for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def _form(model: str, request: GenerationRequest) -> dict[str, Any]:
    """Return the parameters of a request.

    GPT models take a file format and always answer base64. Other models must be asked for base64. The
    protocol has no negative prompt, so it becomes part of the prompt.
    """
    prompt = request.prompt
    if request.negative_prompt:
        prompt += f"\n\nLeave out: {request.negative_prompt}"
    size = size_for(model, request.width, request.height)
    form: dict[str, Any] = {"model": model, "prompt": prompt, "n": 1, "size": size}
    if "gpt-image" not in model:
        return form | {"response_format": "b64_json"}
    return form | {"output_format": request.image_format if request.image_format in _FORMATS else "png"}


def url_on_same_server(base: str, url: str) -> str | None:
    """Return the address of `url`, which may be relative to `base`, or None if it is on another server.

    The result has the scheme, host and port of `base`. A local host name in `url` means the server of
    `base`. An http URL counts as that server's if `base` is https: behind a proxy that ends TLS, servers
    often don't know their own scheme.
    """
    try:
        target, server = urlsplit(urljoin(base, url)), urlsplit(base)
        ports = [parts.port or _PORTS[parts.scheme] for parts in (target, server)]
        path = quote(target.path or "/", safe=_SAFE_IN_PATHS + "?")
        query = quote(target.query, safe=_SAFE_IN_PATHS + "?")
    except (ValueError, KeyError):
        return None
    is_upgraded = (target.scheme, server.scheme) == ("http", "https") and ports == [80, 443]
    is_same = target.scheme == server.scheme and ports[0] == ports[1]
    if target.hostname not in (server.hostname, *_LOCAL_HOSTS) or not (is_same or is_upgraded):
        return None
    return urlunsplit((server.scheme, server.netloc.rpartition("@")[2], path, query, ""))
