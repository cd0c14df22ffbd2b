"""Bedrock's errors become ours, here and nowhere else."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from app.aws_errors import Kind, is_about_credentials, kind_of, said_by, told
from app.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable
from app.generators.payload import UNREADABLE, cleaned
from app.generators.refusals import NO_CREDENTIALS, NO_MODEL, NO_QUOTA, refusal
from app.generators.tries import retry_after

_AGAIN = {408, 429}
_NO_CREDENTIALS = (Kind.CREDENTIALS, Kind.EXPIRED, Kind.SETTINGS)
_FIX = (
    "set what boto3 finds credentials by: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
)
_GONE = re.compile(r"end of (its )?life|model (identifier|version|id)\b|marked .* legacy", re.IGNORECASE)
_FILTERED = re.compile(r"content filter", re.IGNORECASE)


@contextmanager
def errors_mapped(model: str) -> Iterator[None]:
    """Raise our error for whatever boto3 raises inside."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, model) from exc
    except Exception as exc:
        kind = kind_of(exc)
        if kind in _NO_CREDENTIALS:
            raise GeneratorRefused(
                NO_CREDENTIALS, detail=f"{type(exc).__name__}: {told(exc)} ({_FIX})"
            ) from exc
        if kind is None and not isinstance(exc, UNREADABLE):
            raise
        if isinstance(exc, BotoCoreError):
            raise GeneratorError(detail=f"{type(exc).__name__}: {told(exc)}") from exc
        raise GeneratorError(detail=f"an answer that can't be read: {type(exc).__name__}") from exc


def _answered(exc: ClientError, model: str) -> AppError:
    error, metadata = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 0)
    said = cleaned(said_by(exc))
    detail = f"{status} {code}: {said}"
    if status in _AGAIN or status >= 500:
        return GeneratorUnreachable(detail=detail, wait=retry_after(metadata.get("HTTPHeaders", {})))
    if code == "ValidationException" and _FILTERED.search(said):
        return refusal(said)
    if code == "ResourceNotFoundException" or (code == "ValidationException" and _GONE.search(said)):
        return GeneratorRefused(NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={model}: choose another)")
    if code == "ServiceQuotaExceededException":
        return GeneratorRefused(NO_QUOTA, detail=detail)
    if status in (401, 403) or is_about_credentials(exc):
        return GeneratorRefused(NO_CREDENTIALS, detail=detail)
    return GeneratorError(detail=detail) if status == 424 else GeneratorRefused(detail=detail)
