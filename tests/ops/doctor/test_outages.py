"""Each cause results in one problem, within a time limit. Checks that depend on it are skipped."""

import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest

from app.ops.doctor import runner
from app.ops.doctor.context import CheckContext
from app.ops.doctor.findings import Status
from tests.ops.doctor.conftest import MakeContext, findings
from tests.ops.doctor.fake_aws import FakeAws, call_of
from tests.s3server import S3Server
from tests.waiting import wait_until

REFUSED = [
    ("400 Bad Request", "ExpiredToken", "credentials-accepted", "expired"),
    ("403 Forbidden", "InvalidAccessKeyId", "credentials-accepted", "not known"),
    ("403 Forbidden", "SignatureDoesNotMatch", "credentials-accepted", "secret access key"),
    ("403 Forbidden", "RequestTimeTooSkewed", "credentials-accepted", "clock"),
    ("403 Forbidden", "AllAccessDisabled", "credentials-accepted", "disabled"),
    ("404 Not Found", "NoSuchBucket", "bucket-exists", "no bucket"),
    ("503 Slow Down", "SlowDown", "s3-answers", "overloaded"),
    ("500 Internal Server Error", "InternalError", "s3-answers", "not working"),
]


def problems(context: CheckContext) -> dict[str, str]:
    """Run all checks. Return the texts of the problems by name."""
    return {name: f.text for name, f in findings(context).items() if f.status is Status.PROBLEM}


@pytest.mark.parametrize(("status", "code", "check", "text"), REFUSED)
def test_a_refusal_of_all_calls_is_one_problem(
    private: CheckContext, aws: FakeAws, status: str, code: str, check: str, text: str
) -> None:
    aws.refused = {"*": (status, code)}
    found = problems(private)
    assert list(found) == [check]
    assert text in found[check]


def test_a_bucket_in_a_different_region_is_one_problem(private: CheckContext, aws: FakeAws) -> None:
    aws.region = "eu-west-1"
    found = findings(private)
    assert [name for name, f in found.items() if f.status is Status.PROBLEM] == ["region"]
    assert found["region"].fix == "Set AWS_REGION=eu-west-1"


def test_a_redirect_without_a_region_is_one_problem(private: CheckContext, aws: FakeAws) -> None:
    aws.region = ""
    aws.refused = {"GET missing": ("301 Moved Permanently", "PermanentRedirect")}
    assert problems(private) == {
        "credentials-accepted": "The bucket is in a different region than AWS_REGION."
    }


def test_refused_connections_are_one_problem(s3: S3Server, make_context: MakeContext) -> None:
    assert list(problems(make_context(aws_endpoint_url_s3="http://127.0.0.1:9"))) == ["s3-answers"]


def test_missing_credentials_are_one_problem(
    private: CheckContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(problems(private)) == ["credentials"]


def _make_clients(context: CheckContext) -> None:
    """Create the clients, whose creation takes seconds, before time is measured."""
    assert context.clients.s3
    assert context.clients.sts
    assert context.clients.s3control
    assert not context.store.exists("x.png")


def _is_check_running() -> bool:
    return any(thread.name.startswith("doctor ") for thread in threading.enumerate())


def test_a_silent_server_costs_one_timeout(
    private: CheckContext, s3: S3Server, aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes] | None:
        s3.silence(60)
        return aws(environ, start)

    monkeypatch.setattr(runner, "CHECK_SECONDS", 3.0)
    _make_clients(private)
    s3.fault = silent
    began = time.monotonic()
    assert problems(private) == {"s3-answers": "No response within 3 seconds."}
    assert time.monotonic() - began < 30
    s3.reset()
    wait_until(lambda: not _is_check_running())  # the next test must not see its requests


def test_slow_checks_end_at_the_total_time_limit(
    private: CheckContext, s3: S3Server, aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock advances by five seconds with each of these calls. A check makes at most two of them."""
    now = [0.0]

    def slow(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes] | None:
        if call_of(environ) in ("PUT object", "GET object", "GET policy", "GET acl"):
            now[0] += 5
        return aws(environ, start)

    monkeypatch.setattr(runner, "TOTAL_SECONDS", 20.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: now[0]))
    _make_clients(private)
    s3.fault = slow
    found = findings(private)
    assert now[0] <= 20 + 10
    assert found["access-logs"].text == "not checked: the time limit of 20 seconds was reached"
    assert found["probe-delete"].status is Status.OK


def test_an_unreachable_sts_is_not_a_problem(
    private: CheckContext, monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    found = findings(make_context(s3_acl="none", image_urls="server"))
    assert not [name for name, f in found.items() if f.status is Status.PROBLEM]
    assert found["caller-identity"].text.startswith("can't be checked: Could not connect")
    assert found["bucket-owner"].text == "not checked: caller-identity must pass first"


def test_credentials_of_a_compatible_server_are_not_sent_to_aws(
    s3: S3Server, private: CheckContext, monkeypatch: pytest.MonkeyPatch, make_context: MakeContext
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS")
    found = findings(make_context(s3_acl="none", image_urls="server"))
    assert found["caller-identity"].text == f"does not apply: the server at {s3.url} has no STS"


@pytest.mark.parametrize(
    ("off", "status"),
    [(5, Status.OK), (300, Status.WARNING), (1200, Status.PROBLEM), (-1200, Status.PROBLEM)],
)
def test_a_wrong_clock_is_found(
    private: CheckContext, monkeypatch: pytest.MonkeyPatch, off: int, status: Status
) -> None:
    def date(handler: BaseHTTPRequestHandler, timestamp: float | None = None) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)

    monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", date)
    assert findings(private)["clock"].status is status


@pytest.mark.parametrize(
    "answer", [("501 Not Implemented", "NotImplemented"), ("404 Not Found", "NoSuchKey")], ids=lambda a: a[1]
)
def test_calls_that_the_server_does_not_support_are_skipped(
    private: CheckContext, aws: FakeAws, answer: tuple[str, str]
) -> None:
    calls = ("publicAccessBlock", "ownershipControls", "policy", "lifecycle", "encryption", "acl", "logging")
    aws.refused = {f"GET {call}": answer for call in calls}
    found = findings(private)
    assert not [name for name, f in found.items() if f.status in (Status.PROBLEM, Status.WARNING)]
    assert found["lifecycle"].text == "can't be checked: this server does not support the call"


def test_any_404_code_means_that_nothing_is_configured(private: CheckContext, aws: FakeAws) -> None:
    aws.refused = {"GET lifecycle": ("404 Not Found", "NoSuchRules")}
    assert findings(private)["lifecycle"].text == "No lifecycle rule deletes images."


def test_an_endpoint_that_is_not_sts_is_skipped(private: CheckContext, aws: FakeAws) -> None:
    aws.refused = {"sts": ("404 Not Found", "NoSuchService")}
    assert (
        findings(private)["caller-identity"].text
        == "can't be checked: the server at the endpoint for STS does not support STS"
    )
