"""Map boto3's errors to subclasses of `AppError`, and explain S3's error codes to operators.

The log, the doctor and the bucket commands all use these explanations. AWS documents its error codes here:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
Of the compatible servers, this module knows the codes of Ceph, MinIO and R2
(https://developers.cloudflare.com/r2/api/error-codes/).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from botocore.exceptions import ClientError

from app.aws.errors import (
    FIXES,
    RENEW_CREDENTIALS,
    SET_CREDENTIALS,
    ErrorKind,
    classify,
    is_about_credentials,
    public_message,
)
from app.core.errors import AppError, NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable

MISSING = {"NoSuchKey", "404", "NotFound"}
_OBJECT_OPERATIONS = ("GetObject", "HeadObject", "DeleteObject")
"""Operations for which a 404 means that the object is missing. A 404 for any other operation comes from
something that is not S3."""

DENIED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden"}
_RETRYABLE = {
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "429",
    "ConditionalRequestConflict",
    "OperationAborted",
}

_ERRORS_BY_KIND: dict[ErrorKind, type[StoreError]] = {
    ErrorKind.EXPIRED: StoreRefused,
    ErrorKind.CREDENTIALS: StoreRefused,
    ErrorKind.SETTINGS: StoreRefused,
    ErrorKind.TIMEOUT: StoreTimeout,
    ErrorKind.UNREACHABLE: StoreUnreachable,
    ErrorKind.BAD_RESPONSE: StoreError,
}


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Turn each exception from boto3 inside the block into an `AppError`. `operation` appears in the log."""
    try:
        yield
    except Exception as exc:
        error = app_error(exc, operation)
        if error is None:
            raise
        raise error from exc


def app_error(exc: Exception, operation: str) -> AppError | None:
    """Return the `AppError` for `exc`, or None if `exc` does not come from boto3."""
    if isinstance(exc, ClientError):
        return _mapped_response(exc, operation)
    kind = classify(exc)
    if kind is None:
        return None
    problem = "a response that can't be used: " if kind is ErrorKind.BAD_RESPONSE else ""
    return _ERRORS_BY_KIND[kind](detail=f"{operation}: {problem}{public_message(exc)} ({FIXES[kind]})")


def _mapped_response(exc: ClientError, operation: str) -> AppError:
    code, status = code_of(exc), status_of(exc)
    detail = f"{operation}: {status} {code}"
    if is_about_credentials(exc) and status < 500 and code not in _RETRYABLE:
        if status == 403 and code in DENIED:
            action = action_of(exc.operation_name)
            fix = f"Allow {action} in the policies of these credentials and of the role"
        else:
            fix = str(MEANINGS.get(code, SET_CREDENTIALS))
        return StoreRefused(detail=f"{operation}: {exc.operation_name} returned {status} {code} ({fix})")
    if code in MISSING and operation in _OBJECT_OPERATIONS:
        return NotFound(detail=detail)
    if status == 504:
        return StoreTimeout(detail=f"{detail} ({BUSY})")
    if code in _RETRYABLE or (status >= 500 and status != 501):
        return StoreUnreachable(detail=f"{detail} ({MEANINGS.get(code, BUSY)})")
    return StoreRefused(detail=f"{detail} ({MEANINGS.get(code) or _fix_for_status(exc)})")


def _fix_for_status(exc: ClientError) -> str:
    """Return advice on how to fix an error whose code is not in `MEANINGS`."""
    if 300 <= status_of(exc) < 400:
        return str(REDIRECTED)
    is_put = exc.operation_name == "PutObject"
    if status_of(exc) != 403:
        look_up = "look up the code in the documentation of S3 or of the server"
        return f"{look_up}; if S3_SSE is set, try S3_SSE=none" if is_put else look_up
    action = denied_action(exc) or action_of(exc.operation_name)
    allow = f"Allow {action} in the policies of the user or role (flask bucket iam-policy), and of the bucket"
    # If BlockPublicAcls is on, Ceph RGW denies every put, and AWS denies every put with a public ACL.
    blocked = "; flask bucket doctor says whether the bucket's Block Public Access is the reason"
    return f"{allow}{blocked}" if is_put else allow


