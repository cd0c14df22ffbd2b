"""botocore's errors become ours, here and nowhere else, with a word for the log on what to do.

Which IAM action a call to AWS needs.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html

What S3's error codes mean to an operator, in the same words for the log, the doctor and bucket commands.

AWS's: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
Those of other servers are Ceph's, MinIO's and R2's (https://developers.cloudflare.com/r2/api/error-codes/).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from botocore.exceptions import ClientError

from app.aws.errors import Kind, classify, is_about_credentials, public_message
from app.core.errors import AppError, NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable

_NAMED_OTHERWISE = {
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


def action_of(operation: str) -> str:
    """The action, such as `s3:ListBucket`, without which AWS denies an operation, such as `ListObjectsV2`."""
    return _NAMED_OTHERWISE.get(operation, f"s3:{operation}")


class Meaning(NamedTuple):
    """What is wrong, a sentence, and what mends it: a command, a setting or a place, without a full stop."""

    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text} {self.fix}"


CHECK_NETWORK = "Check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"
SET_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
)
CHECK_SETTINGS = "Correct the AWS_… variable or the setting of the profile that boto3 can't use"
_SET_REGION = "Set AWS_REGION to the bucket's region; where AWS_ENDPOINT_URL_S3 is set, check that as well"

BUSY = Meaning("S3 is overloaded or out of order.", "Try again in a minute; there is nothing to set")
EXPIRED = Meaning(
    "The temporary credentials have expired.",
    "Renew AWS_SESSION_TOKEN and its keys, or: aws sso login; then restart the server",
)
REDIRECTED = Meaning("The bucket lies in another region than AWS_REGION.", _SET_REGION)
_UNKNOWN_REGION = Meaning(
    "The server does not know the region in AWS_REGION.",
    "Set AWS_REGION to one of the server's regions (on Ceph a zone group; us-east-1 means its default)",
)
_UNKNOWN_KEY = Meaning("The access key is not known there.", "Check AWS_ACCESS_KEY_ID")
NO_ENCRYPTION = Meaning(
    "The server can't encrypt as S3_SSE asks: it has no keys for that, or wants https.",
    "Set S3_SSE=none, and S3_SSE_KMS_KEY_ID to nothing; or set up encryption on the server",
)
_FULL = Meaning(
    "The server has no room left for more images.", "Delete images there, or ask its administrator for more"
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
        "AWS_SESSION_TOKEN does not belong to the access key.", "Set it anew with both keys, or remove it"
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
        "The server has suspended the user to whom the access key belongs.",
        "Ask its administrator to enable the user (on Ceph: radosgw-admin user enable --uid=…)",
    ),
    "NotEntitled": Meaning(
        "The account has no access to this service.", "Enable it in the provider's console"
    ),
    "Unauthorized": Meaning(
        "The access key is not valid there.", "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ),
    "ExpiredRequest": _EXPIRED_REQUEST,
    "RequestExpired": _EXPIRED_REQUEST,
    "QuotaExceeded": _QUOTA,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "507": _FULL,
    "EntityTooLarge": Meaning(
        "The image is larger than the server takes, or than its quota allows (Swift says so, too).",
        "Lower MAX_UPLOAD_BYTES, or raise the server's limit or quota",
    ),
    "MetadataTooLarge": Meaning("The server takes less metadata than was sent.", "Set KEEP_PROMPTS=false"),
    "InvalidRequest": Meaning(
        "The server refuses something that the request asks for. With S3_SSE it is most likely encryption, "
        "for which the server has no keys or wants https.",
        "Set S3_SSE=none if it is set; otherwise see the server's log",
    ),
    "InvalidEncryptionAlgorithmError": NO_ENCRYPTION,
    "KMSNotConfigured": NO_ENCRYPTION,
    "AllAccessDisabled": Meaning("AWS has disabled this bucket or account.", "Ask AWS Support"),
    "NoSuchBucket": Meaning(
        "There is no such bucket.",
        "Correct S3_BUCKET or AWS_ENDPOINT_URL_S3, or make the bucket: flask bucket setup --mode private "
        "(or public)",
    ),
    "BucketAlreadyExists": Meaning(
        "This name belongs to somebody else: bucket names are unique across all of AWS or of the server.",
        "Choose another, for instance with your company's name, the project and the year",
    ),
    "InvalidBucketName": Meaning(
        "This can't be a bucket's name.", "Choose one of 3 to 63 lower-case letters, digits and hyphens"
    ),
    "TooManyBuckets": Meaning(
        "The account has as many buckets as it may.", "Delete one, or ask AWS for more"
    ),
    "OperationAborted": Meaning(
        "S3 is still busy with another change to this bucket, or with deleting one of this name.",
        "Try again in some minutes",
    ),
    "AccessControlListNotSupported": Meaning(
        "The bucket has ACLs disabled, but S3_ACL=public-read sends one with each put.",
        "Set S3_ACL=none, then: flask bucket setup --mode public",
    ),
    "InvalidObjectState": Meaning(
        "The object is archived.", "Restore it, and keep images out of archive classes"
    ),
    "PermanentRedirect": REDIRECTED,
    "AuthorizationHeaderMalformed": REDIRECTED,
    "301": REDIRECTED,
    "InvalidLocationConstraint": _UNKNOWN_REGION,
    "InvalidRegionName": _UNKNOWN_REGION,
    "IllegalLocationConstraintException": Meaning(
        "AWS_REGION and the address that answered do not fit together.", _SET_REGION
    ),
    "SlowDown": BUSY,
    "ServiceUnavailable": BUSY,
    "InternalError": BUSY,
    "503": BUSY,
    "500": BUSY,
}
"""By code; that of an answer without a body, to HEAD, is its status."""

REGION_CODES = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "301",
    "IllegalLocationConstraintException",
    "InvalidLocationConstraint",
    "InvalidRegionName",
}
"""Those that a wrong region gets."""


MISSING = {"NoSuchKey", "404", "NotFound"}
_OF_WHAT_IS_THERE = ("GetObject", "HeadObject", "DeleteObject")
"""Operations by whose 404 an object is missing; after any other it comes from something that is not S3."""

DENIED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden"}
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

_BY_KIND: dict[Kind, tuple[type[StoreError], object]] = {
    Kind.EXPIRED: (StoreRefused, EXPIRED),
    Kind.CREDENTIALS: (StoreRefused, SET_CREDENTIALS),
    Kind.SETTINGS: (StoreRefused, CHECK_SETTINGS),
    Kind.LATE: (StoreTimeout, CHECK_NETWORK),
    Kind.UNREACHABLE: (StoreUnreachable, CHECK_NETWORK),
}
"""Our error for each kind, and what to do about it."""

_NO_SSE = "; if S3_SSE is set, try S3_SSE=none"
_BLOCKED = "; flask bucket doctor says whether the bucket's Block Public Access is the reason"
"""Ceph RGW denies every put under `BlockPublicAcls`, AWS those with a public ACL."""


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
    """Raise our error for whatever boto3 raises inside; `operation` is for the log."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except Exception as exc:
        kind = classify(exc)
        if kind is None:
            raise
        if kind is Kind.ANSWER:
            raise StoreError(detail=f"{operation}: no usable answer: {public_message(exc)}") from exc
        ours, fix = _BY_KIND[kind]
        raise ours(detail=f"{operation}: {public_message(exc)} ({fix})") from exc


