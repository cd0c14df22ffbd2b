"""botocore's errors become ours, here and nowhere else, with a word for the log on what to do."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from app.errors import AppError, NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.stores.s3.actions import action_of
from app.stores.s3.meanings import BUSY, CHECK_NETWORK, EXPIRED, MEANINGS, REDIRECTED, SET_CREDENTIALS

MISSING = {"NoSuchKey", "404", "NotFound"}
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

CREDENTIALS_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
    ConfigParseError,
    SSOError,
    LoginError,
)
"""What botocore raises where it finds no credentials that could be used."""

_BY_CLASS: tuple[tuple[tuple[type[Exception], ...], type[StoreError]], ...] = (
    ((ReadTimeoutError, ConnectTimeoutError), StoreTimeout),
    ((NoConnectionError, HTTPClientError), StoreUnreachable),
    (CREDENTIALS_ERRORS, StoreRefused),
)
_FIXES = {StoreTimeout: CHECK_NETWORK, StoreUnreachable: CHECK_NETWORK, StoreRefused: SET_CREDENTIALS}

_LONGEST = 300
"""Most characters of a parser's message, which may quote the whole answer."""

_NO_SSE = "; if S3_SSE is set, try S3_SSE=none"
_BLOCKED = "; flask bucket doctor says whether the bucket's Block Public Access is the reason"
"""Ceph RGW denies every put under `BlockPublicAcls`, AWS those with a public ACL."""

_STILL_EXPIRED = "Credentials were refreshed"
"""What botocore says, by no class of its own, where a role's new credentials have expired as well."""


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
    """Raise our error for whatever botocore raises inside; `operation` is for the log."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except ResponseParserError as exc:
        # Below its first line is the whole answer, which may be that of STS, with credentials.
        message = str(exc).partition("\n")[0][:_LONGEST]
        raise StoreError(detail=f"{operation}: an answer that is not S3's: {message}") from exc
    except BotoCoreError as exc:
        kind = next((ours for theirs, ours in _BY_CLASS if isinstance(exc, theirs)), StoreError)
        fix = f" ({_FIXES[kind]})" if kind in _FIXES else ""
        raise kind(detail=f"{operation}: {exc}{fix}") from exc
    except Exception as exc:
        if isinstance(exc, RuntimeError) and str(exc).startswith(_STILL_EXPIRED):
            raise StoreRefused(detail=f"{operation}: {exc} ({EXPIRED})") from exc
        if not _is_botocores(exc):
            raise
        message = f"{type(exc).__name__}: {exc}"[:_LONGEST]
        raise StoreError(detail=f"{operation}: an answer that can't be parsed: {message}") from exc


def _is_botocores(exc: Exception) -> bool:
    """Return whether botocore raised it: its parsers raise any error for an invalid number or time."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(exc.__traceback__))
    return any(module.startswith("botocore.") for module in modules)


def _answered(exc: ClientError, operation: str) -> AppError:
    code, status = code_of(exc), status_of(exc)
    detail = f"{operation}: {status} {code}"
    if code in MISSING:
        return NotFound(detail=detail)
    if status == 504:
        return StoreTimeout(detail=f"{detail} ({BUSY})")
    if code in _TRY_AGAIN or (status >= 500 and status != 501):
        return StoreUnreachable(detail=f"{detail} ({MEANINGS.get(code, BUSY)})")
    return StoreRefused(detail=f"{detail} ({MEANINGS.get(code) or _advice(exc)})")


def _advice(exc: ClientError) -> str:
    if 300 <= status_of(exc) < 400:
        return str(REDIRECTED)
    puts = exc.operation_name == "PutObject"
    if status_of(exc) != 403:
        return "see the list of error codes of S3 or of the server" + (_NO_SSE if puts else "")
    action = denied_action(exc) or action_of(exc.operation_name)
    allow = f"Allow {action} in the policies of the user or role (flask bucket iam-policy), and of the bucket"
    return allow + (_BLOCKED if puts else "")
