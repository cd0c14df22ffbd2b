"""Differences between servers with OpenAI's API: which sizes and which parameters they accept.

Some differences follow from the name of the model. The other differences are learned from error responses,
since a name can hide the model: a deployment on Azure or an alias in LiteLLM may have any name. Behind it may
be a GPT image model, which refuses `response_format` and accepts only certain sizes.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from app.core.errors import GeneratorError
from app.generators.payload import parse_json
from app.generators.transport import ModelResponse, retry_after

PROMPT_REFUSED_CODES = {"moderation_blocked", "content_policy_violation"}

_OLDER_GPT_SIZES = ("1024x1024", "1536x1024", "1024x1536")
_SIDE_STEP = 16
_MIN_GPT_PIXELS = 655_360
"""Minimum number of pixels in an image of `gpt-image-2` and later models. The sides of these images are
multiples of `_SIDE_STEP` pixels (https://learn.microsoft.com/azure/foundry/openai/how-to/dall-e)."""

_PARAMETER_REFUSED_STATUSES = (400, 422)
"""Statuses with which servers refuse a parameter. FastAPI, and servers built on it, respond to an unknown
field with 422."""

_OPTIONAL_PARAMETERS = frozenset({"response_format", "output_format", "n"})
"""Parameters that can be left out without changing the image. They determine whether the response contains
base64 or a URL, the file format, and the number of images, which is one by default. `size` must not be left
out, since it changes the image."""

_MAX_SEARCHED_LENGTH = 4000
_SIZE = re.compile(r"(?<!\w)([1-9]\d{1,4}) ?[x×] ?([1-9]\d{1,4})(?!\w)")
"""Matches a size, such as 1024x768, in the text of an error response."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error response. Fields that the response does not contain are empty.

    `kind` is the field `type` of the error, and `parameter` is the request parameter that caused the error.
    `text` is the whole error as a string. `retry_after` is in seconds, or None if the response does not say
    when to retry.
    """

    status: int
    code: str
    kind: str
    parameter: str
    message: str
    text: str
    retry_after: float | None

    @classmethod
    def from_response(cls, response: ModelResponse) -> Self:
        """Parse an error response, whose body may be OpenAI's JSON, any other JSON, or plain text."""
        raw = response.body.decode("utf-8", "replace").strip()
        try:
            found = parse_json(response.body)
            error = found.get("error", found) if isinstance(found, dict) else found
            text = str(error)
            fields = error if isinstance(error, dict) else {}
            code, kind, parameter, message = (
                "" if fields.get(name) is None else str(fields[name])
                for name in ("code", "type", "param", "message")
            )
        except (GeneratorError, RecursionError):
            code = kind = parameter = message = ""
            text = raw
        wait = retry_after(response.headers)
        return cls(response.status, code, kind, parameter, message or text, text, wait)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server does not accept, as learned from its error responses.

    `left_out` contains the parameters that the server refuses. `sizes` contains the only sizes that the
    server accepts. If `sizes` is empty, the server is assumed to accept any size.
    """

    left_out: frozenset[str] = frozenset()
    sizes: frozenset[str] = frozenset()

    def translate(self, form: dict[str, Any]) -> dict[str, Any]:
        """Return `form` with only the parameters and sizes that this server accepts."""
        translated = {name: value for name, value in form.items() if name not in self.left_out}
        if self.sizes:
            width, height = map(int, form["size"].split("x"))
            translated["size"] = nearest_size(sorted(self.sizes), width, height)
        return translated

    def learn(self, form: dict[str, Any], refusal: Refusal) -> "Dialect | None":
        """Return a new dialect that takes the refusal of `form` into account.

        Return None if the new dialect would not change the request that the server refused.
        """
        if refusal.status not in _PARAMETER_REFUSED_STATUSES:
            return None
        if {refusal.code, refusal.kind} & PROMPT_REFUSED_CODES:
            return None
        sent, text = self.translate(form), refusal.text[:_MAX_SEARCHED_LENGTH]
        refused = {refusal.parameter} & form.keys() or _parameters_in(text, form)
        sizes = self.sizes
        if "size" in refused and not sizes:
            sizes = frozenset("x".join(pair) for pair in _SIZE.findall(text)) - {sent["size"]}
        learned = Dialect(self.left_out | (refused & _OPTIONAL_PARAMETERS), sizes)
        return learned if learned.translate(form) != sent else None


def _parameters_in(text: str, form: dict[str, Any]) -> set[str]:
    """Return the parameters of `form` that `text` mentions. Short names such as `n` must be in quotes."""
    found = {name for name in form if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}
    return {name for name in found if len(name) > 3 or re.search(rf"['\"`]{name}\\?['\"`]", text)}


def size_for(model: str, width: int, height: int) -> str:
    """Return the size to request from `model`, such as 1024x768.

    OpenAI's older models accept only three sizes. Its newer models require that both sides are multiples of
    16, that the image has at least 655,360 pixels, and that the longer side is at most three times as long as
    the shorter one. For other models, both sides are rounded up to multiples of 16.
    """
    name = model.rpartition("/")[2]
    if name.startswith(("gpt-image-1", "chatgpt-image")):
        return nearest_size(_OLDER_GPT_SIZES, width, height)
    scale = 1.0
    if name.startswith("gpt-image"):
        width, height = min(width, 3 * height), min(height, 3 * width)
        scale = max(1.0, math.sqrt(_MIN_GPT_PIXELS / (width * height)))
    return "x".join(str(math.ceil(side * scale / _SIDE_STEP) * _SIDE_STEP) for side in (width, height))


def nearest_size(sizes: Iterable[str], width: int, height: int) -> str:
    """Return the size in `sizes` with the aspect ratio nearest to width : height.

    If several sizes have this aspect ratio, return the one with the nearest area.
    """

    def distance(size: str) -> tuple[float, float]:
        across, down = map(int, size.split("x"))
        ratio = abs(math.log(across / down) - math.log(width / height))
        return ratio, abs(math.log(across * down / (width * height)))

    return min(sizes, key=distance)
