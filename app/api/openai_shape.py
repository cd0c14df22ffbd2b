"""Errors as OpenAI's API tells them: what its clients make their error classes of, below /v1.

https://developers.openai.com/api/docs/guides/error-codes
"""

from typing import Any

OPENAI_PATH = "/v1/"

_STATUSES = {"key_refused": 401, "prompt_refused": 400}
"""Where OpenAI's status is another than ours."""

_CODES = {
    "bad_request": "invalid_value",
    "key_refused": "invalid_api_key",
    "key_required": "invalid_api_key",
    "prompt_refused": "moderation_blocked",
    "generator_busy": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
}

_NOT_PAID_FOR = "busy"
"""The one 5xx that surely came before the model was asked."""


def openai_status(status: int, code: str) -> int:
    """The status that OpenAI answers in this case."""
    return _STATUSES.get(code, status)


def openai_error(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    """The body for an error of ours."""
    return {
        "error": {
            "message": message,
            "type": _type(status, code),
            "param": param,
            "code": _CODES.get(code, code),
        }
    }


def openai_headers(status: int, code: str) -> dict[str, str]:
    """What the official clients obey besides: not to try again by themselves where the model may be paid."""
    return {"X-Should-Retry": "false"} if status >= 500 and code != _NOT_PAID_FOR else {}


def _type(status: int, code: str) -> str:
    if code == "prompt_refused":
        return "image_generation_user_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
