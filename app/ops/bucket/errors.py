"""Errors of the bucket commands. `errors_mapped` translates boto3's exceptions for the whole package.

    AppError
    └── BucketError          the command can't continue
        ├── CallDenied       the credentials lack a permission, or a setting forbids the call
        └── CallUnsupported  the server does not support the operation

The messages are shown to the operator at the terminal. Unlike the messages in `app.core.errors`, they may
name the bucket.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from app.aws.errors import (
    CHECK_SETTINGS,
    MAX_MESSAGE_CHARS,
    SET_CREDENTIALS,
    ErrorKind,
    classify,
    is_about_credentials,
    public_message,
    vendor_message,
)
from app.core.errors import AppError
from app.stores.s3.errors import (
    DENIED,
    MEANINGS,
    REDIRECTED,
    REGION_CODES,
    action_of,
    code_of,
    status_of,
)

UNRELATED_RESPONSE = "UnrelatedResponse"
"""Our own error code for a response with status 200 whose body belongs to a different operation."""

_NOT_IMPLEMENTED = 501

_UNSUPPORTED_STATUSES = (400, 405, 409, 501)
"""The statuses that compatible servers return for unknown operations.

A server returns 409 if it mistakes the request for one that creates the bucket.
"""

_AMBIGUOUS_CODES = {
    "AccessControlListNotSupported",
    "BucketAlreadyExists",
    "InvalidArgument",
    "InvalidBucketName",
    "InvalidRequest",
    "MethodNotAllowed",
    "NotImplemented",
}
"""The codes in `MEANINGS` that servers also return for unknown operations.

All other codes in `MEANINGS` are about the credentials, the region, the bucket or a temporary condition,
regardless of the operation.
"""


class BucketError(AppError):
    """A bucket command can't continue.

    `aws_code` is the error code of the response, and `http_status` is its status. If there was no response,
    they are "" and 0.
    """

    code = "bucket_error"

    def __init__(self, message: str, *, aws_code: str = "", http_status: int = 0) -> None:
        super().__init__(message)
        self.aws_code = aws_code
        self.http_status = http_status


class CallDenied(BucketError):
    """The credentials are not allowed to make this call. `action` is the IAM action that allows it."""

    def __init__(self, operation: str, explanation: str, aws_code: str = "AccessDenied") -> None:
        self.action = action_of(operation)
        message = f"AWS denied {operation}, which needs {self.action}.{explanation}"
        super().__init__(message, aws_code=aws_code, http_status=403)


class CallUnsupported(BucketError):
    """The server is compatible with S3 but does not support this operation."""


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Translate every exception that boto3 raises inside the block into a `BucketError`."""
    try:
        yield
    except ClientError as exc:
        raise _from_response(exc, operation) from exc
    except Exception as exc:
        kind = classify(exc)
        if kind is None:
            raise
        text = public_message(exc)
        if kind in (ErrorKind.CREDENTIALS, ErrorKind.EXPIRED):
            message = f"No credentials: {text.rstrip('.')}. {SET_CREDENTIALS}."
        elif kind is ErrorKind.SETTINGS:
            message = f"{operation} can't be sent: {text.rstrip('.')}. {CHECK_SETTINGS}."
        elif kind is ErrorKind.BAD_RESPONSE:
            message = f"{operation} got a response that does not come from S3: {text}"
        else:
            message = f"{operation} got no response: {text}"
        raise BucketError(message) from exc


def says_unsupported(status: int, code: str) -> bool:
    """Return whether this response means that a compatible server does not support the operation."""
    if code == UNRELATED_RESPONSE:
        return True
    return status in _UNSUPPORTED_STATUSES and (code in _AMBIGUOUS_CODES or code not in MEANINGS)


def describe_unexpected(exc: Exception) -> str:
    """Return the name of the exception's class, followed by its message if that can't contain a secret.

    The messages of the HTTP layer are left out because they quote headers, which contain credentials. The
    messages of parsers are included because they say which element is missing.
    """
    name = type(exc).__name__
    if isinstance(exc, OSError) and exc.strerror:
        return f"{name}: {exc.strerror}"
    if isinstance(exc, LookupError | TypeError | AttributeError | json.JSONDecodeError | ResponseParserError):
        # After its first line, the message of a parser quotes the whole response.
        return f"{name}: {str(exc).partition(chr(10))[0][:MAX_MESSAGE_CHARS]}"
    return name


def _from_response(exc: ClientError, operation: str) -> BucketError:
    code, status = code_of(exc), status_of(exc)
    text = vendor_message(exc)
    explanation = f" AWS says: {text}" if text else ""
    if is_about_credentials(exc):
        if code in DENIED:
            return CallDenied(exc.operation_name, explanation, code)
        problem = f"No credentials: {exc.operation_name} failed with {status} {code}."
        message = f"{problem}{explanation} {SET_CREDENTIALS}."
        return BucketError(message, aws_code=code, http_status=status)
    if code in DENIED:
        return CallDenied(operation, explanation, code)
    error_class = BucketError
    if status == _NOT_IMPLEMENTED or code == UNRELATED_RESPONSE:
        error_class = CallUnsupported
    if code in REGION_CODES or 300 <= status < 400:
        message = str(MEANINGS.get(code, REDIRECTED)) + _region_hint(exc)
    else:
        message = str(MEANINGS.get(code, f"{operation} failed: {code or status}.{explanation}"))
    return error_class(message, aws_code=code, http_status=status)


def _region_hint(exc: ClientError) -> str:
    """Return what the response says about the correct region, or "" if it says nothing.

    The caller appends this to a message that ends with the advice to set AWS_REGION.
    """
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    error: dict[str, Any] = dict(exc.response.get("Error", {}))
    region = error.get("Region") or headers.get("x-amz-bucket-region")
    if region:
        return f": the server names AWS_REGION={region}"
    text = vendor_message(exc)
    return f". The server says: {text}" if text else ""