def code_of(exc: ClientError) -> str:
    """Return S3's error code, such as `NoSuchKey`.

    A response to a HEAD request, or one with the status 304, has no body. Its code is the status as a string.
    """
    return str(exc.response.get("Error", {}).get("Code", ""))


def status_of(exc: ClientError) -> int:
    """Return the HTTP status of the response, or 0 if there was none."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def denied_action(exc: ClientError) -> str:
    """Return the IAM action, such as `s3:GetObject`, that AWS's message names as denied, or an empty string.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    found = re.search(r"to perform: (\w+:\w+)", str(exc.response.get("Error", {}).get("Message", "")))
    return found[1] if found else ""


_ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "GetBucketCors": "s3:GetBucketCORS",
    "PutBucketCors": "s3:PutBucketCORS",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "CreateUser": "iam:CreateUser",
    "PutUserPolicy": "iam:PutUserPolicy",
    "ListAccessKeys": "iam:ListAccessKeys",
    "CreateAccessKey": "iam:CreateAccessKey",
    "DeleteAccessKey": "iam:DeleteAccessKey",
    "AssumeRole": "sts:AssumeRole",
    "AssumeRoleWithWebIdentity": "sts:AssumeRoleWithWebIdentity",
    "GetCallerIdentity": "sts:GetCallerIdentity",
}
"""Maps operations to the IAM actions that they need, if the names differ.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html"""


def action_of(operation: str) -> str:
    """Return the IAM action that an operation needs, for example `s3:ListBucket` for `ListObjectsV2`."""
    return _ACTIONS.get(operation, f"s3:{operation}")


class Meaning(NamedTuple):
    """An explanation of an error code.

    `text` is a sentence that says what is wrong. `fix` says how to fix it, in a command or in a phrase
    without a full stop.
    """

    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text} {self.fix}"


_SET_REGION = "Set AWS_REGION to the bucket's region; if AWS_ENDPOINT_URL_S3 is set, check that as well"

BUSY = Meaning("S3 is overloaded or not working.", "Try again in a minute; no setting can fix this")
EXPIRED = Meaning("The temporary credentials have expired.", RENEW_CREDENTIALS)
REDIRECTED = Meaning("The bucket is in a different region than AWS_REGION.", _SET_REGION)
_UNKNOWN_REGION = Meaning(
    "The server does not know the region in AWS_REGION.",
    "Set AWS_REGION to one of the server's regions (on Ceph a zone group; us-east-1 means its default)",
)
_UNKNOWN_KEY = Meaning("The access key is not known to the server.", "Check AWS_ACCESS_KEY_ID")
NO_ENCRYPTION = Meaning(
    "The server can't encrypt as S3_SSE requires: it has no keys for that, or it requires HTTPS.",
    "Set S3_SSE=none and leave S3_SSE_KMS_KEY_ID empty; or set up encryption on the server",
)
_FULL = Meaning(
    "The server has no room for more images.", "Delete images there, or ask its administrator for more space"
)
_QUOTA = Meaning(
    "The quota of the user or of the bucket is used up.",
    "Delete images, or ask the server's administrator for more (on Ceph: radosgw-admin quota set)",
)
_EXPIRED_REQUEST = Meaning(
    "The request took too long, or this machine's clock is wrong.", "timedatectl set-ntp true"
)

