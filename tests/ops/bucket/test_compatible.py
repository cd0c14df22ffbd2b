"""Setting up on servers compatible with S3: what they don't know is skipped, what breaks them is undone."""

from typing import Any

import pytest

from app.ops.bucket.apply import carry_out
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.ops.bucket.plan import Outcome, Result, make_plan
from app.ops.bucket.policy import Mode, Target
from tests.aws_manners import all_of, body_of, refused
from tests.compatible import LISTING, Ceph, answering, asks, puts_object, s3rver, swift
from tests.s3server import Fault, S3Server, error

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


@pytest.fixture
def clients(account: S3Server) -> AwsClients:
    """Clients of the empty account."""
    return AwsClients(endpoint_url=account.url)


def _target(mode: Mode, **more: Any) -> Target:
    return Target(BUCKET, "us-east-1", mode, cors=("https://app.example",), **more)


def _set_up(clients: AwsClients, mode: Mode = "private", **more: Any) -> list[Result]:
    return list(carry_out(clients, make_plan(clients, _target(mode, **more)).steps))


def _told(results: list[Result]) -> list[tuple[str, str]]:
    return [(result.step.operation, result.outcome.name) for result in results]


def _outcome(results: list[Result], operation: str) -> Outcome:
    return next(result.outcome for result in results if result.step.operation == operation)


def _upload(clients: AwsClients) -> None:
    clients.s3.put_object(Bucket=BUCKET, Key="a.png", Body=b"x")