def _answered(exc: ClientError, operation: str) -> AppError:
    code, status = code_of(exc), status_of(exc)
    detail = f"{operation}: {status} {code}"
    if is_about_credentials(exc) and status < 500 and code not in _TRY_AGAIN:
        return StoreRefused(
            detail=f"{operation}: {exc.operation_name} answers {status} {code} ({_credentials_advice(exc)})"
        )
    if code in MISSING and operation in _OF_WHAT_IS_THERE:
        return NotFound(detail=detail)
    if status == 504:
        return StoreTimeout(detail=f"{detail} ({BUSY})")
    if code in _TRY_AGAIN or (status >= 500 and status != 501):
        return StoreUnreachable(detail=f"{detail} ({MEANINGS.get(code, BUSY)})")
    return StoreRefused(detail=f"{detail} ({MEANINGS.get(code) or _advice(exc)})")


def _credentials_advice(exc: ClientError) -> object:
    if status_of(exc) == 403 and code_of(exc) in DENIED:
        return f"Allow {action_of(exc.operation_name)} in the policies of these credentials and of the role"
    return MEANINGS.get(code_of(exc), SET_CREDENTIALS)


def _advice(exc: ClientError) -> str:
    if 300 <= status_of(exc) < 400:
        return str(REDIRECTED)
    puts = exc.operation_name == "PutObject"
    if status_of(exc) != 403:
        return "see the list of error codes of S3 or of the server" + (_NO_SSE if puts else "")
    action = denied_action(exc) or action_of(exc.operation_name)
    allow = f"Allow {action} in the policies of the user or role (flask bucket iam-policy), and of the bucket"
    return allow + (_BLOCKED if puts else "")
