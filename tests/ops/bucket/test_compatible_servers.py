"""Compatible servers: unsupported settings are skipped, and settings that break uploads are undone."""

from typing import Any

import pytest

from app.ops.bucket.apply import StepResult, StepStatus, apply_steps
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.ops.bucket.plan import make_plan
from app.ops.bucket.state import Mode, Target
from tests.aws_restrictions import body_of, refused
from tests.compatible import LISTING, Ceph, answering, asks, puts_object, s3rver, swift
from tests.s3server import Fault, S3Server, error, first_of

BUCKET = "cats"
OPTIONAL = {
    "ownershipControls": "PutBucketOwnershipControls",
    "publicAccessBlock": "PutPublicAccessBlock",
    "policy": "PutBucketPolicy",
    "cors": "PutBucketCors",
    "lifecycle": "PutBucketLifecycleConfiguration",
    "encryption": "PutBucketEncryption",
}
BLOCKED = {
    "public": {"IgnorePublicAcls": True, "BlockPublicPolicy": False, "RestrictPublicBuckets": False},
    "private": {"IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True},
}


def _target(mode: Mode, **more: Any) -> Target:
    return Target(BUCKET, "us-east-1", mode, cors=("https://app.example",), **more)


def _set_up(clients: AwsClients, mode: Mode = "private", **more: Any) -> list[StepResult]:
    return list(apply_steps(clients, make_plan(clients, _target(mode, **more)).steps))


def _statuses(results: list[StepResult]) -> list[tuple[str, str]]:
    return [(result.step.operation, result.status.name) for result in results]


def _status(results: list[StepResult], operation: str) -> StepStatus:
    return next(result.status for result in results if result.step.operation == operation)


def _upload(clients: AwsClients) -> None:
    clients.s3.put_object(Bucket=BUCKET, Key="a.png", Body=b"x")


@pytest.mark.parametrize("mode", ["public", "private"])
def test_a_block_that_makes_uploads_fail_is_undone(
    account: S3Server, clients: AwsClients, mode: Mode
) -> None:
    ceph = account.fault = Ceph()
    results = _set_up(clients, mode)
    assert _statuses(results)[:4] == [
        ("CreateBucket", "DONE"),
        ("PutBucketOwnershipControls", "UNSUPPORTED"),
        ("PutPublicAccessBlock", "REVERTED"),
        ("PutPublicAccessBlock", "DONE"),
    ]
    assert "403 AccessDenied" in results[2].message
    assert {result.status for result in results[4:-1]} == {StepStatus.DONE}
    assert _statuses(results)[-1] == ("PutBucketEncryption", "UNSUPPORTED")
    assert ceph.block == {"BlockPublicAcls": False, **BLOCKED[mode]}
    _upload(clients)
    assert [found["Key"] for found in clients.s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["a.png"]
    assert make_plan(clients, _target(mode)).steps == ()


@pytest.mark.parametrize("mode", ["public", "private"])
def test_a_block_that_an_earlier_run_left_on_is_turned_off(
    account: S3Server, clients: AwsClients, mode: Mode
) -> None:
    ceph = account.fault = Ceph()
    _set_up(clients, mode)
    ceph.block["BlockPublicAcls"] = True
    assert make_plan(clients, _target(mode), may_upload=False).steps == ()
    plan = make_plan(clients, _target(mode))
    assert [step.title for step in plan.steps] == [
        "Turn BlockPublicAcls off, since the server refuses every upload with it"
    ]
    assert _statuses(list(apply_steps(clients, plan.steps))) == [("PutPublicAccessBlock", "DONE")]
    assert ceph.block == {"BlockPublicAcls": False, **BLOCKED[mode]}
    _upload(clients)


def test_undoing_restores_the_previous_blocks(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).close()
    ceph = Ceph(BlockPublicPolicy=True)
    before = dict(ceph.block)
    account.fault = first_of(
        error("403 No", "AccessDenied", lambda e: puts_object(e) and ceph.block["IgnorePublicAcls"]), ceph
    )
    results = _set_up(clients)
    blocks = [r.status for r in results if r.step.operation == "PutPublicAccessBlock"]
    assert blocks == [StepStatus.REVERTED] * 2
    assert ceph.block == before


def test_uploads_that_failed_before_the_steps_are_a_warning(account: S3Server, clients: AwsClients) -> None:
    ceph = account.fault = Ceph(full=True)
    results = _set_up(clients)
    assert results[-1].status is StepStatus.WARNING
    assert "quota" in results[-1].message
    assert not ceph.block["BlockPublicAcls"], (
        "while the quota is used up, nobody can tell whether the block is harmful"
    )
    ceph.full = False
    _upload(clients)


def test_an_undone_step_is_repeated_if_uploads_still_fail(account: S3Server, clients: AwsClients) -> None:
    account.fault = error("403 Forbidden", "AccessDenied", puts_object)
    results = _set_up(clients, "public")
    assert _status(results, "PutBucketOwnershipControls") is StepStatus.DONE
    assert _status(results, "PutBucketPolicy") is StepStatus.DONE
    assert results[-1].message == (
        "AWS denied PutObject, which needs s3:PutObject. AWS says: as played. "
        "The steps above are not the reason."
    )
    ownership = clients.s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]


@pytest.mark.parametrize(
    ("query", "operation"),
    [
        ("encryption", "PutBucketEncryption"),
        ("ownershipControls", "PutBucketOwnershipControls"),
        ("policy", "PutBucketPolicy"),
    ],
)
@pytest.mark.parametrize("answer", [("400 Bad Request", "InvalidRequest"), ("500 Broken", "InternalError")])
def test_any_setting_that_makes_uploads_fail_is_undone(
    account: S3Server, clients: AwsClients, query: str, operation: str, answer: tuple[str, str]
) -> None:
    broken = [False]

    def breaks(environ: dict[str, Any], start: Any) -> Any:
        if environ["QUERY_STRING"] == query and environ["REQUEST_METHOD"] in ("PUT", "DELETE"):
            broken[0] = environ["REQUEST_METHOD"] == "PUT"
        return error(*answer, puts_object)(environ, start) if broken[0] else None

    account.fault = breaks
    assert _status(_set_up(clients, "public"), operation) is StepStatus.REVERTED
    assert not broken[0]
    _upload(clients)


def test_a_setting_that_can_not_be_read_is_not_deleted(account: S3Server, clients: AwsClients) -> None:
    """The DELETE for the setting would make Swift delete the bucket."""
    calls: list[str] = []

    def breaks(environ: dict[str, Any], start: Any) -> Any:
        calls.append(f"{environ['REQUEST_METHOD']} ?{environ['QUERY_STRING']}")
        encrypted = "PUT ?encryption" in calls
        return error("400 No", "InvalidRequest", puts_object)(environ, start) if encrypted else None

    account.fault = first_of(breaks, refused("GET ?encryption", "403 Forbidden", "AccessDenied"))
    result = _set_up(clients)[-1]
    assert result.status is StepStatus.WARNING
    assert result.message == (
        "The server refuses uploads (400 InvalidRequest). If this step is the reason, undo it: "
        'DeleteBucketEncryption {"Bucket": "cats"}'
    )
    assert "DELETE ?encryption" not in calls


def test_a_failed_undo_prints_the_call_to_make(account: S3Server, clients: AwsClients) -> None:
    encrypted = [False]

    def breaks(environ: dict[str, Any], start: Any) -> Any:
        encrypted[0] |= asks("PUT ?encryption")(environ)
        return error("400 No", "InvalidRequest", puts_object)(environ, start) if encrypted[0] else None

    account.fault = first_of(refused("DELETE ?encryption", "403 Forbidden", "AccessDenied"), breaks)
    result = _set_up(clients)[-1]
    assert (result.step.operation, result.status) == ("PutBucketEncryption", StepStatus.FAILED)
    assert 'Undo it by hand: DeleteBucketEncryption {"Bucket": "cats"}' in result.message


@pytest.mark.parametrize(
    "answer",
    [
        ("400 Bad Request", "InvalidArgument"),
        ("400 Bad Request", "MalformedXML"),
        ("400 Bad Request", "InvalidRequest"),
        ("405 Method Not Allowed", "MethodNotAllowed"),
        ("409 Conflict", "BucketAlreadyExists"),
        ("409 Conflict", "BucketAlreadyOwnedByYou"),
        ("501 Not Implemented", "NotImplemented"),
        ("501 Not Implemented", "OfItsOwn"),
    ],
    ids=lambda answer: f"{answer[0][:3]} {answer[1]}",
)
def test_each_unsupported_setting_is_skipped(
    account: S3Server, clients: AwsClients, answer: tuple[str, str]
) -> None:
    account.fault = first_of(*(refused(f"PUT ?{query}", *answer) for query in OPTIONAL))
    results = _set_up(clients, "public", expire={"tmp/": 3})
    assert results[0].status is StepStatus.DONE
    assert {result.status for result in results[1:]} == {StepStatus.UNSUPPORTED}
    assert {result.step.operation for result in results[1:]} == set(OPTIONAL.values())
    assert {result.message for result in results[1:]} == {
        f"The server responded with {answer[0][:3]} {answer[1]}."
    }


@pytest.mark.parametrize("answer", [("400 Bad Request", "InvalidArgument"), ("405 No", "MethodNotAllowed")])
def test_each_setting_that_can_not_be_read_is_skipped(
    account: S3Server, clients: AwsClients, answer: tuple[str, str]
) -> None:
    account.make_bucket(BUCKET).close()
    account.fault = first_of(*(refused(f"GET ?{query}", *answer) for query in (*OPTIONAL, "acl")))
    plan = make_plan(clients, _target("public"))
    assert (plan.steps, len(plan.unsupported)) == ((), 7)


@pytest.mark.parametrize("server", [s3rver, swift], ids=["s3rver", "Swift"])
@pytest.mark.parametrize("mode", ["public", "private"])
def test_setup_succeeds_on_servers_that_we_ran(
    account: S3Server, clients: AwsClients, server: Fault, mode: Mode
) -> None:
    account.fault = server
    for _ in range(2):  # once for a new bucket, once for an existing one
        statuses = {result.status for result in _set_up(clients, mode)}
        assert statuses <= {StepStatus.DONE, StepStatus.UNSUPPORTED}


@pytest.mark.parametrize(
    "body", [LISTING, b"<html><body>Hello", b'{"Contents": []}', b"[]", b"<ListAllMyBucketsResult/>"]
)
def test_a_200_that_belongs_to_a_different_request_is_not_a_setting(
    account: S3Server, clients: AwsClients, body: bytes
) -> None:
    account.make_bucket(BUCKET).close()
    account.fault = first_of(*(answering(asks(f"GET ?{query}"), body) for query in (*OPTIONAL, "acl")))
    plan = make_plan(clients, _target("private"))
    assert (plan.steps, len(plan.unsupported)) == ((), 7)


def test_an_empty_response_means_that_the_setting_is_not_configured(
    account: S3Server, clients: AwsClients
) -> None:
    account.make_bucket(BUCKET).close()
    account.fault = first_of(*(answering(asks(f"GET ?{query}")) for query in OPTIONAL))
    plan = make_plan(clients, _target("private"))
    assert plan.unsupported == ()
    assert "PutBucketEncryption" in [step.operation for step in plan.steps]


def test_a_setting_that_is_accepted_but_ignored_counts_as_unsupported(
    account: S3Server, clients: AwsClients
) -> None:
    account.fault = first_of(*(answering(asks(f"PUT ?{query}")) for query in OPTIONAL))
    results = _set_up(clients, "public")[1:]
    assert {result.status for result in results} == {StepStatus.UNSUPPORTED}
    assert [result.message for result in results] == [
        f"The server accepts {operation} but ignores it." for operation in OPTIONAL.values()
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("400 Bad Request", "ExpiredToken"), "have expired"),
        (("400 Bad Request", "AuthorizationHeaderMalformed"), "AWS_REGION"),
        (("409 Conflict", "OperationAborted"), "still busy"),
        (("403 Forbidden", "UserSuspended"), "suspended the user"),
        (("403 Forbidden", "AccessDenied"), "s3:PutEncryptionConfiguration"),
        (("500 Broken", "InternalError"), "overloaded"),
    ],
)
def test_other_errors_are_failures_instead_of_unknown_settings(
    account: S3Server, clients: AwsClients, answer: tuple[str, str], words: str
) -> None:
    account.fault = refused("PUT ?encryption", *answer)
    result = _set_up(clients)[-1]
    assert result.status is StepStatus.FAILED
    assert words in result.message


