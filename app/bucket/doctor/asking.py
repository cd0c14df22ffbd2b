"""Asking S3 how a bucket is configured, with permissions that may be missing."""

from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from app.bucket.doctor.finding import NotChecked
from app.stores.s3.actions import action_of
from app.stores.s3.errors import DENIED, code_of

T = TypeVar("T")

UNKNOWN_HERE = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "501", "405"}


def ask(call: Callable[..., T], *, absent: str = "", action: str = "", **arguments: Any) -> T | None:
    """The answer; None where the error code `absent` says that nothing is configured.

    Raises `NotChecked` where the permission is missing, `action` where the operation's name does not tell it,
    or where the server does not know the call.
    """
    try:
        return call(**arguments)
    except ClientError as exc:
        code = code_of(exc)
        if absent and code == absent:
            return None
        if code in DENIED:
            raise NotChecked(f"can't be checked: needs {action or action_of(exc.operation_name)}") from exc
        if code in UNKNOWN_HERE:
            raise NotChecked("can't be checked: this server does not know the call") from exc
        raise
