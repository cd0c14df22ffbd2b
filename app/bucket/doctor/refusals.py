"""What errors mean to an operator: S3's codes, botocore's exceptions and ours, each with its fix."""

from botocore.exceptions import BotoCoreError, ClientError, SSLError

from app.bucket.doctor.asking import DENIED
from app.bucket.doctor.finding import Finding, problem
from app.errors import AppError
from app.stores.s3.anonymous import NoAnswer
from app.stores.s3.errors import code_of

CHECK_NETWORK = "Check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"
_NEW_KEYS = "Put the right AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into .env: flask bucket create-user"
_RENEW = ("The temporary credentials have expired.", "Renew them, for instance: aws sso login")
_UNKNOWN_KEY = ("The access key is not known there.", _NEW_KEYS)
_REDIRECTED = ("The bucket lies in another region than AWS_REGION.", "Set AWS_REGION to the bucket's region")
_BUSY = ("S3 is overloaded or out of order.", "Wait a minute, then run the doctor again")

_MEANINGS = {
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "InvalidToken": ("The session token is not valid.", "Remove or renew AWS_SESSION_TOKEN in .env"),
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": ("The secret access key does not belong to the access key.", _NEW_KEYS),
    "RequestTimeTooSkewed": (
        "This machine's clock differs too much from the server's.",
        "timedatectl set-ntp true",
    ),
    "NoSuchBucket": ("There is no such bucket.", "Correct S3_BUCKET, or: flask bucket setup --mode …"),
    "AccessControlListNotSupported": (
        "The bucket has ACLs disabled, but S3_ACL=public-read sends one.",
        "Set S3_ACL=none, then: flask bucket setup --mode public",
    ),
    "PermanentRedirect": _REDIRECTED,
    "AuthorizationHeaderMalformed": _REDIRECTED,
    "IllegalLocationConstraintException": _REDIRECTED,
    "301": _REDIRECTED,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
    "503": _BUSY,
    "500": _BUSY,
}


def means_something(code: str) -> bool:
    """Whether `code` has a meaning of its own, whatever was asked for."""
    return code in _MEANINGS


def explain_code(code: str) -> Finding:
    """What one of S3's error codes means."""
    text, fix = _MEANINGS.get(
        code, (f"S3 answers {code}.", "Look the code up in the list of S3's error codes")
    )
    return problem(text, fix)


def is_denial(exc: Exception) -> bool:
    """Whether S3 says that a permission is missing."""
    cause = exc.__cause__ or exc
    return isinstance(cause, ClientError) and code_of(cause) in DENIED


def is_silence(exc: BaseException) -> bool:
    """Whether nobody answered at all."""
    return isinstance(exc, BotoCoreError | NoAnswer) and not isinstance(exc, SSLError)


def explain(exc: Exception, needed: str = "") -> Finding:
    """What an exception means; `needed` is the permission without which S3 denies the call."""
    cause = exc.__cause__ if isinstance(exc, AppError) and exc.__cause__ else exc
    if isinstance(cause, ClientError):
        return _explain_answer(cause, needed)
    if isinstance(cause, SSLError):
        return problem(
            "The server's TLS certificate is not accepted.",
            "Correct AWS_ENDPOINT_URL_S3, or name the authority in AWS_CA_BUNDLE; for dotted buckets "
            "S3_ADDRESSING_STYLE=path",
        )
    if is_silence(cause):
        return problem(_one_line(cause), CHECK_NETWORK)
    return problem(
        f"{type(cause).__name__}: {_one_line(exc)}", "Read the log of the server for the whole error"
    )


def _explain_answer(exc: ClientError, needed: str) -> Finding:
    code = code_of(exc)
    if code in DENIED and needed:
        return problem(f"S3 denies {exc.operation_name}.", f"Allow {needed}: flask bucket iam-policy")
    return explain_code(code)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
