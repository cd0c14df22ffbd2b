"""What a model's answer holds, and what of its texts may be shown."""

import base64
import json
from typing import Any

from app.errors import GeneratorError

_MAX_TEXT = 300

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What vendors' clients raise for JSON of an unexpected shape, such as a list in place of an object."""


def json_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object; raises `GeneratorError`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise GeneratorError(detail="the answer is not JSON") from exc
    if not isinstance(found, dict):
        raise GeneratorError(detail="the answer is not a JSON object")
    return found


def first(found: dict[str, Any], name: str) -> Any:
    """The first element of the list `name`, or None."""
    value = found.get(name)
    return value[0] if isinstance(value, list) and value else None


def decoded(text: object) -> bytes:
    """The bytes in `text`, base64; raises `GeneratorError`."""
    if not isinstance(text, str) or not text:
        raise GeneratorError(detail="the answer holds no image")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise GeneratorError(detail="the image is not valid base64") from exc


def cleaned(text: object, secret: str = "") -> str:
    """A provider's text in one printable line of bounded length, `secret` masked."""
    shown = str(text)
    if secret:
        shown = shown.replace(secret, "***")
    shown = "".join(char if char.isprintable() else " " for char in shown[: 10 * _MAX_TEXT])
    return " ".join(shown.split())[:_MAX_TEXT]
