"""botocore's errors become ours, here and nowhere else, with a word for the log on what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError

from app.aws_errors import Kind, is_about_credentials, kind_of, told
from app.errors import AppError, NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.stores.s3.actions import action_of
from app.stores.s3.meanings import (
    BUSY,
    CHECK_NETWORK,
    CHECK_SETTINGS,
    EXPIRED,
    MEANINGS,
    REDIRECTED,
    SET_CREDENTIALS,
)

MISSING = {"NoSuchKey", "404", "NotFound"}
_OF_WHAT_IS_THERE = ("GetObject", "HeadObject", "DeleteObject")
"""Operations by whose 404 an object is missing; after any other it comes from something that is not S3."""

DENIED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden"}
_TRY_AGAIN = {
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "429",
    "ConditionalRequestConflict",
    "OperationAborted",
}

_BY_KIND: dict[Kind, tuple[type[StoreError], object]] = {
    Kind.EXPIRED: (StoreRefused, EXPIRED),
    Kind.CREDENTIALS: (StoreRefused, SET_CREDENTIALS),
    Kind.SETTINGS: (StoreRefused, CHECK_SETTINGS),
    Kind.LATE: (StoreTimeout, CHECK_NETWORK),
    Kind.UNREACHABLE: (StoreUnreachable, CHECK_NETWORK),
}
"""Our error for each kind, and what to do about it."""

_NO_SSE = "; if S3_SSE is set, try S3_SSE=none"
_BLOCKED = "; flask bucket doctor says whether the bucket's Block Public Access is the reason"
"""Ceph RGW denies every put under `BlockPublicAcls`, AWS those with a public ACL."""


def code_of(exc: ClientError) -> str:
    """S3's error code, such as `NoSuchKey`; for HEAD and 304, the status as text."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def status_of(exc: ClientError) -> int:
    """The answer's HTTP status; 0 where there was none."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def denied_action(exc: ClientError) -> str:
    """The action that AWS names as not allowed, such as `s3:GetObject`; empty where it names none.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    found = re.search(r"to perform: (\w+:\w+)", str(exc.response.get("Error", {}).get("Message", "")))
    return found[1] if found else ""


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Raise our error for whatever boto3 raises inside; `operation` is for the log."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except Exception as exc:
        kind = kind_of(exc)
        if kind is None:
            raise
        if kind is Kind.ANSWER:
            raise StoreError(detail=f"{operation}: no usable answer: {told(exc)}") from exc
        ours, fix = _BY_KIND[kind]
        raise ours(detail=f"{operation}: {told(exc)} ({fix})") from exc


def _answered(exc: ClientError, operation: str) -> AppError:
    code, status = code_of(exc), status_of(exc)
    detail = f"{operation}: {status} {code}"
    if is_about_credentials(exc) and status < 500 and code not in _TRY_AGAIN:
        return StoreRefused(
            detail=f"{operation}: {exc.operation_name} answers {status} {code} ({_credentials_advice(exc)})"
        )
    if code in MISSING and operation in _OF_WHAT_IS_THERE:
        return NotFound(detail=detail)
    if status == 504:
        return StoreTimeout(detail=f"{detail} ({BUSY})")
    if code in _TRY_AGAIN or (status >= 500 and status != 501):
        return StoreUnreachable(detail=f"{detail} ({MEANINGS.get(code, BUSY)})")
    return StoreRefused(detail=f"{detail} ({MEANINGS.get(code) or _advice(exc)})")


def _credentials_advice(exc: ClientError) -> object:
    if status_of(exc) == 403 and code_of(exc) in DENIED:
        return f"Allow {action_of(exc.operation_name)} in the policies of these credentials and of the role"
    return MEANINGS.get(code_of(exc), SET_CREDENTIALS)


def _advice(exc: ClientError) -> str:
    if 300 <= status_of(exc) < 400:
        return str(REDIRECTED)
    puts = exc.operation_name == "PutObject"
    if status_of(exc) != 403:
        return "see the list of error codes of S3 or of the server" + (_NO_SSE if puts else "")
    action = denied_action(exc) or action_of(exc.operation_name)
    allow = f"Allow {action} in the policies of the user or role (flask bucket iam-policy), and of the bucket"
    return allow + (_BLOCKED if puts else "")