def test_removing_a_public_policy_is_not_optional(account: S3Server, clients: AwsClients) -> None:
    _set_up(clients, "public")
    account.fault = refused("DELETE ?policy", "405 Method Not Allowed", "MethodNotAllowed")
    assert _status(_set_up(clients), "DeleteBucketPolicy") is StepStatus.FAILED


def test_removing_grants_to_others_is_not_optional(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).put_bucket_acl(Bucket=BUCKET, ACL="public-read-write")
    account.fault = refused("PUT ?acl", "501 Not Implemented", "NotImplemented")
    assert _status(_set_up(clients), "PutBucketAcl") is StepStatus.FAILED


def test_expiry_is_set_without_the_rule_that_the_server_refuses(
    account: S3Server, clients: AwsClients
) -> None:
    def without_abort(environ: dict[str, Any], start: Any) -> Any:
        if asks("PUT ?lifecycle")(environ) and b"AbortIncomplete" in body_of(environ):
            return error("400 Bad Request", "MalformedXML", lambda _: True)(environ, start)
        return None

    account.fault = without_abort
    results = _set_up(clients, expire={"tmp/": 3})
    assert _statuses(results)[4:6] == [
        ("PutBucketLifecycleConfiguration", "UNSUPPORTED"),
        ("PutBucketLifecycleConfiguration", "DONE"),
    ]
    (rule,) = clients.s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["Expiration"] == {"Days": 3}


