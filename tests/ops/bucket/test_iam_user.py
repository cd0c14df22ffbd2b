"""The server's IAM user is created, and its access key is written to `.env`."""

from pathlib import Path
from typing import Any

import pytest

from app.config.env_file import read_settings
from app.ops.bucket import iam as iam_module
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.ops.bucket.iam import ProvidedUser, provide_user
from tests.aws_restrictions import refused
from tests.s3server import S3Server, first_of

NAME = "s3-image-server"
DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}


@pytest.fixture
def iam(account: S3Server) -> Any:
    """An IAM client for the empty account."""
    return account.client("iam")


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A settings file without keys."""
    path = tmp_path / ".env"
    path.write_text("S3_BUCKET=cats\nAWS_SESSION_TOKEN=stale\n", encoding="utf-8")
    return path


def _provide(clients: AwsClients, env: Path, *, replace: bool = False) -> ProvidedUser:
    return provide_user(clients, NAME, "the-policy", DOCUMENT, env, replace=replace)


def _key_ids(iam: Any) -> list[str]:
    return [key["AccessKeyId"] for key in iam.list_access_keys(UserName=NAME)["AccessKeyMetadata"]]


def test_a_new_user_gets_the_policy_and_a_key_in_the_file(iam: Any, clients: AwsClients, env: Path) -> None:
    user = _provide(clients, env)
    assert user.created
    assert user.key is not None
    assert read_settings(env) == {"S3_BUCKET": "cats", **user.key.settings}
    assert _key_ids(iam) == [user.key.key_id]
    assert iam.get_user_policy(UserName=NAME, PolicyName="the-policy")["PolicyDocument"] == DOCUMENT
    assert user.key.secret not in repr(user)


def test_a_second_run_changes_nothing(iam: Any, clients: AwsClients, env: Path) -> None:
    _provide(clients, env)
    before = env.read_bytes()
    assert _provide(clients, env) == ProvidedUser(created=False, key=None)
    assert env.read_bytes() == before
    assert len(_key_ids(iam)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "AWS_ACCESS_KEY_ID=AKIAOTHER\nAWS_SECRET_ACCESS_KEY=x",
        "AWS_SECRET_ACCESS_KEY=x",
        "AWS_ACCESS_KEY_ID=AKIA",
    ],
)
def test_keys_of_other_users_are_an_error_and_nothing_is_created(
    iam: Any, clients: AwsClients, env: Path, line: str
) -> None:
    env.write_text(line, encoding="utf-8")
    with pytest.raises(BucketError, match="--replace-keys"):
        _provide(clients, env)
    assert env.read_text(encoding="utf-8") == line
    assert iam.list_users()["Users"] == []


def test_keys_of_other_users_are_replaced_with_replace(clients: AwsClients, env: Path) -> None:
    env.write_text("AWS_ACCESS_KEY_ID=AKIAOTHER\nAWS_SECRET_ACCESS_KEY=x\n", encoding="utf-8")
    user = _provide(clients, env, replace=True)
    assert user.key is not None
    assert read_settings(env) == user.key.settings


def test_a_third_key_is_an_error_with_the_commands_to_delete_one(clients: AwsClients, env: Path) -> None:
    _provide(clients, env)
    _provide(clients, env, replace=True)
    with pytest.raises(BucketError, match=f"aws iam delete-access-key --user-name {NAME}"):
        _provide(clients, env, replace=True)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_key_that_can_not_be_saved_is_deleted(
    iam: Any, clients: AwsClients, env: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr(iam_module, "write_settings", fail)
    with pytest.raises((BucketError, KeyboardInterrupt)) as caught:
        _provide(clients, env)
    assert _key_ids(iam) == []
    assert isinstance(caught.value, KeyboardInterrupt) or "the new key was deleted again" in str(caught.value)


def test_a_missing_directory_is_an_error_and_no_key_remains(
    iam: Any, clients: AwsClients, tmp_path: Path
) -> None:
    with pytest.raises(BucketError, match="No such file or directory"):
        _provide(clients, tmp_path / "missing" / ".env")
    assert _key_ids(iam) == []


def test_a_key_that_can_be_neither_saved_nor_deleted_is_named(
    account: S3Server, iam: Any, clients: AwsClients, tmp_path: Path
) -> None:
    account.fault = refused("DeleteAccessKey", "403 Forbidden", "AccessDenied")
    with pytest.raises(BucketError, match="needs iam:DeleteAccessKey") as caught:
        _provide(clients, tmp_path / "missing" / ".env")
    assert caught.value.message.endswith(f"--access-key-id {_key_ids(iam)[0]}")


@pytest.mark.parametrize("operation", ["CreateUser", "PutUserPolicy", "CreateAccessKey"])
def test_a_denied_call_names_the_action(
    account: S3Server, clients: AwsClients, env: Path, operation: str
) -> None:
    before = env.read_bytes()
    account.fault = first_of(refused(operation, "403 Forbidden", "AccessDenied"))
    with pytest.raises(BucketError, match=f"AWS denied {operation}, which needs iam:{operation}"):
        _provide(clients, env)
    assert env.read_bytes() == before


def test_denied_listing_of_keys_names_the_action(account: S3Server, clients: AwsClients, env: Path) -> None:
    _provide(clients, env)
    account.fault = refused("ListAccessKeys", "403 Forbidden", "AccessDenied")
    with pytest.raises(BucketError, match="iam:ListAccessKeys"):
        _provide(clients, env)
