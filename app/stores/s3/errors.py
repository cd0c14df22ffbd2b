"""botocore's errors become ours, here and nowhere else, with a word for the log on what to do."""

import re
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

_MISSING = {"NoSuchKey", "404", "NotFound"}
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

_BY_CLASS: tuple[tuple[type[Exception], type[StoreError]], ...] = (
    (ReadTimeoutError, StoreTimeout),
    (ConnectTimeoutError, StoreTimeout),
    (NoConnectionError, StoreUnreachable),
    (HTTPClientError, StoreUnreachable),
    (NoCredentialsError, StoreRefused),
    (PartialCredentialsError, StoreRefused),
    (CredentialRetrievalError, StoreRefused),
    (TokenRetrievalError, StoreRefused),
    (ProfileNotFound, StoreRefused),
    (ConfigParseError, StoreRefused),
    (SSOError, StoreRefused),
    (LoginError, StoreRefused),
)

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
_REACH = "check the network, AWS_REGION and AWS_ENDPOINT_URL_S3; nothing to restart once it is back"
_RENEW = "renew the credentials (AWS_SESSION_TOKEN and its keys) and restart; roles are renewed by themselves"
_REGION = "the bucket is in another region: set AWS_REGION; with AWS_ENDPOINT_URL_S3 check that URL as well"
_WAIT = "S3 is overloaded or out of order; nothing to do here, it is asked again"

_ADVICE: dict[type[StoreError], str] = {
    StoreTimeout: f"no answer in time: {_REACH}",
    StoreUnreachable: _REACH,
    StoreRefused: _CREDENTIALS,
}

_STILL_EXPIRED = "Credentials were refreshed"
"""What botocore says, by no class of its own, where a role's new credentials have expired as well."""

_ADVICE_BY_CODE = {
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to the other two: set all three, or no token",
    "InvalidAccessKeyId": "there is no such key: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it, by NTP",
    "NoSuchBucket": "there is no such bucket: check S3_BUCKET, AWS_REGION and AWS_ENDPOINT_URL_S3",
    "AccountProblem": "AWS has a problem with the account: see its billing page",
    "NotSignedUp": "the account is not signed up for S3",
    "AllAccessDisabled": "AWS has disabled this bucket or account",
    "InvalidObjectState": "the object is archived: restore it, or keep images out of archive classes",
    "AccessControlListNotSupported": "the bucket has ACLs disabled: set S3_ACL=none or auto",
}

_PERMISSIONS = {
    "PutObject": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "DeleteObject": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket (on the bucket itself)",
}


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
        raise StoreError(detail=f"{operation}: an answer that is not S3's: {exc}") from exc
    except BotoCoreError as exc:
        kind = next((ours for theirs, ours in _BY_CLASS if isinstance(exc, theirs)), StoreError)
        advice = f" ({_ADVICE[kind]})" if kind in _ADVICE else ""
        raise kind(detail=f"{operation}: {exc}{advice}") from exc
    except RuntimeError as exc:
        if not str(exc).startswith(_STILL_EXPIRED):
            raise
        raise StoreRefused(detail=f"{operation}: {exc} ({_RENEW})") from exc


def _answered(exc: ClientError, operation: str) -> AppError:
    code, status = code_of(exc), status_of(exc)
    detail = f"{operation}: {status} {code}"
    if code in _MISSING:
        return NotFound(detail=detail)
    if status == 504:
        return StoreTimeout(detail=f"{detail} ({_WAIT})")
    if code in _TRY_AGAIN or (status >= 500 and status != 501):
        return StoreUnreachable(detail=f"{detail} ({_WAIT})")
    return StoreRefused(detail=f"{detail} ({_ADVICE_BY_CODE.get(code) or _advice(exc, operation)})")


def _advice(exc: ClientError, operation: str) -> str:
    if 300 <= status_of(exc) < 400:
        return _REGION
    if status_of(exc) != 403:
        return "see S3's list of error codes"
    action = denied_action(exc) or _PERMISSIONS.get(operation, "it")
    return f"allow {action} in the policies of the user or role, and of the bucket"