@pytest.mark.parametrize("code", ["InvalidLocationConstraint", "InvalidRegionName"])
def test_an_unknown_region_is_reported_with_the_servers_message(
    account: S3Server, clients: AwsClients, code: str
) -> None:
    account.fault = error(
        "400 Bad Request", code, lambda e: e["REQUEST_METHOD"] == "PUT", message="Must be one of: auto"
    )
    result = _set_up(clients)[0]
    assert result.status is StepStatus.FAILED
    assert "does not know the region in AWS_REGION" in result.message
    assert "The server says: Must be one of: auto" in result.message


def test_an_error_names_the_right_region(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).close()
    wrong = error(
        "400 Bad Request", "AuthorizationHeaderMalformed", lambda _: True, elements="<Region>garage</Region>"
    )
    account.fault = wrong
    with pytest.raises(BucketError, match="in the region garage, not us-east-1: set AWS_REGION=garage"):
        make_plan(clients, _target("private"))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("302 Found", "different region than AWS_REGION"),
        ("401 Unauthorized", "GetBucketOwnershipControls failed: 401"),
    ],
)
def test_a_web_page_instead_of_s3_is_an_error(
    account: S3Server, clients: AwsClients, status: str, words: str
) -> None:
    def page(environ: dict[str, Any], start: Any) -> list[bytes]:
        start(status, [("Content-Type", "text/html"), ("Location", "https://login.example.org/")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"<html><body>Please log in</body></html>"]

    account.fault = page
    with pytest.raises(BucketError, match=words):
        make_plan(clients, _target("private"))


@pytest.mark.parametrize("exists", [True, False])
def test_an_error_names_the_right_region_even_if_botocore_follows_it(
    account: S3Server, clients: AwsClients, exists: bool
) -> None:
    if exists:
        account.make_bucket(BUCKET).close()
    account.fault = error(
        "400 Bad Request",
        "AuthorizationHeaderMalformed",
        lambda environ: "/us-east-1/" in environ["HTTP_AUTHORIZATION"],
        elements="<Region>garage</Region>",
    )
    with pytest.raises(BucketError, match="in the region garage, not us-east-1: set AWS_REGION=garage"):
        make_plan(clients, _target("private"))


def test_aws_is_not_checked_with_test_uploads(
    account: S3Server, clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsClients, "is_compatible_server", False)
    account.fault = first_of(
        refused("PUT ?encryption", "400 Bad Request", "InvalidArgument"), error("403 No", "No", puts_object)
    )
    results = _set_up(clients)
    assert _statuses(results)[-1] == ("PutBucketEncryption", "FAILED")
    assert {result.status for result in results[:-1]} == {StepStatus.DONE}
    assert not [path for method, path, _ in account.requests if method == "PUT" and "probe" in path]
