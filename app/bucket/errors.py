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

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from app.errors import AppError
from app.stores.s3.actions import action_of
from app.stores.s3.errors import CREDENTIALS_ERRORS, DENIED, code_of, status_of
from app.stores.s3.meanings import MEANINGS, REDIRECTED, REGION_CODES, SET_CREDENTIALS

_UNSUPPORTED_STATUS = 501

_LONGEST = 300
"""Most characters of an error's text."""

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
    """Raise a `BucketError` for whatever botocore raises inside."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except CREDENTIALS_ERRORS as exc:
        raise BucketError(f"No credentials: {exc}. {SET_CREDENTIALS}.") from exc
    except BotoCoreError as exc:
        raise BucketError(f"{operation} got no answer: {exc}") from exc
    except ResponseParserError as exc:
        raise BucketError(f"{operation} got an answer that is not S3's: {first_line(exc)}") from exc


def surprise(exc: Exception) -> str:
    """Return what can be said of an unexpected error: its class, and its text if that holds no secret.

    Errors of the HTTP layer quote headers, with credentials; those of reading an answer name what is missing.
    """
    name = type(exc).__name__
    if isinstance(exc, OSError) and exc.strerror:
        return f"{name}: {exc.strerror}"
    if isinstance(exc, LookupError | TypeError | AttributeError | json.JSONDecodeError | ResponseParserError):
        return f"{name}: {first_line(exc)}"
    return name


def first_line(exc: Exception) -> str:
    """Return the first line of the error's text; a parser's error quotes the whole answer below it."""
    return str(exc).partition("\n")[0][:_LONGEST]


def _answered(exc: ClientError, operation: str) -> BucketError:
    code, status = code_of(exc), status_of(exc)
    error: dict[str, Any] = dict(exc.response.get("Error", {}))
    words = error.get("Message") or ""
    said = f" AWS says: {words}" if words else ""
    if code in DENIED:
        return CallDenied(operation, said, code)
    kind = CallUnsupported if status == _UNSUPPORTED_STATUS or code == OTHER_ANSWER else BucketError
    if code in REGION_CODES or 300 <= status < 400:
        meaning = str(MEANINGS.get(code, REDIRECTED)) + _region_of(exc)
    else:
        meaning = str(MEANINGS.get(code, f"{operation} failed: {code}.{said}"))
    return kind(meaning, aws_code=code, http_status=status)


def _region_of(exc: ClientError) -> str:
    """Return what the server says of the right region, to be put behind the advice to set it."""
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    error: dict[str, Any] = dict(exc.response.get("Error", {}))
    region = error.get("Region") or headers.get("x-amz-bucket-region")
    if region:
        return f": the server names AWS_REGION={region}"
    words = error.get("Message")
    return f". The server says: {words}" if words else ""
