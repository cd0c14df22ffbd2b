"""Setting up against what AWS refuses and moto permits."""

from pathlib import Path

import pytest

from app.ops.bucket import apply as module
from app.ops.bucket.apply import carry_out
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.ops.bucket.plan import Outcome, Plan, Result, make_plan
from app.ops.bucket.policy import Mode, Target
from tests.aws_manners import AwsManners, all_of, refused
from tests.s3server import S3Server

BUCKET = "cats"
CONFLICT = ("409 Conflict", "OperationAborted")
DENIED = ("403 Forbidden", "AccessDenied")
BLOCK = "PUT ?publicAccessBlock"
SETTINGS = ("ownershipControls", "publicAccessBlock", "policy", "cors", "lifecycle", "encryption")


@pytest.fixture
def clients(account: S3Server) -> AwsClients:
    """Clients of the empty account."""
    return AwsClients(endpoint_url=account.url)


def _target(mode: Mode) -> Target:
    return Target(BUCKET, "us-east-1", mode, cors=("https://app.example",))


def _set_up(clients: AwsClients, mode: Mode) -> list[Result]:
    return list(carry_out(clients, make_plan(clients, _target(mode)).steps))


def _outcomes(results: list[Result]) -> dict[str, str]:
    return {result.step.operation: result.outcome.name for result in results}


def _asked(account: S3Server, method: str) -> int:
    return sum(asked == method for asked, _, _ in account.requests)


@pytest.mark.parametrize("mode", ["public", "private"])
def test_from_nothing_under_the_rules_of_aws_and_again(
    account: S3Server, clients: AwsClients, mode: Mode
) -> None:
    account.fault = AwsManners(account)
    results = _set_up(clients, mode)
    assert {result.outcome for result in results} == {Outcome.DONE}
    assert make_plan(clients, _target(mode)) == Plan((), publishes=False, unsupported=())


def test_to_and_fro_under_the_rules_of_aws(account: S3Server, clients: AwsClients) -> None:
    account.fault = AwsManners(account)
    _set_up(clients, "private")
    assert _outcomes(_set_up(clients, "public")) == {
        "PutPublicAccessBlock": "DONE",
        "PutBucketPolicy": "DONE",
    }
    assert _outcomes(_set_up(clients, "private")) == {
        "DeleteBucketPolicy": "DONE",
        "PutPublicAccessBlock": "DONE",
    }


def test_a_policy_refused_just_after_the_block_was_lifted_is_tried_again(
    account: S3Server, clients: AwsClients
) -> None:
    account.fault = AwsManners(account, late=2)
    assert _outcomes(_set_up(clients, "public"))["PutBucketPolicy"] == "DONE"


def test_a_block_above_the_bucket_is_explained(account: S3Server, clients: AwsClients) -> None:
    account.fault = AwsManners(account, blocked_above=True)
    results = _set_up(clients, "public")
    assert _outcomes(results)["PutBucketPolicy"] == "FAILED"
    (message,) = (result.message for result in results if result.message)
    assert message.startswith("AWS denied PutBucketPolicy, which needs s3:PutBucketPolicy. AWS says:")
    assert "aws s3control get-public-access-block --account-id" in message
    assert _outcomes(results)["PutBucketCors"] == "DONE"


def test_a_denied_policy_is_not_tried_again_where_no_block_was_lifted(
    account: S3Server, clients: AwsClients
) -> None:
    _set_up(clients, "public")
    clients.s3.delete_bucket_policy(Bucket=BUCKET)
    plan = make_plan(clients, _target("public"))
    account.reset()
    account.fault = refused("PUT ?policy", *DENIED)
    assert _outcomes(list(carry_out(clients, plan.steps))) == {"PutBucketPolicy": "FAILED"}
    assert _asked(account, "PUT") == 1


