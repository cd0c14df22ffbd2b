"""If a check fails with an unexpected error, it is reported as skipped, and all other checks run."""

from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError, HTTPClientError

from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, Status, ok
from app.ops.doctor.runner import run_checks
from app.stores.s3.store import S3Store
from tests.compatible import LISTING, Ceph, answering, asks
from tests.ops.doctor.conftest import MakeContext, finding, findings
from tests.ops.doctor.fake_aws import FakeAws
from tests.s3server import S3Server, error, first_of

CALLS = {
    "object-ownership": "ownershipControls",
    "block-public-access": "publicAccessBlock",
    "bucket-policy": "policy",
    "public-writes": "acl",
    "cors": "cors",
    "lifecycle": "lifecycle",
    "encryption": "encryption",
    "access-logs": "logging",
}
BAD = [Status.PROBLEM, Status.WARNING]


def _check_that_raises(exc: Exception) -> Any:
    @check()
    def raising(context: CheckContext) -> Finding:
        raise exc

    @check(raising)
    def dependent(context: CheckContext) -> Finding:
        raise AssertionError

    @check()
    def other(context: CheckContext) -> Finding:
        return ok("It is.")

    return raising, dependent, other


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (KeyError("Rules"), "KeyError: 'Rules'"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (AttributeError("no x"), "AttributeError: no x"),
        (OSError(5, "Input/output error"), "OSError: Input/output error"),
        (ValueError("Invalid header value b'a-secret'"), "ValueError"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_an_unexpected_error_is_skipped_and_blocks_dependent_checks(
    private: CheckContext, exc: Exception, reason: str
) -> None:
    found = [result.finding for result in run_checks(private, _check_that_raises(exc))]
    assert [(f.status, f.text, f.fix) for f in found] == [
        (Status.SKIPPED, f"can't be checked: unexpected error {reason}", ""),
        (Status.SKIPPED, "not checked: raising must pass first", ""),
        (Status.OK, "It is.", ""),
    ]


def test_after_an_unexpected_error_of_the_put_the_probe_is_not_read(
    private: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: Any, **__: Any) -> None:
        raise KeyError("ETag")

    monkeypatch.setattr(S3Store, "put", put)
    found = findings(private)
    assert found["probe-put"].text == "can't be checked: unexpected error KeyError: 'ETag'"
    assert found["probe-get"].text == "not checked: probe-put must pass first"
    assert not [name for name, f in found.items() if f.status in BAD]


@pytest.mark.parametrize("body", [LISTING, b"<html><body>Hello", b'{"Contents": []}', b"[]"])
def test_a_check_is_skipped_if_the_response_belongs_to_a_different_call(
    public: CheckContext, s3: S3Server, aws: FakeAws, body: bytes
) -> None:
    s3.fault = first_of(*(answering(asks(f"GET ?{query}"), body) for query in CALLS.values()), aws)
    found = findings(public)
    assert not [name for name, f in found.items() if f.status in BAD]
    for name in CALLS:
        assert found[name].text == "can't be checked: this server does not support the call"


@pytest.mark.parametrize(
    "body",
    [
        b"<LifecycleConfiguration/>",
        b"<LifecycleConfiguration><Rule><ID>x</ID></Rule></LifecycleConfiguration>",
        b"",
    ],
)
def test_an_incomplete_setting_is_not_a_problem(
    public: CheckContext, s3: S3Server, aws: FakeAws, body: bytes
) -> None:
    s3.fault = first_of(answering(asks("GET ?lifecycle"), body), aws)
    found = findings(public)
    assert found["lifecycle"].status in (Status.OK, Status.SKIPPED)
    assert not [name for name, f in found.items() if f.status in BAD]


@pytest.mark.parametrize(
    "answer",
    [
        ("400 Bad Request", "MalformedXML"),
        ("400 Bad Request", "InvalidArgument"),
        ("405 Method Not Allowed", "MethodNotAllowed"),
        ("409 Conflict", "BucketAlreadyExists"),
        ("501 Not Implemented", "NotImplemented"),
    ],
)
def test_a_server_without_bucket_settings_has_no_problem(
    public: CheckContext, aws: FakeAws, answer: tuple[str, str]
) -> None:
    aws.refused = {f"GET {call}": answer for call in CALLS.values()}
    found = findings(public)
    assert not [name for name, f in found.items() if f.status in BAD]


def test_a_denied_put_suggests_block_public_acls_if_that_is_on(
    make_context: MakeContext, s3: S3Server
) -> None:
    context = make_context(s3_acl="none", image_urls="server")
    s3.fault = Ceph(BlockPublicAcls=True)
    found = finding(context, "probe-put")
    assert (found.status, found.text) == (Status.PROBLEM, "S3 denies PutObject.")
    advice = "Run flask bucket setup --mode private to turn BlockPublicAcls off for the bucket"
    assert found.fix.startswith(advice)
    s3.fault = error("403 Forbidden", "AccessDenied", lambda e: e["REQUEST_METHOD"] == "PUT")
    assert finding(context, "probe-put").fix == "Allow s3:PutObject: flask bucket iam-policy"


def test_a_bucket_without_block_public_acls_is_fine_on_a_compatible_server(
    make_context: MakeContext, s3: S3Server
) -> None:
    others = {"IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    s3.fault = Ceph(**others)
    context = make_context(s3_acl="none", image_urls="server")
    s3.fault = Ceph(**others)
    assert finding(context, "block-public-access").status is Status.OK
    s3.fault = Ceph(IgnorePublicAcls=True)
    assert finding(context, "block-public-access").status is Status.WARNING


@pytest.mark.parametrize(
    ("answer", "check_name", "words"),
    [
        (("403 Forbidden", "QuotaExceeded"), "probe-put", "quota"),
        (("400 Bad Request", "InvalidRequest"), "probe-put", "can't encrypt as S3_SSE requires"),
        (("400 Bad Request", "InvalidArgument"), "probe-put", "can't encrypt as S3_SSE requires"),
        (("501 Not Implemented", "NotImplemented"), "probe-put", "can't encrypt as S3_SSE requires"),
    ],
)
def test_error_codes_of_compatible_servers_are_explained(
    make_context: MakeContext, aws: FakeAws, answer: tuple[str, str], check_name: str, words: str
) -> None:
    context = make_context(s3_acl="none", image_urls="server", s3_sse="AES256")
    aws.refused = {"PUT object": answer}
    assert words in finding(context, check_name).text


def test_an_error_code_of_a_single_call_is_explained(private: CheckContext, aws: FakeAws) -> None:
    aws.refused = {"GET lifecycle": ("403 Forbidden", "UserSuspended")}
    found = finding(private, "lifecycle")
    assert "suspended the user" in found.text
    assert found.fix.startswith("Ask its administrator")


@pytest.mark.parametrize("status", ["302 Found", "401 Unauthorized", "418 I'm a teapot"])
@pytest.mark.parametrize("body", [b"", b"<html><body>Please log in</body></html>"])
def test_a_web_page_in_place_of_s3_is_one_problem(
    private: CheckContext, s3: S3Server, status: str, body: bytes
) -> None:
    def page(environ: dict[str, Any], start: Any) -> list[bytes]:
        start(status, [("Content-Type", "text/html"), ("Location", "https://login.example.org/")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    s3.fault = page
    found = findings(private)
    assert [name for name, f in found.items() if f.status in BAD] == ["credentials-accepted"]
    assert (
        found["credentials-accepted"].text == f"A {status[:3]} without an error code does not come from S3."
    )


def test_a_region_that_only_an_error_names_is_suggested(
    private: CheckContext, s3: S3Server, aws: FakeAws
) -> None:
    aws.region = ""
    wrong = error(
        "400 Bad Request",
        "AuthorizationHeaderMalformed",
        lambda environ: "/us-east-1/" in environ.get("HTTP_AUTHORIZATION", ""),
        elements="<Region>garage</Region>",
    )
    s3.fault = first_of(wrong, aws)
    found = findings(private)
    assert [name for name, f in found.items() if f.status is Status.PROBLEM] == ["region"]
    assert found["region"].fix == "Set AWS_REGION=garage"


def test_a_suspended_user_is_one_problem(private: CheckContext, aws: FakeAws) -> None:
    aws.refused = {"*": ("403 Forbidden", "UserSuspended")}
    found = findings(private)
    (problem,) = (f for f in found.values() if f.status is Status.PROBLEM)
    assert "suspended the user" in problem.text
    assert problem.fix.startswith("Ask its administrator")


@pytest.mark.parametrize(
    ("exc", "text", "fix"),
    [
        (
            CredentialRetrievalError(provider="custom-process", error_msg="exit 1"),
            "boto3: Error when retrieving credentials from custom-process: exit 1",
            "Set AWS_ACCESS_KEY_ID",
        ),
        (
            HTTPClientError(error=ValueError("Invalid header value b'a-secret'")),
            "the HTTP client failed: ValueError",
            "Check the network",
        ),
    ],
)
def test_errors_of_botocore_are_explained(private: CheckContext, exc: Exception, text: str, fix: str) -> None:
    found, *_ = (result.finding for result in run_checks(private, _check_that_raises(exc)))
    assert (found.status, found.text) == (Status.PROBLEM, text)
    assert found.fix.startswith(fix)
