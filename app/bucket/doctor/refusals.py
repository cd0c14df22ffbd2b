"""What errors mean to an operator: S3's codes, botocore's exceptions and ours, each with its fix."""

from botocore.exceptions import BotoCoreError, ClientError, SSLError

from app.aws_errors import Kind, is_about_credentials, kind_of, told
from app.bucket.doctor.finding import Finding, problem
from app.errors import AppError
from app.stores.s3.actions import action_of
from app.stores.s3.anonymous import NoAnswer
from app.stores.s3.errors import DENIED, code_of, status_of
from app.stores.s3.meanings import (
    CHECK_NETWORK,
    CHECK_SETTINGS,
    EXPIRED,
    MEANINGS,
    SET_CREDENTIALS,
    Meaning,
)

_NEW_KEYS = "Put the right AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into .env: flask bucket create-user"
_FIXES = dict.fromkeys(("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"), _NEW_KEYS)
"""Those of the server's own credentials; `create-user` meets the same codes about an administrator's."""

_MENDING = {
    Kind.CREDENTIALS: SET_CREDENTIALS,
    Kind.EXPIRED: EXPIRED.fix,
    Kind.SETTINGS: CHECK_SETTINGS,
}
"""What mends what boto3 reads from environment and profile."""


def explain_code(code: str) -> Finding:
    """What one of S3's error codes means."""
    unknown = Meaning(f"S3 answers {code}.", "Look the code up in the list of S3's error codes")
    text, fix = MEANINGS.get(code, unknown)
    return problem(text, _FIXES.get(code, fix))


def is_explained(exc: Exception) -> bool:
    """Return whether `explain` knows what it means; otherwise nobody expected it."""
    return isinstance(exc, AppError | BotoCoreError | ClientError | NoAnswer) or kind_of(exc) in _MENDING


def is_denial(exc: Exception) -> bool:
    """Whether S3 says that a permission is missing."""
    cause = exc.__cause__ or exc
    return isinstance(cause, ClientError) and code_of(cause) in DENIED


def is_silence(exc: Exception) -> bool:
    """Whether nobody answered at all, or not so that it could be understood."""
    if isinstance(exc, SSLError):
        return False
    return isinstance(exc, NoAnswer) or kind_of(exc) in (Kind.LATE, Kind.UNREACHABLE, Kind.ANSWER)


def words_of(exc: Exception) -> str:
    """Return what an exception says, without what may be a secret."""
    return " ".join(str(exc).split()) if isinstance(exc, AppError | NoAnswer) else told(exc)


def explain(exc: Exception) -> Finding:
    """What an exception means."""
    is_ours = isinstance(exc, AppError) and isinstance(exc.__cause__, Exception)
    cause = exc.__cause__ if is_ours and isinstance(exc.__cause__, Exception) else exc
    if isinstance(cause, ClientError):
        return _explain_answer(cause)
    if isinstance(cause, SSLError):
        return problem(
            "The server's TLS certificate is not accepted.",
            "Correct AWS_ENDPOINT_URL_S3, or name the authority in AWS_CA_BUNDLE; for dotted buckets "
            "S3_ADDRESSING_STYLE=path",
        )
    kind = kind_of(cause)
    if kind in _MENDING:
        return problem(f"boto3: {told(cause)}", _MENDING[kind])
    if is_silence(cause):
        return problem(words_of(cause), CHECK_NETWORK)
    return problem(
        f"{type(cause).__name__}: {words_of(exc)}", "Read the log of the server for the whole error"
    )


def _explain_answer(exc: ClientError) -> Finding:
    code, operation = code_of(exc), exc.operation_name
    if is_about_credentials(exc) and code not in MEANINGS:
        return problem(f"{operation}, for credentials, is answered with {code}.", SET_CREDENTIALS)
    if code in DENIED:
        return problem(f"S3 denies {operation}.", f"Allow {action_of(operation)}: flask bucket iam-policy")
    return explain_code(code or str(status_of(exc)))
