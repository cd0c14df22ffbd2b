"""Findings, which are the outcomes of checks, and functions that return the finding for an error."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, SSLError

from app.aws.errors import (
    CHECK_NETWORK,
    FIXES,
    SET_CREDENTIALS,
    ErrorKind,
    classify,
    is_about_credentials,
    public_message,
)
from app.core.errors import AppError
from app.ops.bucket.errors import says_unsupported
from app.stores.s3.errors import (
    DENIED,
    MEANINGS,
    MISSING,
    Meaning,
    action_of,
    code_of,
    status_of,
)
from app.stores.s3.urls import NoResponse


class Status(StrEnum):
    """The status of a finding. A warning means that something works, but could be better or safer."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check: the status, one line of text, and the fix.

    `fix` is a command, a setting or a path in the console. It is empty if there is nothing to fix. If
    `blocks_dependents` is True, the checks that need this check are skipped.
    """

    status: Status
    text: str
    fix: str = ""
    blocks_dependents: bool = False


class NotChecked(Exception):
    """A check does not apply or can't be carried out. The message says why."""


def ok(text: str) -> Finding:
    """Return the finding that everything is as it should be."""
    return Finding(Status.OK, text)


def warning(text: str, fix: str) -> Finding:
    """Return the finding that something works, but could be better or safer."""
    return Finding(Status.WARNING, text, fix)


def problem(text: str, fix: str) -> Finding:
    """Return the finding that something does not work or is not safe.

    The checks that need the check with this finding are skipped.
    """
    return Finding(Status.PROBLEM, text, fix, blocks_dependents=True)


def skipped(reason: str) -> Finding:
    """Return the finding that the check does not apply or can't be carried out."""
    return Finding(Status.SKIPPED, reason)


T = TypeVar("T")

UNSUPPORTED_CODES = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "501", "405"}
"""Error codes of servers that do not support a call or a parameter."""


def query(call: Callable[..., T], *, action: str = "", **arguments: Any) -> T | None:
    """Return the response to a call that reads a setting, or None if the setting is not configured.

    Raises `NotChecked` if the server does not support the call, or if a permission is missing. `action` is
    the name of the permission. By default, it is derived from the name of the operation.
    """
    try:
        return call(**arguments)
    except ClientError as exc:
        code = code_of(exc)
        if code in DENIED:
            raise NotChecked(f"can't be checked: needs {action or action_of(exc.operation_name)}") from exc
        unsupported = code in UNSUPPORTED_CODES or says_unsupported(status_of(exc), code)
        if unsupported or code in MISSING:  # some servers treat the call as a request for an object
            raise NotChecked("can't be checked: this server does not support the call") from exc
        if status_of(exc) == HTTPStatus.NOT_FOUND and code != "NoSuchBucket":
            return None  # the error code differs between settings and servers
        raise


_NEW_KEYS = "Put the right AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into .env: flask bucket create-user"
_FIXES = dict.fromkeys(("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"), _NEW_KEYS)
"""Fixes for problems with the server's own credentials, by error code.

The fixes in `MEANINGS` are less specific, because they must also suit an administrator's credentials.
"""

_CONFIGURATION_ERRORS = (ErrorKind.CREDENTIALS, ErrorKind.EXPIRED, ErrorKind.SETTINGS)
"""Kinds of errors that are caused by the environment variables or the profile that boto3 reads."""


def finding_for(exc: Exception) -> Finding:
    """Return the problem that the exception indicates, with its fix."""
    cause = exc.__cause__ if isinstance(exc, AppError) and isinstance(exc.__cause__, Exception) else exc
    if isinstance(cause, ClientError):
        return _finding_for_response(cause)
    if isinstance(cause, SSLError):
        return problem(
            "The server's TLS certificate is not accepted.",
            "Correct AWS_ENDPOINT_URL_S3, or set AWS_CA_BUNDLE to the file with the server's certificate "
            "authority; if the bucket's name contains dots, set S3_ADDRESSING_STYLE=path",
        )
    kind = classify(cause)
    if kind in _CONFIGURATION_ERRORS:
        return problem(f"boto3: {public_message(cause)}", FIXES[kind])
    if is_no_response(cause):
        return problem(safe_message(cause), CHECK_NETWORK)
    return problem(f"{type(cause).__name__}: {safe_message(exc)}", "See the server's log for the whole error")


def finding_for_code(code: str) -> Finding:
    """Return the problem that the S3 error code indicates, with its fix."""
    unknown = Meaning(f"S3 responds with {code}.", "Look the code up in the list of S3 error codes")
    text, fix = MEANINGS.get(code, unknown)
    return problem(text, _FIXES.get(code, fix))


def _finding_for_response(exc: ClientError) -> Finding:
    code, operation = code_of(exc), exc.operation_name
    if is_about_credentials(exc) and code not in MEANINGS:
        return problem(f"{operation}, a call to get credentials, failed with {code}.", SET_CREDENTIALS)
    if code in DENIED:
        return problem(f"S3 denies {operation}.", f"Allow {action_of(operation)}: flask bucket iam-policy")
    return finding_for_code(code or str(status_of(exc)))


def is_expected(exc: Exception) -> bool:
    """Return whether `finding_for` handles the exception. Other exceptions are bugs in a check or server."""
    is_known = isinstance(exc, AppError | BotoCoreError | ClientError | NoResponse)
    return is_known or classify(exc) in _CONFIGURATION_ERRORS


def is_denial(exc: Exception) -> bool:
    """Return whether the exception means that S3 denied a request for lack of a permission."""
    cause = exc.__cause__ or exc
    return isinstance(cause, ClientError) and code_of(cause) in DENIED


def is_no_response(exc: Exception) -> bool:
    """Return whether the exception means that there was no response, or no valid response."""
    if isinstance(exc, SSLError):
        return False
    return isinstance(exc, NoResponse) or classify(exc) in (
        ErrorKind.TIMEOUT,
        ErrorKind.UNREACHABLE,
        ErrorKind.BAD_RESPONSE,
    )


def safe_message(exc: Exception) -> str:
    """Return the exception's message on one line, without secrets."""
    return " ".join(str(exc).split()) if isinstance(exc, AppError | NoResponse) else public_message(exc)
