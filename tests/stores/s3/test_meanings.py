"""The one table of AWS's codes, and the log line that is made of it."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from app.core.errors import NotFound, StoreRefused
from app.stores.s3.errors import MEANINGS, errors_mapped
from app.stores.s3.store import S3Store
from tests.s3server import S3Server, error


@pytest.mark.parametrize("code", MEANINGS)
def test_a_sentence_and_a_fix_that_can_be_copied(code: str) -> None:
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


def test_the_log_line() -> None:
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
def test_other_servers_codes_are_told_as_what_they_are(code: str, advice: str) -> None:
    line = _log_line(code, "PutObject")
    assert advice in line
    assert "policies" not in line, "no permission is missing"


def test_a_put_that_is_denied_may_be_blocked() -> None:
    line = _log_line("AccessDenied", "PutObject")
    assert "flask bucket doctor says whether the bucket's Block Public Access is the reason" in line
    assert "Block Public Access" not in _log_line("AccessDenied", "GetObject")


@pytest.mark.parametrize(
    ("operation", "action"),
    [("PutObject", "s3:PutObject"), ("HeadObject", "s3:GetObject"), ("AssumeRole", "sts:AssumeRole")],
)
def test_a_denial_names_the_action(operation: str, action: str) -> None:
    assert f"(Allow {action} in the policies" in _log_line("AccessDenied", operation)


@pytest.mark.parametrize("code", ["NoSuchKey", "NotFound"])
def test_a_404_to_a_listing_or_a_put_is_no_missing_image(s3: S3Server, bucket: str, code: str) -> None:
    store = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)
    s3.fault = error("404 Not Found", code, lambda _: True)
    with pytest.raises(StoreRefused, match=f"ListObjectsV2: 404 {code}"):
        store.list()
    with pytest.raises(StoreRefused, match=f"PutObject: 404 {code}"):
        store.put("a.png", b"bytes", content_type="image/png")
    with pytest.raises(NotFound):
        store.get("a.png")