MEANINGS = {
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": Meaning(
        "AWS_SESSION_TOKEN does not belong to the access key.", "Set it again with both keys, or remove it"
    ),
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": Meaning(
        "The secret access key does not belong to the access key.", "Check AWS_SECRET_ACCESS_KEY"
    ),
    "RequestTimeTooSkewed": Meaning(
        "This machine's clock differs too much from the server's.", "timedatectl set-ntp true"
    ),
    "AccountProblem": Meaning("AWS has a problem with the account.", "See the account's billing page"),
    "NotSignedUp": Meaning("The account is not signed up for S3.", "Sign up in the S3 console"),
    "UserSuspended": Meaning(
        "The server has suspended the user that the access key belongs to.",
        "Ask its administrator to enable the user (on Ceph: radosgw-admin user enable --uid=…)",
    ),
    "NotEntitled": Meaning(
        "The account has no access to this service.", "Enable it in the provider's console"
    ),
    "Unauthorized": Meaning(
        "The server does not accept the access key.", "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ),
    "ExpiredRequest": _EXPIRED_REQUEST,
    "RequestExpired": _EXPIRED_REQUEST,
    "QuotaExceeded": _QUOTA,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "507": _FULL,
    "EntityTooLarge": Meaning(
        "The image is larger than the server accepts, or than its quota allows (Swift uses this code too).",
        "Lower MAX_UPLOAD_BYTES, or raise the server's limit or quota",
    ),
    "MetadataTooLarge": Meaning(
        "The request has more metadata than the server accepts.", "Set KEEP_PROMPTS=false"
    ),
    "InvalidRequest": Meaning(
        "The server rejects a part of the request. If S3_SSE is set, encryption is the most likely reason: "
        "the server has no keys for it, or it requires HTTPS.",
        "Set S3_SSE=none if it is set; otherwise see the server's log",
    ),
    "InvalidEncryptionAlgorithmError": NO_ENCRYPTION,
    "KMSNotConfigured": NO_ENCRYPTION,
    "AllAccessDisabled": Meaning("AWS has disabled this bucket or account.", "Ask AWS Support"),
    "NoSuchBucket": Meaning(
        "The bucket does not exist.",
        "Correct S3_BUCKET or AWS_ENDPOINT_URL_S3, or create the bucket: flask bucket setup --mode private "
        "(or public)",
    ),
    "BucketAlreadyExists": Meaning(
        "This name belongs to someone else. Bucket names are unique across all of AWS, or across the server.",
        "Choose a different name, for example one with your company's name, the project and the year",
    ),
    "InvalidBucketName": Meaning(
        "This is not a valid bucket name.", "Choose one of 3 to 63 lower-case letters, digits and hyphens"
    ),
    "TooManyBuckets": Meaning(
        "The account has reached its bucket limit.", "Delete a bucket, or ask AWS for a higher limit"
    ),
    "OperationAborted": Meaning(
        "S3 is still busy with another change to this bucket, or is deleting a bucket with this name.",
        "Try again in a few minutes",
    ),
    "AccessControlListNotSupported": Meaning(
        "The bucket has ACLs disabled, but S3_ACL=public-read sends one with each put.",
        "Set S3_ACL=none, then: flask bucket setup --mode public",
    ),
    "InvalidObjectState": Meaning(
        "The object is archived.", "Restore it, and don't move images to archive storage classes"
    ),
    "PermanentRedirect": REDIRECTED,
    "AuthorizationHeaderMalformed": REDIRECTED,
    "301": REDIRECTED,
    "InvalidLocationConstraint": _UNKNOWN_REGION,
    "InvalidRegionName": _UNKNOWN_REGION,
    "IllegalLocationConstraintException": Meaning(
        "AWS_REGION is not the region of the server that responded.", _SET_REGION
    ),
    "SlowDown": BUSY,
    "ServiceUnavailable": BUSY,
    "InternalError": BUSY,
    "503": BUSY,
    "500": BUSY,
}
"""Maps error codes to their meanings. The code of a response without a body, such as a response to HEAD, is
its status."""

REGION_CODES = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "301",
    "IllegalLocationConstraintException",
    "InvalidLocationConstraint",
    "InvalidRegionName",
}
"""Error codes that S3 sends if a request was sent to, or signed for, the wrong region."""
