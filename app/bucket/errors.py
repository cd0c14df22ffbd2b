"""What AWS refuses, in words that say what to do; botocore's errors become ours here, for this whole package.

    AppError
    └── BucketError          a command can't go on
        ├── CallDenied       the credentials lack a permission, or a setting forbids it
        └── CallUnsupported  the server does not know the operation

Their messages are for the operator at the terminal: unlike those of `app.errors` they may name the bucket.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError

from app.aws_errors import Kind, is_about_credentials, kind_of, said_by, told
from app.errors import AppError
from app.stores.s3.actions import action_of
from app.stores.s3.errors import DENIED, code_of, status_of
from app.stores.s3.meanings import CHECK_SETTINGS, MEANINGS, SET_CREDENTIALS

_UNSUPPORTED_STATUS = 501


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


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Raise a `BucketError` for whatever boto3 raises inside."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except Exception as exc:
        kind = kind_of(exc)
        if kind is None:
            raise
        raise BucketError(_unanswered(kind, operation, told(exc))) from exc


def _unanswered(kind: Kind, operation: str, text: str) -> str:
    if kind in (Kind.CREDENTIALS, Kind.EXPIRED):
        return f"No credentials: {text.rstrip('.')}. {SET_CREDENTIALS}."
    if kind is Kind.SETTINGS:
        return f"{operation} can't be made: {text.rstrip('.')}. {CHECK_SETTINGS}."
    return f"{operation} got no answer: {text}"


def _answered(exc: ClientError, operation: str) -> BucketError:
    code, status = code_of(exc), status_of(exc)
    words = said_by(exc)
    said = f" AWS says: {words}" if words else ""
    if is_about_credentials(exc) and code not in DENIED:
        text = f"No credentials: {exc.operation_name} answers {status} {code}.{said} {SET_CREDENTIALS}."
        return BucketError(text, aws_code=code, http_status=status)
    if is_about_credentials(exc):
        return CallDenied(exc.operation_name, said, code)
    if code in DENIED:
        return CallDenied(operation, said, code)
    kind = CallUnsupported if status == _UNSUPPORTED_STATUS else BucketError
    meaning = MEANINGS.get(code, f"{operation} failed: {code}.{said}")
    return kind(str(meaning), aws_code=code, http_status=status)
