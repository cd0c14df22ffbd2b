"""What errors mean to an operator: S3's codes, botocore's exceptions and ours, each with its fix."""

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, SSLError

from app.bucket.doctor.finding import Finding, problem
from app.errors import AppError
from app.stores.s3.actions import action_of
from app.stores.s3.anonymous import NoAnswer
from app.stores.s3.errors import CREDENTIALS_ERRORS, DENIED, code_of
from app.stores.s3.meanings import CHECK_NETWORK, MEANINGS, SET_CREDENTIALS, Meaning

_NEW_KEYS = "Put the right AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into .env: flask bucket create-user"
_FIXES = dict.fromkeys(("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"), _NEW_KEYS)
"""Those of the server's own credentials; `create-user` meets the same codes about an administrator's."""


EXPLAINED = (AppError, BotoCoreError, ClientError, NoAnswer)
"""What `explain` knows; everything else that a check raises is unexpected."""


def explain_code(code: str) -> Finding:
    """What one of S3's error codes means."""
    unknown = Meaning(f"S3 answers {code}.", "Look the code up in the list of S3's error codes")
    text, fix = MEANINGS.get(code, unknown)
    return problem(text, _FIXES.get(code, fix))


def is_denial(exc: Exception) -> bool:
    """Whether S3 says that a permission is missing."""
    cause = exc.__cause__ or exc
    return isinstance(cause, ClientError) and code_of(cause) in DENIED


def is_silence(exc: BaseException) -> bool:
    """Whether nobody answered at all."""
    return isinstance(exc, BotoCoreError | NoAnswer) and not isinstance(exc, (SSLError, *CREDENTIALS_ERRORS))


def explain(exc: Exception) -> Finding:
    """What an exception means."""
    cause = exc.__cause__ if isinstance(exc, AppError) and exc.__cause__ else exc
    if isinstance(cause, ClientError):
        return _explain_answer(cause)
    if isinstance(cause, SSLError):
        return problem(
            "The server's TLS certificate is not accepted.",
            "Correct AWS_ENDPOINT_URL_S3, or name the authority in AWS_CA_BUNDLE; for dotted buckets "
            "S3_ADDRESSING_STYLE=path",
        )
    if isinstance(cause, CREDENTIALS_ERRORS):
        return problem(f"The credentials can't be read: {one_line(cause)}", SET_CREDENTIALS)
    if is_silence(cause):
        return problem(one_line(cause), CHECK_NETWORK)
    return problem(
        f"{type(cause).__name__}: {one_line(exc)}", "Read the log of the server for the whole error"
    )


def _explain_answer(exc: ClientError) -> Finding:
    code, operation = code_of(exc), exc.operation_name
    if code in DENIED:
        return problem(f"S3 denies {operation}.", f"Allow {action_of(operation)}: flask bucket iam-policy")
    return explain_code(code)


def one_line(exc: BaseException) -> str:
    """Return the error's text on one line, but not that of the HTTP layer, which may quote headers."""
    if type(exc) is HTTPClientError:
        return f"The request could not be sent ({type(exc.kwargs.get('error')).__name__})."
    return " ".join(str(exc).split())
