"""Apply a plan under the rules of AWS, which moto does not enforce by itself: retries, refusals, errors."""

from pathlib import Path

import pytest

from app.ops.bucket import apply as apply_module
from app.ops.bucket.apply import StepResult, StepStatus, apply_steps
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.ops.bucket.plan import Plan, make_plan
from app.ops.bucket.state import Mode, Target
from tests.aws_restrictions import AwsRestrictions, refused
from tests.s3server import S3Server, first_of

BUCKET = "cats"
CONFLICT = ("409 Conflict", "OperationAborted")
DENIED = ("403 Forbidden", "AccessDenied")
BLOCK = "PUT ?publicAccessBlock"
SETTINGS = ("ownershipControls", "publicAccessBlock", "policy", "cors", "lifecycle", "encryption")


def _target(mode: Mode) -> Target:
    return Target(BUCKET, "us-east-1", mode, cors=("https://app.example",))


def _set_up(clients: AwsClients, mode: Mode) -> list[StepResult]:
    return list(apply_steps(clients, make_plan(clients, _target(mode)).steps))


def _statuses(results: list[StepResult]) -> dict[str, str]:
    return {result.step.operation: result.status.name for result in results}


def _request_count(account: S3Server, method: str) -> int:
    return sum(found == method for found, _, _ in account.requests)


@pytest.mark.parametrize("mode", ["public", "private"])
def test_every_step_succeeds_on_a_new_bucket_and_nothing_is_left_to_do(
    account: S3Server, clients: AwsClients, mode: Mode
) -> None:
    account.fault = AwsRestrictions(account)
    results = _set_up(clients, mode)
    assert {result.status for result in results} == {StepStatus.DONE}
    assert make_plan(clients, _target(mode)) == Plan((), publishes=False, unsupported=())


def test_the_mode_can_be_changed_to_public_and_back(account: S3Server, clients: AwsClients) -> None:
    account.fault = AwsRestrictions(account)
    _set_up(clients, "private")
    assert _statuses(_set_up(clients, "public")) == {
        "PutPublicAccessBlock": "DONE",
        "PutBucketPolicy": "DONE",
    }
    assert _statuses(_set_up(clients, "private")) == {
        "DeleteBucketPolicy": "DONE",
        "PutPublicAccessBlock": "DONE",
    }


def test_a_policy_that_is_denied_just_after_the_block_was_lifted_is_retried(
    account: S3Server, clients: AwsClients
) -> None:
    account.fault = AwsRestrictions(account, late=2)
    assert _statuses(_set_up(clients, "public"))["PutBucketPolicy"] == "DONE"


def test_a_policy_denied_by_the_block_of_the_account_is_explained(
    account: S3Server, clients: AwsClients
) -> None:
    account.fault = AwsRestrictions(account, blocked_above=True)
    results = _set_up(clients, "public")
    assert _statuses(results)["PutBucketPolicy"] == "FAILED"
    (message,) = (result.message for result in results if result.message)
    assert message.startswith("AWS denied PutBucketPolicy, which needs s3:PutBucketPolicy. AWS says:")
    assert "aws s3control get-public-access-block --account-id" in message
    assert _statuses(results)["PutBucketCors"] == "DONE"


def test_a_denied_policy_is_not_retried_if_no_block_was_lifted(
    account: S3Server, clients: AwsClients
) -> None:
    _set_up(clients, "public")
    clients.s3.delete_bucket_policy(Bucket=BUCKET)
    plan = make_plan(clients, _target("public"))
    account.reset()
    account.fault = refused("PUT ?policy", *DENIED)
    assert _statuses(list(apply_steps(clients, plan.steps))) == {"PutBucketPolicy": "FAILED"}
    assert _request_count(account, "PUT") == 1


