"""A plan says whether it publishes existing objects. If it can't list them, it assumes that some exist."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.plan import make_plan
from app.ops.bucket.state import Target
from tests.aws_restrictions import refused
from tests.s3server import Fault, S3Server, first_of

BUCKET = "cats"
LIST_V2 = "GET ?list-type"
LIST_V1 = "GET ?max-keys"
UNKNOWN = ("501 Not Implemented", "NotImplemented")
DENIED = ("403 Forbidden", "AccessDenied")
REFUSALS = [UNKNOWN, DENIED, ("405 Method Not Allowed", "MethodNotAllowed"), ("404 Not Found", "NoSuchKey")]


@pytest.fixture
def clients(account: S3Server) -> AwsClients:
    """Clients for an account with one empty bucket."""
    account.make_bucket(BUCKET).close()
    return AwsClients(endpoint_url=account.url)


def _listing(inside: str) -> Fault:
    """Return a fault that sends a listing without KeyCount, as servers with only ListObjects do."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET" or "max-keys" not in environ["QUERY_STRING"]:
            return None
        body = f"<ListBucketResult><Name>cats</Name>{inside}</ListBucketResult>".encode()
        start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def _plan(clients: AwsClients) -> tuple[bool, bool]:
    plan = make_plan(clients, Target(BUCKET, "us-east-1", "public"))
    return plan.publishes, plan.unlisted


@pytest.mark.parametrize("refusal", [None, *REFUSALS])
@pytest.mark.parametrize("full", [True, False])
def test_the_first_version_is_used_if_the_second_is_refused(
    account: S3Server, clients: AwsClients, full: bool, refusal: tuple[str, str] | None
) -> None:
    if full:
        account.client().put_object(Bucket=BUCKET, Key="a.png", Body=b"x")
    account.fault = refused(LIST_V2, *refusal) if refusal else None
    assert _plan(clients) == (full, False)


@pytest.mark.parametrize(
    ("inside", "publishes"),
    [
        ("<Contents><Key>a.png</Key></Contents>", True),
        ("<IsTruncated>true</IsTruncated>", True),
        ("<IsTruncated>false</IsTruncated>", False),
    ],
)
def test_a_listing_needs_no_key_count(
    account: S3Server, clients: AwsClients, inside: str, publishes: bool
) -> None:
    account.fault = _listing(inside)
    assert _plan(clients) == (publishes, False)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_bucket_that_can_not_be_listed_is_assumed_to_contain_objects(
    account: S3Server, clients: AwsClients, refusal: tuple[str, str]
) -> None:
    account.fault = first_of(refused(LIST_V2, *refusal), refused(LIST_V1, *refusal))
    assert _plan(clients) == (True, True)


def test_a_new_bucket_publishes_nothing(account: S3Server) -> None:
    assert _plan(AwsClients(endpoint_url=account.url)) == (False, False)