OPERATIONS = ["PUT", "PUT ?ownershipControls", BLOCK, "PUT ?policy", "PUT ?lifecycle"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_conflict_is_tried_again(account: S3Server, clients: AwsClients, operation: str) -> None:
    account.fault = refused(operation, *CONFLICT, times=2)
    assert set(_outcomes(_set_up(clients, "public")).values()) == {"DONE"}


def test_a_conflict_that_lasts_is_told(account: S3Server, clients: AwsClients) -> None:
    account.fault = refused("PUT", *CONFLICT)
    results = _set_up(clients, "private")
    assert results[0].message.endswith("Try again in some minutes")
    assert _asked(account, "PUT") == len(module.WAITS) + 1
    assert {result.outcome for result in results[1:]} == {Outcome.NOT_TRIED}


def test_a_bucket_not_known_everywhere_is_waited_for(account: S3Server, clients: AwsClients) -> None:
    account.fault = refused("PUT ?publicAccessBlock", "404 Not Found", "NoSuchBucket", times=3)
    assert _outcomes(_set_up(clients, "private"))["PutPublicAccessBlock"] == "DONE"


def test_a_bucket_that_vanishes_is_not_waited_for(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET)
    plan = make_plan(clients, _target("private"))
    account.reset()
    account.fault = refused("PUT ?publicAccessBlock", "404 Not Found", "NoSuchBucket")
    assert _outcomes(list(carry_out(clients, plan.steps)))["PutPublicAccessBlock"] == "FAILED"


@pytest.mark.parametrize(
    ("operation", "mode", "action", "outcomes"),
    [
        ("PUT", "private", "s3:CreateBucket", "FAILED " + "NOT_TRIED " * 5),
        (
            BLOCK,
            "public",
            "s3:PutBucketPublicAccessBlock",
            "DONE DONE FAILED " + "NOT_TRIED " * 4,
        ),
        (
            BLOCK,
            "private",
            "s3:PutBucketPublicAccessBlock",
            "DONE DONE FAILED DONE DONE DONE",
        ),
        ("PUT ?ownershipControls", "public", "s3:PutBucketOwnershipControls", "DONE FAILED " + "DONE " * 5),
        ("PUT ?cors", "private", "s3:PutBucketCORS", "DONE DONE DONE FAILED DONE DONE"),
        ("PUT ?lifecycle", "private", "s3:PutLifecycleConfiguration", "DONE DONE DONE DONE FAILED DONE"),
        ("PUT ?encryption", "private", "s3:PutEncryptionConfiguration", "DONE DONE DONE DONE DONE FAILED"),
    ],
)
def test_a_denied_call_names_the_action_and_others_go_on(
    account: S3Server, clients: AwsClients, operation: str, mode: Mode, action: str, outcomes: str
) -> None:
    account.fault = refused(operation, *DENIED)
    results = _set_up(clients, mode)
    assert list(_outcomes(results).values()) == outcomes.split()
    assert f"needs {action}. AWS says: as played" in next(r.message for r in results if r.message)


def test_denied_reading_names_all_that_is_missing(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET)
    account.fault = all_of(
        *(refused(f"GET ?{query}", *DENIED) for query in ("policy", "acl", "cors")),
    )
    with pytest.raises(BucketError) as caught:
        make_plan(clients, _target("public"))
    assert (
        "they need s3:GetBucketAcl, s3:GetBucketPolicy, s3:GetBucketCORS on arn:aws:s3:::cats"
    ) in caught.value.message


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("409 Conflict", "BucketAlreadyExists", "unique across all of AWS"),
        ("400 Bad Request", "InvalidBucketName", "3 to 63 lower-case letters"),
        ("400 Bad Request", "Unheard", "CreateBucket failed: Unheard. AWS says: as played"),
    ],
)
def test_a_bucket_that_can_not_be_created(
    account: S3Server, clients: AwsClients, status: str, code: str, words: str
) -> None:
    account.fault = refused("PUT", status, code)
    results = _set_up(clients, "private")
    assert results[0].outcome is Outcome.FAILED
    assert words in results[0].message


def test_a_bucket_that_is_ours_already_is_no_failure(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET)
    account.fault = all_of(
        refused("HEAD", "404 Not Found", "404"), refused("PUT", "409 Conflict", "BucketAlreadyOwnedByYou")
    )
    assert set(_outcomes(_set_up(clients, "private")).values()) == {"DONE"}


def test_a_strangers_bucket_is_told(account: S3Server, clients: AwsClients) -> None:
    account.fault = all_of(
        refused("HEAD", *DENIED),
        *(refused(f"GET ?{query}", *DENIED) for query in ("acl", *SETTINGS)),
    )
    with pytest.raises(BucketError, match="If the bucket is somebody else's, choose another name"):
        make_plan(clients, _target("private"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredToken", "have expired"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("Other", "failed: Other"),
    ],
)
def test_refused_credentials_are_told(account: S3Server, clients: AwsClients, code: str, words: str) -> None:
    account.fault = all_of(
        refused("HEAD", "403 Forbidden", code), refused("GET ?ownershipControls", "400 Bad Request", code)
    )
    with pytest.raises(BucketError, match=words):
        make_plan(clients, _target("private"))


def test_what_the_server_does_not_know_is_skipped(account: S3Server, clients: AwsClients) -> None:
    unknown = ("501 Not Implemented", "NotImplemented")
    account.fault = all_of(
        *(refused(f"PUT ?{query}", *unknown) for query in ("ownershipControls", "publicAccessBlock"))
    )
    outcomes = _outcomes(_set_up(clients, "public"))
    assert (outcomes["PutBucketOwnershipControls"], outcomes["PutPublicAccessBlock"]) == ("UNSUPPORTED",) * 2
    assert outcomes["PutBucketPolicy"] == "DONE"
    account.fault = all_of(*(refused(f"GET ?{query}", *unknown) for query in SETTINGS))
    plan = make_plan(clients, _target("public"))
    assert plan.steps == ()
    assert plan.unsupported == (
        "GetBucketOwnershipControls",
        "GetPublicAccessBlock",
        "GetBucketPolicy",
        "GetBucketCors",
        "GetBucketLifecycleConfiguration",
        "GetBucketEncryption",
    )


def test_grants_go_before_acls_are_disabled(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).put_bucket_acl(Bucket=BUCKET, ACL="public-read")
    steps = make_plan(clients, _target("private")).steps
    assert [step.operation for step in steps][:2] == ["PutBucketAcl", "PutBucketOwnershipControls"]
    assert set(_outcomes(_set_up(clients, "private")).values()) == {"DONE"}
    grants = clients.s3.get_bucket_acl(Bucket=BUCKET)["Grants"]
    assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]


def test_a_bucket_elsewhere_names_its_region(account: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.url)
    monkeypatch.setattr("app.ops.bucket.clients.AwsClients.is_compatible_server", False)
    AwsClients(endpoint_url=account.url).s3.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    with pytest.raises(BucketError, match="is in eu-west-1: set AWS_REGION=eu-west-1"):
        make_plan(AwsClients(endpoint_url=account.url), _target("private"))


def test_no_answer_is_told(account: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ops.bucket.clients._TOTAL_TRIES", 1)
    with pytest.raises(BucketError, match="HeadBucket got no answer"):
        make_plan(AwsClients(endpoint_url="http://127.0.0.1:9"), _target("private"))


def test_no_credentials_are_told(account: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BucketError, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        make_plan(AwsClients(endpoint_url=account.url), _target("private"))


def test_an_unknown_profile_is_told(account: S3Server) -> None:
    with pytest.raises(BucketError, match="nobody"):
        AwsClients(profile="nobody")