@pytest.mark.parametrize("mode", ["public", "private"])
def test_a_block_under_which_uploads_are_refused_is_undone(
    account: S3Server, clients: AwsClients, mode: Mode
) -> None:
    ceph = account.fault = Ceph()
    results = _set_up(clients, mode)
    assert _told(results)[:4] == [
        ("CreateBucket", "DONE"),
        ("PutBucketOwnershipControls", "UNSUPPORTED"),
        ("PutPublicAccessBlock", "REVERTED"),
        ("PutPublicAccessBlock", "DONE"),
    ]
    assert "403 AccessDenied" in results[2].message
    assert {result.outcome for result in results[4:-1]} == {Outcome.DONE}
    assert _told(results)[-1] == ("PutBucketEncryption", "UNSUPPORTED")
    assert ceph.block == {"BlockPublicAcls": False, **BLOCKED[mode]}
    _upload(clients)
    assert [found["Key"] for found in clients.s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["a.png"]
    assert make_plan(clients, _target(mode)).steps == ()


@pytest.mark.parametrize("mode", ["public", "private"])
def test_a_block_that_an_earlier_run_left_is_lifted(
    account: S3Server, clients: AwsClients, mode: Mode
) -> None:
    ceph = account.fault = Ceph()
    _set_up(clients, mode)
    ceph.block["BlockPublicAcls"] = True
    assert make_plan(clients, _target(mode), may_upload=False).steps == ()
    plan = make_plan(clients, _target(mode))
    assert [step.title for step in plan.steps] == [
        "Lift BlockPublicAcls, under which the server refuses every upload"
    ]
    assert _told(list(carry_out(clients, plan.steps))) == [("PutPublicAccessBlock", "DONE")]
    assert ceph.block == {"BlockPublicAcls": False, **BLOCKED[mode]}
    _upload(clients)


def test_the_block_that_was_there_comes_back(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).close()
    ceph = Ceph(BlockPublicPolicy=True)
    before = dict(ceph.block)
    account.fault = all_of(
        error("403 No", "AccessDenied", lambda e: puts_object(e) and ceph.block["IgnorePublicAcls"]), ceph
    )
    results = _set_up(clients)
    blocks = [r.outcome for r in results if r.step.operation == "PutPublicAccessBlock"]
    assert blocks == [Outcome.REVERTED] * 2
    assert ceph.block == before


def test_uploads_that_were_refused_before_are_not_the_steps_fault(
    account: S3Server, clients: AwsClients
) -> None:
    ceph = account.fault = Ceph(full=True)
    results = _set_up(clients)
    assert results[-1].outcome is Outcome.WARNING
    assert "quota" in results[-1].message
    assert not ceph.block["BlockPublicAcls"], "without room nobody can say whether it does harm"
    ceph.full = False
    _upload(clients)


def test_a_step_that_is_not_the_reason_is_made_again(account: S3Server, clients: AwsClients) -> None:
    account.fault = error("403 Forbidden", "AccessDenied", puts_object)
    results = _set_up(clients, "public")
    assert _outcome(results, "PutBucketOwnershipControls") is Outcome.DONE
    assert _outcome(results, "PutBucketPolicy") is Outcome.DONE
    assert results[-1].message == (
        "AWS denied PutObject, which needs s3:PutObject. AWS says: as played. It was so before these steps."
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
def test_any_setting_after_which_uploads_are_refused_is_undone(
    account: S3Server, clients: AwsClients, query: str, operation: str, answer: tuple[str, str]
) -> None:
    broken = [False]

    def breaks(environ: dict[str, Any], start: Any) -> Any:
        if environ["QUERY_STRING"] == query and environ["REQUEST_METHOD"] in ("PUT", "DELETE"):
            broken[0] = environ["REQUEST_METHOD"] == "PUT"
        return error(*answer, puts_object)(environ, start) if broken[0] else None

    account.fault = breaks
    assert _outcome(_set_up(clients, "public"), operation) is Outcome.REVERTED
    assert not broken[0]
    _upload(clients)


def test_a_setting_that_can_not_be_read_is_not_deleted(account: S3Server, clients: AwsClients) -> None:
    """Swift takes that for deleting the bucket."""
    asked: list[str] = []

    def breaks(environ: dict[str, Any], start: Any) -> Any:
        asked.append(f"{environ['REQUEST_METHOD']} ?{environ['QUERY_STRING']}")
        encrypted = "PUT ?encryption" in asked
        return error("400 No", "InvalidRequest", puts_object)(environ, start) if encrypted else None

    account.fault = all_of(breaks, refused("GET ?encryption", "403 Forbidden", "AccessDenied"))
    result = _set_up(clients)[-1]
    assert result.outcome is Outcome.WARNING
    assert result.message == (
        "Uploads are refused (400 InvalidRequest). If this is the reason, undo it: "
        'DeleteBucketEncryption {"Bucket": "cats"}'
    )
    assert "DELETE ?encryption" not in asked


def test_what_can_not_be_undone_is_told_with_the_call(account: S3Server, clients: AwsClients) -> None:
    encrypted = [False]

    def breaks(environ: dict[str, Any], start: Any) -> Any:
        encrypted[0] |= asks("PUT ?encryption")(environ)
        return error("400 No", "InvalidRequest", puts_object)(environ, start) if encrypted[0] else None

    account.fault = all_of(refused("DELETE ?encryption", "403 Forbidden", "AccessDenied"), breaks)
    result = _set_up(clients)[-1]
    assert (result.step.operation, result.outcome) == ("PutBucketEncryption", Outcome.FAILED)
    assert 'To be done by hand: DeleteBucketEncryption {"Bucket": "cats"}' in result.message


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
def test_each_setting_that_is_not_known_is_skipped(
    account: S3Server, clients: AwsClients, answer: tuple[str, str]
) -> None:
    account.fault = all_of(*(refused(f"PUT ?{query}", *answer) for query in OPTIONAL))
    results = _set_up(clients, "public", expire={"tmp/": 3})
    assert results[0].outcome is Outcome.DONE
    assert {result.outcome for result in results[1:]} == {Outcome.UNSUPPORTED}
    assert {result.step.operation for result in results[1:]} == set(OPTIONAL.values())
    assert {result.message for result in results[1:]} == {f"The server answers {answer[0][:3]} {answer[1]}."}


@pytest.mark.parametrize("answer", [("400 Bad Request", "InvalidArgument"), ("405 No", "MethodNotAllowed")])
def test_each_setting_that_can_not_be_read_is_skipped(
    account: S3Server, clients: AwsClients, answer: tuple[str, str]
) -> None:
    account.make_bucket(BUCKET).close()
    account.fault = all_of(*(refused(f"GET ?{query}", *answer) for query in (*OPTIONAL, "acl")))
    plan = make_plan(clients, _target("public"))
    assert (plan.steps, len(plan.unsupported)) == ((), 7)


@pytest.mark.parametrize("server", [s3rver, swift], ids=["s3rver", "Swift"])
@pytest.mark.parametrize("mode", ["public", "private"])
def test_real_servers_never_fail(account: S3Server, clients: AwsClients, server: Fault, mode: Mode) -> None:
    account.fault = server
    for _ in range(2):  # once for a new bucket, once for one that is there
        outcomes = {result.outcome for result in _set_up(clients, mode)}
        assert outcomes <= {Outcome.DONE, Outcome.UNSUPPORTED}


@pytest.mark.parametrize(
    "body", [LISTING, b"<html><body>Hello", b'{"Contents": []}', b"[]", b"<ListAllMyBucketsResult/>"]
)
def test_a_200_to_another_question_is_no_setting(account: S3Server, clients: AwsClients, body: bytes) -> None:
    account.make_bucket(BUCKET).close()
    account.fault = all_of(*(answering(asks(f"GET ?{query}"), body) for query in (*OPTIONAL, "acl")))
    plan = make_plan(clients, _target("private"))
    assert (plan.steps, len(plan.unsupported)) == ((), 7)


def test_a_setting_without_a_body_is_not_configured(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).close()
    account.fault = all_of(*(answering(asks(f"GET ?{query}")) for query in OPTIONAL))
    plan = make_plan(clients, _target("private"))
    assert plan.unsupported == ()
    assert "PutBucketEncryption" in [step.operation for step in plan.steps]


def test_a_setting_that_is_accepted_and_ignored_is_not_done(account: S3Server, clients: AwsClients) -> None:
    account.fault = all_of(*(answering(asks(f"PUT ?{query}")) for query in OPTIONAL))
    results = _set_up(clients, "public")[1:]
    assert {result.outcome for result in results} == {Outcome.UNSUPPORTED}
    assert [result.message for result in results] == [
        f"The server accepts {operation}, and ignores it." for operation in OPTIONAL.values()
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
def test_other_troubles_are_not_taken_for_an_unknown_setting(
    account: S3Server, clients: AwsClients, answer: tuple[str, str], words: str
) -> None:
    account.fault = refused("PUT ?encryption", *answer)
    result = _set_up(clients)[-1]
    assert result.outcome is Outcome.FAILED
    assert words in result.message


def test_closing_what_is_open_is_not_optional(account: S3Server, clients: AwsClients) -> None:
    _set_up(clients, "public")
    account.fault = refused("DELETE ?policy", "405 Method Not Allowed", "MethodNotAllowed")
    assert _outcome(_set_up(clients), "DeleteBucketPolicy") is Outcome.FAILED


def test_grants_to_others_are_not_optional_either(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).put_bucket_acl(Bucket=BUCKET, ACL="public-read-write")
    account.fault = refused("PUT ?acl", "501 Not Implemented", "NotImplemented")
    assert _outcome(_set_up(clients), "PutBucketAcl") is Outcome.FAILED


def test_expiry_is_set_without_what_the_server_can_not_do(account: S3Server, clients: AwsClients) -> None:
    def without_abort(environ: dict[str, Any], start: Any) -> Any:
        if asks("PUT ?lifecycle")(environ) and b"AbortIncomplete" in body_of(environ):
            return error("400 Bad Request", "MalformedXML", lambda _: True)(environ, start)
        return None

    account.fault = without_abort
    results = _set_up(clients, expire={"tmp/": 3})
    assert _told(results)[4:6] == [
        ("PutBucketLifecycleConfiguration", "UNSUPPORTED"),
        ("PutBucketLifecycleConfiguration", "DONE"),
    ]
    (rule,) = clients.s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["Expiration"] == {"Days": 3}


@pytest.mark.parametrize("code", ["InvalidLocationConstraint", "InvalidRegionName"])
def test_a_region_that_the_server_does_not_know(account: S3Server, clients: AwsClients, code: str) -> None:
    account.fault = error(
        "400 Bad Request", code, lambda e: e["REQUEST_METHOD"] == "PUT", message="Must be one of: auto"
    )
    result = _set_up(clients)[0]
    assert result.outcome is Outcome.FAILED
    assert "does not know the region in AWS_REGION" in result.message
    assert "The server says: Must be one of: auto" in result.message


def test_the_right_region_is_named(account: S3Server, clients: AwsClients) -> None:
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
        ("302 Found", "another region than AWS_REGION"),
        ("401 Unauthorized", "GetBucketOwnershipControls failed: 401"),
    ],
)
def test_a_page_in_the_place_of_s3(account: S3Server, clients: AwsClients, status: str, words: str) -> None:
    def page(environ: dict[str, Any], start: Any) -> list[bytes]:
        start(status, [("Content-Type", "text/html"), ("Location", "https://login.example.org/")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"<html><body>Please log in</body></html>"]

    account.fault = page
    with pytest.raises(BucketError, match=words):
        make_plan(clients, _target("private"))


@pytest.mark.parametrize("exists", [True, False])
def test_the_right_region_is_named_though_botocore_goes_there(
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


def test_aws_is_trusted(account: S3Server, clients: AwsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AwsClients, "is_compatible_server", False)
    account.fault = all_of(
        refused("PUT ?encryption", "400 Bad Request", "InvalidArgument"), error("403 No", "No", puts_object)
    )
    results = _set_up(clients)
    assert _told(results)[-1] == ("PutBucketEncryption", "FAILED")
    assert {result.outcome for result in results[:-1]} == {Outcome.DONE}
    assert not [path for method, path, _ in account.requests if method == "PUT" and "probe" in path]
