"""Asking S3 how a bucket is configured, with permissions that may be missing."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from app.bucket.doctor.finding import NotChecked
from app.bucket.errors import says_unsupported
from app.stores.s3.actions import action_of
from app.stores.s3.errors import DENIED, MISSING, code_of, status_of

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
