"""Which of our errors each error of boto3 and of S3 becomes, and the advice in the log."""

from typing import Any

import botocore.exceptions as theirs
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError, create_parser

from app.core.errors import AppError, NotFound, StoreRefused, StoreTimeout, StoreUnreachable
from app.stores.s3.errors import MEANINGS, errors_mapped
from app.stores.s3.store import S3Store
from tests.s3server import S3Server, error


def _all(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(found for child in base.__subclasses__() for found in _all(child))]


class _Anything(dict[str, Any]):
    """Fills the placeholders of any message."""

    def __missing__(self, name: str) -> str:
        return "x"


def _made(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, getattr(kind, "fmt", "x").format_map(_Anything()))
    return error


def _mapped(error: Exception) -> AppError:
    with pytest.raises(AppError) as caught, errors_mapped("GetObject"):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.detail.startswith("GetObject: ")
    return caught.value


@pytest.mark.parametrize(
    "kind", [*_all(theirs.ConnectionError), *_all(theirs.HTTPClientError)], ids=lambda kind: kind.__name__
)
def test_network_errors_become_outages(kind: type[Exception]) -> None:
    late = (theirs.ReadTimeoutError, theirs.ConnectTimeoutError)
    expected = StoreTimeout if issubclass(kind, late) else StoreUnreachable
    error = _mapped(_made(kind))
    assert type(error) is expected
    assert error.retry_after
    assert "AWS_ENDPOINT_URL_S3" in error.detail


@pytest.mark.parametrize(
    "kind",
    [
        theirs.NoCredentialsError,
        theirs.PartialCredentialsError,
        theirs.CredentialRetrievalError,
        theirs.ProfileNotFound,
        theirs.TokenRetrievalError,
        *_all(theirs.SSOError),
        *_all(theirs.LoginError),
    ],
    ids=lambda kind: kind.__name__,
)
def test_credential_errors_become_refusals_that_name_the_variables(kind: type[Exception]) -> None:
    error = _mapped(_made(kind))
    assert type(error) is StoreRefused
    assert "AWS_ACCESS_KEY_ID" in error.detail


def test_the_detail_does_not_quote_an_invalid_response() -> None:
    """The response may come from STS and contain credentials, and the detail is logged."""
    parser: Any = create_parser("query")
    with pytest.raises(ResponseParserError) as parsed:
        parser.parse(
            {"status_code": 200, "headers": {}, "body": b"<SecretAccessKey>wJalr</SecretAccessKey"}, None
        )
    detail = _mapped(parsed.value).detail
    assert "invalid XML" in detail
    assert "wJalr" not in detail


@pytest.mark.parametrize("code", MEANINGS)
def test_each_code_has_an_explanation_and_a_fix(code: str) -> None:
    text, fix = MEANINGS[code]
    assert text[0].isupper()
    assert text.endswith(".")
    assert fix
    assert not fix.endswith(".")
    assert str(MEANINGS[code]) == f"{text} {fix}"


def _log_line(code: str, operation: str) -> str:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    with pytest.raises(StoreRefused) as caught, errors_mapped("signing a URL"):
        raise ClientError(answer, operation)
    return caught.value.detail


def test_the_log_line_has_the_code_its_meaning_and_the_fix() -> None:
    assert _log_line("RequestTimeTooSkewed", "GetObject") == (
        "signing a URL: 403 RequestTimeTooSkewed (This machine's clock differs too much from the server's. "
        "timedatectl set-ntp true)"
    )


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("QuotaExceeded", "quota of the user or of the bucket is used up"),
        ("XMinioAdminBucketQuotaExceeded", "quota of the user or of the bucket is used up"),
        ("UserSuspended", "radosgw-admin user enable"),
        ("NotEntitled", "provider's console"),
        ("Unauthorized", "AWS_SECRET_ACCESS_KEY"),
        ("InvalidRequest", "S3_SSE=none"),
        ("KMSNotConfigured", "S3_SSE=none"),
        ("InvalidEncryptionAlgorithmError", "S3_SSE=none"),
        ("EntityTooLarge", "MAX_UPLOAD_BYTES"),
        ("MetadataTooLarge", "KEEP_PROMPTS=false"),
        ("InvalidRegionName", "AWS_REGION"),
    ],
)
def test_codes_of_compatible_servers_have_their_own_advice(code: str, advice: str) -> None:
    line = _log_line(code, "PutObject")
    assert advice in line
    assert "policies" not in line, "no permission is missing"


def test_the_log_of_a_denied_put_mentions_block_public_access() -> None:
    line = _log_line("AccessDenied", "PutObject")
    assert "flask bucket doctor says whether the bucket's Block Public Access is the reason" in line
    assert "Block Public Access" not in _log_line("AccessDenied", "GetObject")


@pytest.mark.parametrize(
    ("operation", "action"),
    [("PutObject", "s3:PutObject"), ("HeadObject", "s3:GetObject"), ("AssumeRole", "sts:AssumeRole")],
)
def test_the_log_of_a_denial_names_the_iam_action(operation: str, action: str) -> None:
    assert f"(Allow {action} in the policies" in _log_line("AccessDenied", operation)


@pytest.mark.parametrize("code", ["NoSuchKey", "NotFound"])
def test_a_404_for_a_listing_or_a_put_is_not_a_missing_image(s3: S3Server, bucket: str, code: str) -> None:
    store = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)
    s3.fault = error("404 Not Found", code, lambda _: True)
    with pytest.raises(StoreRefused, match=f"ListObjectsV2: 404 {code}"):
        store.list()
    with pytest.raises(StoreRefused, match=f"PutObject: 404 {code}"):
        store.put("a.png", b"bytes", content_type="image/png")
    with pytest.raises(NotFound):
        store.get("a.png")
