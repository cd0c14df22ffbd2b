"""The checks cover all advice in the setup guides, have a valid order, and are documented."""

import re
from pathlib import Path

import pytest

from app.ops.doctor.runner import checks_for

ROOT = Path(__file__).parent.parent.parent.parent
NAMES = [check.name for check in checks_for("s3")]

ADVICE = {
    # "Access Denied" when viewing images
    "Verify bucket policy is correctly configured": ("bucket-policy", "anonymous-get"),
    "Check that 'Block all public access' is OFF": ("block-public-access", "account-public-access"),
    "Ensure the file was uploaded with ACL: 'public-read'": ("object-ownership", "probe-put"),
    "Confirm the bucket name in the policy matches exactly": ("bucket-policy",),
    # Images won't load in browser
    "Check ContentType is set correctly": ("content-type", "image-url"),
    "Verify the URL is correct (no typos in bucket name)": ("bucket-exists", "image-url"),
    "Open the URL directly in a new tab to see error message": ("image-url", "anonymous-get"),
    "Check browser console for CORS errors": ("cors",),
    # Upload succeeds but URL is wrong
    "Verify bucket region in URL matches your bucket's region": ("region", "url-format"),
    "Standard URL format": ("url-format",),
    "Alternative format": ("url-format", "dotted-bucket"),
    # "Bucket name already exists"
    "S3 bucket names are globally unique across ALL AWS accounts": ("bucket-owner",),
    # Do
    "Use IAM users for programmatic access (not root credentials)": ("not-root", "caller-identity"),
    "Enable encryption at rest": ("encryption",),
    "Use HTTPS for all URLs": ("https-urls",),
    "Implement file validation before uploading": ("upload-limits",),
    "Set expiration policies for temporary files": ("lifecycle",),
    "Monitor access using CloudWatch and S3 access logs": ("access-logs",),
    # Don't
    "Don't make buckets public unless necessary": ("block-public-access", "anonymous-get"),
    "Don't allow public upload": ("public-writes", "anonymous-put"),
    "Don't store sensitive data without encryption": ("encryption",),
    "Don't skip file validation": ("upload-limits",),
    "Don't use predictable filenames": ("anonymous-list",),
    "Don't forget CORS": ("cors",),
    # The private bucket's guide
    "Make sure you have checked Block all public access": ("block-public-access",),
    "Only GetObject and PutObject are allowed": ("probe-get", "probe-put", "missing-or-forbidden"),
    "Fill the .env file with the access keys": ("credentials", "credentials-accepted"),
    "Treat the secret access key as a password": ("env-file-mode",),
}


@pytest.mark.parametrize("advice", ADVICE)
def test_each_piece_of_advice_has_a_check(advice: str) -> None:
    assert ADVICE[advice]
    assert set(ADVICE[advice]) <= set(NAMES)


def test_names_are_unique_and_fit_into_the_table() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert max(map(len, NAMES)) < 24


def test_each_check_comes_after_what_it_needs() -> None:
    checks = checks_for("s3")
    for index, check in enumerate(checks):
        assert set(check.needs) <= set(checks[:index]), check.name


def test_other_stores_get_no_bucket_checks() -> None:
    names = [check.name for check in checks_for("local")]
    assert set(names) - set(NAMES) == {"probe-create"}
    assert "s3-answers" not in names
    assert "probe-put" in names


def test_the_documentation_lists_every_check() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "doctor.md").read_text("utf-8"), re.MULTILINE
    )
    assert [row for row in rows if row != "probe-create"] == NAMES
    assert "probe-create" in rows