OPERATIONS = ["PUT", "PUT ?ownershipControls", BLOCK, "PUT ?policy", "PUT ?lifecycle"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_conflict_is_retried(account: S3Server, clients: AwsClients, operation: str) -> None:
    account.fault = refused(operation, *CONFLICT, times=2)
    assert set(_statuses(_set_up(clients, "public")).values()) == {"DONE"}


def test_a_conflict_that_does_not_end_fails_the_step(account: S3Server, clients: AwsClients) -> None:
    account.fault = refused("PUT", *CONFLICT)
    results = _set_up(clients, "private")
    assert results[0].message.endswith("Try again in a few minutes")
    assert _request_count(account, "PUT") == len(apply_module.RETRY_DELAYS_SECONDS) + 1
    assert {result.status for result in results[1:]} == {StepStatus.NOT_TRIED}


def test_a_new_bucket_that_is_not_visible_everywhere_is_retried(
    account: S3Server, clients: AwsClients
) -> None:
    account.fault = refused("PUT ?publicAccessBlock", "404 Not Found", "NoSuchBucket", times=3)
    assert _statuses(_set_up(clients, "private"))["PutPublicAccessBlock"] == "DONE"


def test_an_existing_bucket_that_disappears_is_not_retried(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET)
    plan = make_plan(clients, _target("private"))
    account.reset()
    account.fault = refused("PUT ?publicAccessBlock", "404 Not Found", "NoSuchBucket")
    assert _statuses(list(apply_steps(clients, plan.steps)))["PutPublicAccessBlock"] == "FAILED"


@pytest.mark.parametrize(
    ("operation", "mode", "action", "statuses"),
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
def test_a_denied_call_names_the_action_and_the_other_steps_are_tried(
    account: S3Server, clients: AwsClients, operation: str, mode: Mode, action: str, statuses: str
) -> None:
    account.fault = refused(operation, *DENIED)
    results = _set_up(clients, mode)
    assert list(_statuses(results).values()) == statuses.split()
    assert f"needs {action}. AWS says: as played" in next(r.message for r in results if r.message)


def test_denied_reads_name_all_missing_actions(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET)
    account.fault = first_of(
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
def test_a_bucket_that_can_not_be_created_says_why(
    account: S3Server, clients: AwsClients, status: str, code: str, words: str
) -> None:
    account.fault = refused("PUT", status, code)
    results = _set_up(clients, "private")
    assert results[0].status is StepStatus.FAILED
    assert words in results[0].message


def test_creating_a_bucket_that_we_own_already_is_a_success(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET)
    account.fault = first_of(
        refused("HEAD", "404 Not Found", "404"), refused("PUT", "409 Conflict", "BucketAlreadyOwnedByYou")
    )
    assert set(_statuses(_set_up(clients, "private")).values()) == {"DONE"}


def test_a_bucket_of_someone_else_is_an_error_that_says_so(account: S3Server, clients: AwsClients) -> None:
    account.fault = first_of(
        refused("HEAD", *DENIED),
        *(refused(f"GET ?{query}", *DENIED) for query in ("acl", *SETTINGS)),
    )
    with pytest.raises(BucketError, match="If the bucket belongs to someone else, choose a different name"):
        make_plan(clients, _target("private"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredToken", "have expired"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("Other", "failed: Other"),
    ],
)
def test_refused_credentials_are_an_error_that_says_so(
    account: S3Server, clients: AwsClients, code: str, words: str
) -> None:
    account.fault = first_of(
        refused("HEAD", "403 Forbidden", code), refused("GET ?ownershipControls", "400 Bad Request", code)
    )
    with pytest.raises(BucketError, match=words):
        make_plan(clients, _target("private"))


def test_settings_that_the_server_does_not_know_are_skipped(account: S3Server, clients: AwsClients) -> None:
    unknown = ("501 Not Implemented", "NotImplemented")
    account.fault = first_of(
        *(refused(f"PUT ?{query}", *unknown) for query in ("ownershipControls", "publicAccessBlock"))
    )
    statuses = _statuses(_set_up(clients, "public"))
    assert (statuses["PutBucketOwnershipControls"], statuses["PutPublicAccessBlock"]) == ("UNSUPPORTED",) * 2
    assert statuses["PutBucketPolicy"] == "DONE"
    account.fault = first_of(*(refused(f"GET ?{query}", *unknown) for query in SETTINGS))
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


def test_grants_are_removed_before_acls_are_disabled(account: S3Server, clients: AwsClients) -> None:
    account.make_bucket(BUCKET).put_bucket_acl(Bucket=BUCKET, ACL="public-read")
    steps = make_plan(clients, _target("private")).steps
    assert [step.operation for step in steps][:2] == ["PutBucketAcl", "PutBucketOwnershipControls"]
    assert set(_statuses(_set_up(clients, "private")).values()) == {"DONE"}
    grants = clients.s3.get_bucket_acl(Bucket=BUCKET)["Grants"]
    assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]


def test_a_bucket_in_another_region_names_the_region(
    account: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.url)
    monkeypatch.setattr("app.ops.bucket.clients.AwsClients.is_compatible_server", False)
    AwsClients(endpoint_url=account.url).s3.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    with pytest.raises(BucketError, match="is in eu-west-1: set AWS_REGION=eu-west-1"):
        make_plan(AwsClients(endpoint_url=account.url), _target("private"))


def test_no_response_is_an_error(account: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ops.bucket.clients._MAX_ATTEMPTS", 1)
    with pytest.raises(BucketError, match="HeadBucket got no response"):
        make_plan(AwsClients(endpoint_url="http://127.0.0.1:9"), _target("private"))


def test_missing_credentials_are_an_error_that_names_the_settings(
    account: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BucketError, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        make_plan(AwsClients(endpoint_url=account.url), _target("private"))


def test_an_unknown_profile_is_an_error(account: S3Server) -> None:
    with pytest.raises(BucketError, match="nobody"):
        AwsClients(profile="nobody")
