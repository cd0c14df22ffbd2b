"""Bedrock's errors become ours, here and nowhere else."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from app.errors import AppError, GeneratorError, GeneratorRefused, GeneratorUnreachable
from app.generators.payload import UNREADABLE, cleaned
from app.generators.refusals import NO_CREDENTIALS, NO_MODEL, NO_QUOTA, refusal
from app.generators.tries import retry_after

_AGAIN = {408, 429}
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
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
    except _NO_CREDENTIALS as exc:
        raise GeneratorRefused(NO_CREDENTIALS, detail=type(exc).__name__) from exc
    except BotoCoreError as exc:
        raise GeneratorError(detail=f"{type(exc).__name__}: {cleaned(exc)}") from exc
    except UNREADABLE as exc:
        raise GeneratorError(detail=f"an answer that can't be read: {type(exc).__name__}") from exc


def _answered(exc: ClientError, model: str) -> AppError:
    error, metadata = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 0)
    # Only the first line: what follows in a signature's mismatch is our request, session token included.
    said = cleaned(str(error.get("Message", "")).partition("\n")[0])
    detail = f"{status} {code}: {said}"
    if status in _AGAIN or status >= 500:
        return GeneratorUnreachable(detail=detail, wait=retry_after(metadata.get("HTTPHeaders", {})))
    if code == "ValidationException" and _FILTERED.search(said):
        return refusal(said)
    if code == "ResourceNotFoundException" or (code == "ValidationException" and _GONE.search(said)):
        return GeneratorRefused(NO_MODEL, detail=f"{detail} (GENERATOR_MODEL={model}: choose another)")
    if code == "ServiceQuotaExceededException":
        return GeneratorRefused(NO_QUOTA, detail=detail)
    if status in (401, 403):
        return GeneratorRefused(NO_CREDENTIALS, detail=detail)
    return GeneratorError(detail=detail) if status == 424 else GeneratorRefused(detail=detail)
