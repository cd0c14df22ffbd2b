"""What people are told where a provider says no, to the prompt or to us.

What a model's answer holds, and what of its texts may be shown.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

from app.core.errors import GeneratorError, GeneratorTimeout, PromptRefused

_MAX_TEXT = 300

_URL_FIELDS = ("url", "image_url")
_FIELDS = (
    *("b64_json", "b64", "base64", "image_base64", "b64_image", "image_b64", "image"),
    *_URL_FIELDS,
    *("data", "images", "artifacts", "output", "result", "results", "choices", "message"),
)
"""Where OpenAI, Bedrock and servers like them put an image, base64 before URLs, and what may hold those."""

_MOST_DEPTH = 8
_MOST_TEXTS = 10
_LONGEST_URL = 8192
_LONGEST_HEAD = 1024

_IMAGE = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|RIFF....WEBP|....ftyp", re.DOTALL)
"""How the files of the five formats begin; no JSON does."""

_BASE64 = re.compile(rb"\s*(iVBORw0KGgo|/9j/|R0lGOD|UklGR)")
"""How base64 of most of them begins; no JSON does, either."""

_QUOTED = re.compile(r"\s*b?(['\"])(.*)\1\s*", re.DOTALL)
"""A text in quotes, as Python shows bytes: b'…' is what `str()` makes of them."""

_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\f\v"

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What vendors' clients raise for JSON of an unexpected shape, such as a list in place of an object."""


def json_value(body: bytes) -> Any:
    """Return the JSON in `body`; raises `GeneratorError`.

    Invalid bytes and control characters within its strings are accepted: none of them is worth an image.
    """
    try:
        return json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
    except (ValueError, RecursionError) as exc:
        raise GeneratorError(detail="the answer is not JSON") from exc


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`; raises `GeneratorError`."""
    found = json_value(body)
    if not isinstance(found, dict):
        raise GeneratorError(detail="the answer is not a JSON object")
    return found


def first(found: dict[str, Any], name: str) -> Any:
    """The first element of the list `name`, or None."""
    value = found.get(name)
    return value[0] if isinstance(value, list) and value else None


def image_in_answer(body: bytes, fetch: Callable[[str], bytes]) -> bytes:
    """Return the image file that an answer is or holds, as `image_in` does; its media type is ignored."""
    if _IMAGE.match(body):
        return body
    if body[:5].lower() == b"data:" or _BASE64.match(body):
        return image_in(body.decode("ascii", "replace"), fetch)
    return image_in(json_value(body), fetch)


def image_in(found: object, fetch: Callable[[str], bytes]) -> bytes:
    """Return the first image file in JSON: base64, a data: URI, or what `fetch` returns for a URL.

    The image is paid for, so it is looked for wherever servers are known to put it. Raises `GeneratorError`
    if nothing there begins like an image in a format that we know, with what was wrong with the first text.
    """
    problems = []
    for text, is_url in islice(_texts(found, _MOST_DEPTH), _MOST_TEXTS):
        try:
            data = _file(text, fetch, is_url=is_url)
            if _IMAGE.match(data):
                return data
            problems.append(GeneratorError(detail=f"not an image in a known format: {data[:20]!r}"))
        except GeneratorTimeout:
            raise
        except GeneratorError as exc:
            problems.append(exc)
    raise problems[0] if problems else GeneratorError(detail="the answer holds no image")


def _file(text: str, fetch: Callable[[str], bytes], *, is_url: bool) -> bytes:
    """Return the file that a text holds or leads to; with `is_url` it stands in the place of a URL."""
    start = text[:_LONGEST_URL].strip().lower()
    if not start.startswith(("http://", "https://")):
        try:
            data = decoded(text)
        except GeneratorError:
            data = b""
        if _IMAGE.match(data):
            return data
        if not is_url or start.startswith("data:"):
            return data or decoded(text)
    if len(text) > _LONGEST_URL:
        raise GeneratorError(detail=f"a URL of {len(text)} characters")
    return fetch(text.strip())


def _texts(value: object, depth: int, *, is_url: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the texts in `value` that may be images, and whether each stands in the place of a URL."""
    if isinstance(value, str) and value.strip():
        yield value, is_url
    elif isinstance(value, list) and depth:
        for item in value[:_MOST_TEXTS]:
            yield from _texts(item, depth - 1, is_url=is_url)
    elif isinstance(value, dict) and depth:
        for name in (name for name in _FIELDS if name in value):
            yield from _texts(value[name], depth - 1, is_url=name in _URL_FIELDS)


def decoded(text: object) -> bytes:
    """Return the bytes in `text`, base64 or a data: URI (RFC 2397); raises `GeneratorError`.

    The alphabet may be either of RFC 4648, with white space, and without padding.
    """
    if not isinstance(text, str) or not text.strip():
        raise GeneratorError(detail="the answer holds no image")
    quoted = _QUOTED.fullmatch(text)
    head, rest = _split(quoted[2] if quoted else text)
    try:
        if "%" in rest or (head and "base64" not in head):
            plain = unquote_to_bytes(rest)
            if _IMAGE.match(plain):
                return plain
            rest = plain.decode("ascii")
        code = rest.replace("\\n", "").replace("\\r", "").encode("ascii")
        code = code.translate(_STANDARD_ALPHABET, _WHITE_SPACE).rstrip(b"=")
        return base64.b64decode(code + b"=" * (-len(code) % 4), validate=True)
    except ValueError as exc:
        raise GeneratorError(detail="the image is not valid base64") from exc


def _split(text: str) -> tuple[str, str]:
    """Return what stands before the data, such as `data:image/png;base64`, in lower case, and the data."""
    head, comma, rest = text[:_LONGEST_HEAD].partition(",")
    head = head.strip().lower()
    if comma and (head.startswith("data:") or head.endswith("base64")):
        return head, rest + text[_LONGEST_HEAD:]
    return "", text


def cleaned(text: object, secret: str = "") -> str:
    """A provider's text in one printable line of bounded length, `secret` masked."""
    shown = str(text)
    if secret:
        shown = shown.replace(secret, "***")
    shown = "".join(char if char.isprintable() else " " for char in shown[: 10 * _MAX_TEXT])
    return " ".join(shown.split())[:_MAX_TEXT]


NO_CREDENTIALS = "The image model refused our credentials. Its operator finds the reason in the log."
NO_QUOTA = "The quota for the image model is used up. Its operator finds the reason in the log."
NO_MODEL = "The image model is not available. Its operator finds the reason in the log."


def refusal(reason: object, secret: str = "") -> PromptRefused:
    """The refusal of a prompt, with the provider's reason, cleaned and without `secret`."""
    text = cleaned(reason, secret).rstrip(".")
    return PromptRefused(f"The image model refused this prompt: {text}. Please change it." if text else None)
