"""Differences between servers with OpenAI's API: which sizes and which parameters they accept.

Some differences follow from the name of the model. The rest is learned from error responses, since the name
does not say everything: a deployment on Azure or an alias in LiteLLM may be a GPT image model, which refuses
`response_format` and accepts only certain sizes.
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
"""The minimum size and the step of a side in pixels, for `gpt-image-2` and later models
(https://learn.microsoft.com/azure/foundry/openai/how-to/dall-e)."""

_PARAMETER_REFUSED_STATUSES = (400, 422)
"""Statuses of error responses that may be about a parameter. FastAPI, and servers built on it, respond with
422 to an unknown field."""

_OPTIONAL_PARAMETERS = frozenset({"response_format", "output_format", "n"})
"""Parameters without which the image stays the same. They choose between base64 and a URL, the file format,
and the number of images, which is one by default. `size` is not among them, since it changes the image."""

_MAX_SEARCHED_LENGTH = 4000
_SIZE = re.compile(r"(?<!\w)([1-9]\d{1,4}) ?[x×] ?([1-9]\d{1,4})(?!\w)")
"""Matches a size in the text of an error response, such as 1024x768."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error response. Fields that the response does not contain are empty.

    `kind` is the field `type` of the error, and `parameter` is the request parameter that caused it. `text`
    is the whole error as text. `retry_after` is in seconds, or None if the response does not say when to
    retry.
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
        """Read the body of an error response: OpenAI's JSON, any other JSON, or plain text."""
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
    """What a server does not accept, learned from its error responses.

    `left_out` are the parameters that it refuses. `sizes` are the only sizes that it accepts, or empty if it
    accepts any size.
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
        """Return a new dialect in which the server may accept `form`, given its refusal.

        Return None if the refusal has nothing to do with the dialect.
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
    """Return the parameters of `form` that `text` mentions. Short names such as `n` count only in quotes."""
    found = {name for name in form if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}
    return {name for name in found if len(name) > 3 or re.search(rf"['\"`]{name}\\?['\"`]", text)}


def size_for(model: str, width: int, height: int) -> str:
    """Return the size to request from `model`, such as 1024x768.

    OpenAI's older models accept three sizes. The newer models accept sides that are multiples of 16, at least
    655,360 pixels in total, and no side more than three times as long as the other. Other models accept any
    size.
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

    If several have that aspect ratio, return the one with the nearest area.
    """

    def distance(size: str) -> tuple[float, float]:
        across, down = map(int, size.split("x"))
        ratio = abs(math.log(across / down) - math.log(width / height))
        return ratio, abs(math.log(across * down / (width * height)))

    return min(sizes, key=distance)
