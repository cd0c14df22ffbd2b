"""Read responses from image models: find the image, and make the provider's messages safe to show.

The image in a response has already been paid for, so it must not be missed. Servers differ in where they put
the image and in how they encode it, so `find_image` searches every field that a known server uses.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

from app.core.errors import GeneratorError, GeneratorTimeout, PromptRefused

NO_CREDENTIALS = "The image model rejected the server's credentials. The server's log has the reason."
NO_QUOTA = "The quota for the image model is used up. The server's log has the reason."
NO_MODEL = "The image model is not available. The server's log has the reason."

MALFORMED_ERRORS = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""Exceptions that indicate JSON with an unexpected structure, such as a list instead of an object."""

_URL_FIELDS = ("url", "image_url")
_IMAGE_FIELDS = (
    *("b64_json", "b64", "base64", "image_base64", "b64_image", "image_b64", "image"),
    *_URL_FIELDS,
    *("data", "images", "artifacts", "output", "result", "results", "choices", "message"),
)
"""The JSON fields to search, in this order: fields that contain base64, fields that contain a URL, and fields
that contain an object or a list with such fields."""

_MAX_DEPTH = 8
_MAX_CANDIDATES = 10
_MAX_URL_LENGTH = 8192
_MAX_DATA_URI_HEAD = 1024
_MAX_SHOWN_LENGTH = 300

_IMAGE = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|RIFF....WEBP|....ftyp", re.DOTALL)
"""Matches the first bytes of PNG, JPEG, GIF, WebP and AVIF files. JSON never begins with these bytes."""

_BASE64 = re.compile(rb"\s*(iVBORw0KGgo|/9j/|R0lGOD|UklGR)")
"""Matches the first characters of PNG, JPEG, GIF and WebP files in base64. JSON never begins with these
characters."""

_QUOTED = re.compile(r"\s*b?(['\"])(.*)\1\s*", re.DOTALL)
"""Matches a quoted string, including b'…', the result of Python's `str()` for bytes."""

_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\f\v"


def find_image_in_body(body: bytes, fetch: Callable[[str], bytes]) -> bytes:
    """Return the image file in the body of a response. Raises `GeneratorError` if `find_image` does.

    The body may be the image file itself, the file in base64, a data: URI, or JSON. The response's media type
    is ignored, because it is often wrong.
    """
    if _IMAGE.match(body):
        return body
    if body[:5].lower() == b"data:" or _BASE64.match(body):
        return find_image(body.decode("ascii", "replace"), fetch)
    return find_image(parse_json(body), fetch)


def find_image(found: object, fetch: Callable[[str], bytes]) -> bytes:
    """Return the first image file in `found`, which is parsed JSON.

    The JSON may contain the image in base64, a data: URI, or the URL of the image, which `fetch` downloads.
    Raises `GeneratorError` if there is no image in a known format. The detail of the error says what was
    wrong with the first string that might have been an image.
    """
    problems = []
    for text, is_url in islice(_candidates(found, _MAX_DEPTH), _MAX_CANDIDATES):
        try:
            data = _read_candidate(text, fetch, is_url=is_url)
            if _IMAGE.match(data):
                return data
            problems.append(GeneratorError(detail=f"not an image in a known format: {data[:20]!r}"))
        except GeneratorTimeout:
            raise
        except GeneratorError as exc:
            problems.append(exc)
    raise problems[0] if problems else GeneratorError(detail="the response contains no image")


def _candidates(value: object, depth: int, *, is_url: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield a pair for each string that may be an image: the string, and whether its field is for URLs."""
    if isinstance(value, str) and value.strip():
        yield value, is_url
    elif isinstance(value, list) and depth:
        for item in value[:_MAX_CANDIDATES]:
            yield from _candidates(item, depth - 1, is_url=is_url)
    elif isinstance(value, dict) and depth:
        for name in (name for name in _IMAGE_FIELDS if name in value):
            yield from _candidates(value[name], depth - 1, is_url=name in _URL_FIELDS)


def _read_candidate(text: str, fetch: Callable[[str], bytes], *, is_url: bool) -> bytes:
    """Return the bytes that `text` encodes, or the bytes at the URL in `text`.

    `is_url` is true if `text` comes from a field for URLs. `text` may then be a relative URL.
    """
    start = text[:_MAX_URL_LENGTH].strip().lower()
    if not start.startswith(("http://", "https://")):
        try:
            data = decode_image(text)
        except GeneratorError:
            data = b""
        if _IMAGE.match(data):
            return data
        if not is_url or start.startswith("data:"):
            return data or decode_image(text)
    if len(text) > _MAX_URL_LENGTH:
        raise GeneratorError(detail=f"a URL of {len(text)} characters")
    return fetch(text.strip())


def decode_image(text: str) -> bytes:
    """Return the bytes in `text`, which is base64 or a data: URI (RFC 2397).

    Base64 is accepted in both alphabets of RFC 4648, with or without white space and padding. `text` may be
    in quotes. Raises `GeneratorError` if `text` is neither base64 nor a data: URI.
    """
    if not text.strip():
        raise GeneratorError(detail="the response contains no image")
    quoted = _QUOTED.fullmatch(text)
    head, rest = _split_data_uri(quoted[2] if quoted else text)
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


def _split_data_uri(text: str) -> tuple[str, str]:
    """Return a pair: the head of a data: URI in lower case, such as `data:image/png;base64`, and its data.

    If `text` is not a data: URI, the head is empty, and the data is `text`.
    """
    head, comma, rest = text[:_MAX_DATA_URI_HEAD].partition(",")
    head = head.strip().lower()
    if comma and (head.startswith("data:") or head.endswith("base64")):
        return head, rest + text[_MAX_DATA_URI_HEAD:]
    return "", text


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body. Raises `GeneratorError` if the body is not JSON.

    Invalid bytes and control characters in strings are accepted, so that they don't cause the loss of an
    image.
    """
    try:
        return json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
    except (ValueError, RecursionError) as exc:
        raise GeneratorError(detail="the response is not JSON") from exc


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Return the object in a JSON body. Raises `GeneratorError` if the body is not a JSON object."""
    found = parse_json(body)
    if not isinstance(found, dict):
        raise GeneratorError(detail="the response is not a JSON object")
    return found


def one_line(text: object, secret: str = "") -> str:
    """Return a provider's text as one printable line of at most 300 characters. `secret` is masked as ***."""
    shown = str(text)
    if secret:
        shown = shown.replace(secret, "***")
    shown = "".join(char if char.isprintable() else " " for char in shown[: 10 * _MAX_SHOWN_LENGTH])
    return " ".join(shown.split())[:_MAX_SHOWN_LENGTH]


def prompt_refused(reason: str) -> PromptRefused:
    """Return the error for a refused prompt.

    `reason` is the provider's reason, as returned by `one_line`, or empty if there is none.
    """
    text = reason.rstrip(".")
    return PromptRefused(f"The image model refused this prompt: {text}. Please change it." if text else None)
