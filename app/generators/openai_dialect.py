"""How servers differ in OpenAI's protocol: sizes by a model's name, and what a refusal teaches.

A model's name does not say everything: a deployment on Azure or an alias of LiteLLM may be a GPT image model,
which refuses `response_format` and has sizes of its own.
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
"""Of `gpt-image-2` and later (https://learn.microsoft.com/azure/foundry/openai/how-to/dall-e)."""

_PARAMETER_REFUSED_STATUSES = (400, 422)
"""FastAPI, and servers built on it, answer 422 for a field that they don't know."""

_OPTIONAL_PARAMETERS = frozenset({"response_format", "output_format", "n"})
"""The image is the same without them: they choose base64 or a URL, the file's format, and one image, which
is the default. Without `size` it would be another image."""

_MAX_SEARCHED_LENGTH = 4000
_SIZE = re.compile(r"(?<!\w)([1-9]\d{1,4}) ?[x×] ?([1-9]\d{1,4})(?!\w)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error response. Texts are empty if the response does not hold them.

    `parameter` is the request's parameter at fault, `text` the error as a whole, `retry_after` in seconds.
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
        """Read OpenAI's error body, or that of another server: any JSON, or a text."""
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
    """What a server lacks of the protocol, learned from its refusals.

    `left_out` are parameters that it refuses. `sizes` are all that it takes, or empty if it takes any.
    """

    left_out: frozenset[str] = frozenset()
    sizes: frozenset[str] = frozenset()

    def translate(self, form: dict[str, Any]) -> dict[str, Any]:
        """Return `form` as this server takes it."""
        translated = {name: value for name, value in form.items() if name not in self.left_out}
        if self.sizes:
            width, height = map(int, form["size"].split("x"))
            translated["size"] = nearest_size(sorted(self.sizes), width, height)
        return translated

    def learn(self, form: dict[str, Any], refusal: Refusal) -> "Dialect | None":
        """Return a dialect in which `form` may be accepted after this refusal, or None if there is none."""
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
    """Return the parameters of `form` that a text names. A short name, such as n, counts only in quotes."""
    found = {name for name in form if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}
    return {name for name in found if len(name) > 3 or re.search(rf"['\"`]{name}\\?['\"`]", text)}


def size_for(model: str, width: int, height: int) -> str:
    """Return the size to request from `model`, such as 1024x768.

    OpenAI's older models have three sizes. The newer ones take multiples of 16 of at least 655,360 pixels,
    no side more than three times the other. Other models take any size.
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
    """Return the one of `sizes` whose aspect ratio is nearest to width : height; then, whose area is."""

    def distance(size: str) -> tuple[float, float]:
        across, down = map(int, size.split("x"))
        ratio = abs(math.log(across / down) - math.log(width / height))
        return ratio, abs(math.log(across * down / (width * height)))

    return min(sizes, key=distance)
