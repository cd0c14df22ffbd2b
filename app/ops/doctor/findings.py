"""What errors mean to an operator: S3's codes, botocore's exceptions and ours, each with its fix.

What a check finds: how it stands, one line that says so, and how to mend it.

Asking S3 how a bucket is configured, with permissions that may be missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, SSLError

from app.aws.errors import Kind, classify, is_about_credentials, public_message
from app.core.errors import AppError
from app.ops.bucket.errors import says_unsupported
from app.stores.s3.errors import (
    CHECK_NETWORK,
    CHECK_SETTINGS,
    DENIED,
    EXPIRED,
    MEANINGS,
    MISSING,
    SET_CREDENTIALS,
    Meaning,
    action_of,
    code_of,
    status_of,
)
from app.stores.s3.urls import NoResponse


class Status(StrEnum):
    """How a check ends."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is a command, a setting or a console path, empty where there is none.

    `hinders` says that checks which need this one could find nothing.
    """

    status: Status
    text: str
    fix: str = ""
    hinders: bool = False


class NotChecked(Exception):
    """Raised inside a check that can't be made; its text is the reason."""


def ok(text: str) -> Finding:
    """As it should be."""
    return Finding(Status.OK, text)


def warning(text: str, fix: str) -> Finding:
    """It works, but not as well or not as safely as it could."""
    return Finding(Status.WARNING, text, fix)


def problem(text: str, fix: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(Status.PROBLEM, text, fix, hinders=True)


def skipped(reason: str) -> Finding:
    """The check could not be made, or does not apply."""
    return Finding(Status.SKIPPED, reason)


def unchecked(reason: str) -> Finding:
    """The check met something unexpected: no fault of the operator's, as far as anybody can say."""
    return Finding(Status.SKIPPED, f"could not be checked, because of {reason}", hinders=True)


T = TypeVar("T")

UNKNOWN_HERE = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "501", "405"}


def ask(call: Callable[..., T], *, action: str = "", **arguments: Any) -> T | None:
    """Return the answer; None if S3 says that nothing is configured, as it does with codes of many names.

    Raises `NotChecked` if the permission is missing, `action` if the operation's name does not tell which, or
    if the server does not know the call.
    """
    try:
        return call(**arguments)
    except ClientError as exc:
        code = code_of(exc)
        if code in DENIED:
            raise NotChecked(f"can't be checked: needs {action or action_of(exc.operation_name)}") from exc
        unknown = code in UNKNOWN_HERE or says_unsupported(status_of(exc), code)
        if unknown or code in MISSING:  # some servers look for an object then
            raise NotChecked("can't be checked: this server does not know the call") from exc
        if status_of(exc) == HTTPStatus.NOT_FOUND and code != "NoSuchBucket":
            return None
        raise


_NEW_KEYS = "Put the right AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into .env: flask bucket create-user"
_FIXES = dict.fromkeys(("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"), _NEW_KEYS)
"""Those of the server's own credentials; `create-user` meets the same codes about an administrator's."""

_MENDING = {
    Kind.CREDENTIALS: SET_CREDENTIALS,
    Kind.EXPIRED: EXPIRED.fix,
    Kind.SETTINGS: CHECK_SETTINGS,
}
"""What mends what boto3 reads from environment and profile."""


def explain_code(code: str) -> Finding:
    """What one of S3's error codes means."""
    unknown = Meaning(f"S3 answers {code}.", "Look the code up in the list of S3's error codes")
    text, fix = MEANINGS.get(code, unknown)
    return problem(text, _FIXES.get(code, fix))


def is_explained(exc: Exception) -> bool:
    """Return whether `explain` knows what it means; otherwise nobody expected it."""
    return isinstance(exc, AppError | BotoCoreError | ClientError | NoResponse) or classify(exc) in _MENDING


def is_denial(exc: Exception) -> bool:
    """Whether S3 says that a permission is missing."""
    cause = exc.__cause__ or exc
    return isinstance(cause, ClientError) and code_of(cause) in DENIED


def is_silence(exc: Exception) -> bool:
    """Whether nobody answered at all, or not so that it could be understood."""
    if isinstance(exc, SSLError):
        return False
    return isinstance(exc, NoResponse) or classify(exc) in (Kind.LATE, Kind.UNREACHABLE, Kind.ANSWER)


def words_of(exc: Exception) -> str:
    """Return what an exception says, without what may be a secret."""
    return " ".join(str(exc).split()) if isinstance(exc, AppError | NoResponse) else public_message(exc)


def explain(exc: Exception) -> Finding:
    """What an exception means."""
    is_ours = isinstance(exc, AppError) and isinstance(exc.__cause__, Exception)
    cause = exc.__cause__ if is_ours and isinstance(exc.__cause__, Exception) else exc
    if isinstance(cause, ClientError):
        return _explain_answer(cause)
    if isinstance(cause, SSLError):
        return problem(
            "The server's TLS certificate is not accepted.",
            "Correct AWS_ENDPOINT_URL_S3, or name the authority in AWS_CA_BUNDLE; for dotted buckets "
            "S3_ADDRESSING_STYLE=path",
        )
    kind = classify(cause)
    if kind in _MENDING:
        return problem(f"boto3: {public_message(cause)}", _MENDING[kind])
    if is_silence(cause):
        return problem(words_of(cause), CHECK_NETWORK)
    return problem(
        f"{type(cause).__name__}: {words_of(exc)}", "Read the log of the server for the whole error"
    )


def _explain_answer(exc: ClientError) -> Finding:
    code, operation = code_of(exc), exc.operation_name
    if is_about_credentials(exc) and code not in MEANINGS:
        return problem(f"{operation}, for credentials, is answered with {code}.", SET_CREDENTIALS)
    if code in DENIED:
        return problem(f"S3 denies {operation}.", f"Allow {action_of(operation)}: flask bucket iam-policy")
    return explain_code(code or str(status_of(exc)))
