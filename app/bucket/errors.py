"""What AWS refuses, in words that say what to do; botocore's errors become ours here, for this whole package.

    AppError
    └── BucketError          a command can't go on
        ├── CallDenied       the credentials lack a permission, or a setting forbids it
        └── CallUnsupported  the server does not know the operation

Their messages are for the operator at the terminal: unlike those of `app.errors` they may name the bucket.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from app.errors import AppError

_DENIED = {"AccessDenied", "AccessDeniedException", "403"}
_UNSUPPORTED_STATUS = 501

_ACTIONS = {
    "HeadBucket": "s3:ListBucket",
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
}
"""Where the IAM action is not `s3:` and the operation's name.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

_ADVICE = {
    "BucketAlreadyExists": "This name belongs to somebody else: bucket names are unique across all of AWS. "
    "Choose another, for instance with your company's name, the project and the year.",
    "InvalidBucketName": "Bucket names have 3 to 63 lower-case letters, digits and hyphens.",
    "TooManyBuckets": "The account has as many buckets as it may; delete one or ask AWS for more.",
    "IllegalLocationConstraintException": "AWS_REGION and the address that answered do not fit together.",
    "OperationAborted": "S3 is still busy with another change to this bucket, or with deleting one of this "
    "name. Try again in some minutes.",
    "PermanentRedirect": "The bucket is in another region; set AWS_REGION to that.",
    "ExpiredToken": "The credentials have expired; get new ones.",
    "InvalidAccessKeyId": "AWS does not know this access key; check AWS_ACCESS_KEY_ID.",
    "InvalidClientTokenId": "AWS does not know this access key; check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "The secret does not fit the access key; check AWS_SECRET_ACCESS_KEY.",
    "RequestTimeTooSkewed": "This machine's clock is wrong; let it be set by NTP.",
}


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
        self.action = _ACTIONS.get(operation, f"s3:{operation}")
        message = f"AWS denied {operation}, which needs {self.action}.{said}"
        super().__init__(message, aws_code=aws_code, http_status=403)


class CallUnsupported(BucketError):
    """The server, one compatible with S3, does not know this operation."""


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Raise a `BucketError` for whatever botocore raises inside."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as exc:
        raise BucketError(
            f"No credentials: {exc}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from exc
    except BotoCoreError as exc:
        raise BucketError(f"{operation} got no answer: {exc}") from exc


def _answered(exc: ClientError, operation: str) -> BucketError:
    error = exc.response.get("Error", {})
    code, words = error.get("Code", ""), error.get("Message", "")
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f" AWS says: {words}" if words else ""
    if code in _DENIED:
        return CallDenied(operation, said, code)
    kind = CallUnsupported if status == _UNSUPPORTED_STATUS else BucketError
    return kind(_ADVICE.get(code) or f"{operation} failed: {code}.{said}", aws_code=code, http_status=status)
