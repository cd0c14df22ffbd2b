"""What AWS refuses, in words that say what to do; botocore's errors become ours here, for this whole package.

    AppError
    └── BucketError          a command can't go on
        ├── CallDenied       the credentials lack a permission, or a setting forbids it
        └── CallUnsupported  the server does not know the operation

`says_unsupported` recognizes the latter in less clear answers of compatible servers. The messages are for the
operator at the terminal: unlike those of `app.errors` they may name the bucket.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from app.aws.errors import LONGEST, Kind, classify, is_about_credentials, public_message, vendor_message
from app.core.errors import AppError
from app.stores.s3.errors import (
    CHECK_SETTINGS,
    DENIED,
    MEANINGS,
    REDIRECTED,
    REGION_CODES,
    SET_CREDENTIALS,
    action_of,
    code_of,
    status_of,
)

_UNSUPPORTED_STATUS = 501

_UNKNOWN_CALL = (400, 405, 409, 501)
"""How compatible servers answer a call that they don't know: as malformed, as not allowed, as if the bucket
were to be created once more, or as it should be."""

OTHER_ANSWER = "OtherAnswer"
"""Our code for an answer 200 that does not answer the call."""


_ABOUT_THE_CALL = {
    "AccessControlListNotSupported",
    "BucketAlreadyExists",
    "InvalidArgument",
    "InvalidBucketName",
    "InvalidRequest",
    "MethodNotAllowed",
    "NotImplemented",
}
"""Codes that have a meaning, but are also given to calls that a server does not know. All others with a
meaning are about the credentials, the region, the bucket or the moment, whatever the call."""


class BucketError(AppError):
    """A bucket command can't go on; `aws_code` and `http_status` are of the answer, if there was one."""

    code = "bucket_error"

    def __init__(self, message: str, *, aws_code: str = "", http_status: int = 0) -> None:
        super().__init__(message)
        self.aws_code = aws_code
        self.http_status = http_status


class CallDenied(BucketError):
    """The credentials may not make this call; `action` is the IAM action that it needs."""

    def __init__(self, operation: str, said: str, aws_code: str = "AccessDenied") -> None:
        self.action = action_of(operation)
        message = f"AWS denied {operation}, which needs {self.action}.{said}"
        super().__init__(message, aws_code=aws_code, http_status=403)


class CallUnsupported(BucketError):
    """The server, one compatible with S3, does not know this operation."""


def says_unsupported(status: int, code: str) -> bool:
    """Return whether a compatible server means by this answer that it does not know the call."""
    if code == OTHER_ANSWER:
        return True
    return status in _UNKNOWN_CALL and (code in _ABOUT_THE_CALL or code not in MEANINGS)


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Raise a `BucketError` for whatever boto3 raises inside."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except Exception as exc:
        kind = classify(exc)
        if kind is None:
            raise
        raise BucketError(_unanswered(kind, operation, public_message(exc))) from exc


def _unanswered(kind: Kind, operation: str, text: str) -> str:
    if kind in (Kind.CREDENTIALS, Kind.EXPIRED):
        return f"No credentials: {text.rstrip('.')}. {SET_CREDENTIALS}."
    if kind is Kind.SETTINGS:
        return f"{operation} can't be made: {text.rstrip('.')}. {CHECK_SETTINGS}."
    if kind is Kind.ANSWER:
        return f"{operation} got an answer that is not S3's: {text}"
    return f"{operation} got no answer: {text}"


def describe_unexpected(exc: Exception) -> str:
    """Return what can be said of an unexpected error: its class, and its text if that holds no secret.

    Errors of the HTTP layer quote headers, with credentials; those of reading an answer name what is missing.
    """
    name = type(exc).__name__
    if isinstance(exc, OSError) and exc.strerror:
        return f"{name}: {exc.strerror}"
    if isinstance(exc, LookupError | TypeError | AttributeError | json.JSONDecodeError | ResponseParserError):
        # Below the first line of a parser's error is the whole answer.
        return f"{name}: {str(exc).partition(chr(10))[0][:LONGEST]}"
    return name


def _answered(exc: ClientError, operation: str) -> BucketError:
    code, status = code_of(exc), status_of(exc)
    words = vendor_message(exc)
    said = f" AWS says: {words}" if words else ""
    if is_about_credentials(exc) and code not in DENIED:
        text = f"No credentials: {exc.operation_name} answers {status} {code}.{said} {SET_CREDENTIALS}."
        return BucketError(text, aws_code=code, http_status=status)
    if is_about_credentials(exc):
        return CallDenied(exc.operation_name, said, code)
    if code in DENIED:
        return CallDenied(operation, said, code)
    kind = CallUnsupported if status == _UNSUPPORTED_STATUS or code == OTHER_ANSWER else BucketError
    if code in REGION_CODES or 300 <= status < 400:
        meaning = str(MEANINGS.get(code, REDIRECTED)) + _region_of(exc)
    else:
        meaning = str(MEANINGS.get(code, f"{operation} failed: {code or status}.{said}"))
    return kind(meaning, aws_code=code, http_status=status)


def _region_of(exc: ClientError) -> str:
    """Return what the server says of the right region, to be put behind the advice to set it."""
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    error: dict[str, Any] = dict(exc.response.get("Error", {}))
    region = error.get("Region") or headers.get("x-amz-bucket-region")
    if region:
        return f": the server names AWS_REGION={region}"
    words = vendor_message(exc)
    return f". The server says: {words}" if words else ""
