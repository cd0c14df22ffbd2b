"""OpenAI's image models, and servers with a compatible API: LocalAI, vLLM, LiteLLM and others.

Generating an image takes one POST request (https://platform.openai.com/docs/api-reference/images/create). We
send it without OpenAI's client library, because importing the library takes a second and 25 MiB of memory,
and because the library limits neither the total time nor the size of a response.
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
"""Statuses after which the download of an image is retried. Some servers send the URL of an image before the
image is available."""

_PORTS = {"http": 80, "https": 443}
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
"""Host names that servers use in the URLs of images if their own host name is not configured."""

_SAFE_IN_SEGMENTS = ":@!$&'()*+,;="
_SAFE_IN_PATHS = _SAFE_IN_SEGMENTS + "/%"

_log = logging.getLogger(__name__)


class OpenAIGenerator(BaseGenerator):
    """Generates images with `model` on the server at `base_url`, which is OpenAI by default.

    `timeout` is the time limit in seconds for all attempts and the download of the image together.
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
        """Return a generator that uses `GENERATOR_MODEL`, `OPENAI_API_KEY` and `OPENAI_BASE_URL`."""
        return cls(
            config.generator_model,
            api_key=config.openai_api_key,
            base_url=config.openai_base_url,
            timeout=config.generator_timeout,
        )

    def model_name(self) -> str:
        """Return the ID of the model, as configured."""
        return self._model

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Request an image in the nearest size that the model accepts. The API does not support seeds."""
        form = _form(self._model, request)
        with deadline(self._timeout):
            body = retry(lambda: self._post(form))
            return GeneratedImage(find_image_in_body(body, self._fetch), self._model)

    def describe_model(self) -> ModelFacts:
        """Request the model's description. The API has no status, so any model that exists is ACTIVE."""
        path = f"models/{quote(self._model, safe=_SAFE_IN_SEGMENTS)}"
        with deadline(_DESCRIBE_TIMEOUT_SECONDS):
            response = retry(lambda: self._raise_for_status(self._send("GET", path)))
        parse_json_object(response.body)
        return ModelFacts(self._model, "ACTIVE")

    def _post(self, form: dict[str, Any]) -> bytes:
        """Send `form`, and return the body of the response.

        If the server refuses a parameter, send `form` again without this parameter, and leave the parameter
        out of later requests as well. If the server refuses the size, send `form` again with the nearest size
        that the error response lists. Later requests try their own size first. Refused requests are not
        billed.
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
            _log.warning("%s refuses %s; no longer sending it", self._model, ", ".join(sorted(more)))
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
        """Return the `AppError` for an error response.

        The `detail` of the `AppError` contains the provider's message, with the API key masked.
        """
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
                NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={self._model}: choose a different model)"
            )
        if status in (401, 403):
            return GeneratorRefused(NO_CREDENTIALS, detail=detail)
        return GeneratorRefused(detail=detail)

    def _fetch(self, url: str) -> bytes:
        """Download the image at `url`, which must be on the server that generated the image.

        A URL on a different server might lead into our private network. Failed downloads are retried, since
        downloads are not billed. If the last attempt fails, the request for the image is not repeated, since
        the provider would bill it again.
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
            if response.status in (401, 403) and self._api_key:  # this server already knows the key
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
    """Return the headers of every request, with names in lower case.

    `user` and `password` come from the base URL. If there is no API key, a placeholder is sent, which servers
    that need no key ignore. The environment variables are those that OpenAI's own clients read.
    OPENAI_CUSTOM_HEADERS contains one header per line.
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
    """Return the parameters of a request for an image.

    GPT models accept a file format and always return base64. Other models return base64 only on request. The
    API does not support negative prompts, so the negative prompt becomes part of the prompt.
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
    """Return `url` as an absolute URL with the scheme, host and port of `base`.

    Return None if `url` is on a different server than `base`. `url` may be relative to `base`. A local host
    name in `url` is taken to mean the server of `base`. If the scheme of `base` is https, the scheme of `url`
    may be http, because servers behind a proxy that terminates TLS often don't know their own scheme.
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
