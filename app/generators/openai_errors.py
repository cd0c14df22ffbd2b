"""The errors of OpenAI's client become ours, here and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

from openai import APIStatusError, OpenAIError

from app.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable
from app.generators.payload import UNREADABLE, cleaned
from app.generators.refusals import NO_CREDENTIALS, NO_MODEL, NO_QUOTA, refusal
from app.generators.tries import retry_after

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
