"""The server's IAM user and its key in `.env`."""

from pathlib import Path
from typing import Any

import pytest

from app.config.env_file import read_settings
from app.ops.bucket import user as server_key
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.ops.bucket.user import Provision, ServerUser, provide_user
from tests.aws_manners import all_of, refused
from tests.s3server import S3Server

NAME = "s3-image-server"
DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}


@pytest.fixture
def iam(account: S3Server) -> Any:
    """A client for looking into the empty account."""
    return account.look("iam")


@pytest.fixture
def user(account: S3Server) -> ServerUser:
    """A user that is not made yet."""
    return ServerUser(AwsClients(endpoint_url=account.url), NAME)


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A file without keys."""
    path = tmp_path / ".env"
    path.write_text("S3_BUCKET=cats\nAWS_SESSION_TOKEN=stale\n", encoding="utf-8")
    return path


def _provide(user: ServerUser, env: Path, *, replace: bool = False) -> Provision:
    return provide_user(user, "the-policy", DOCUMENT, env, replace=replace)


def _key_ids(iam: Any) -> list[str]:
    return [key["AccessKeyId"] for key in iam.list_access_keys(UserName=NAME)["AccessKeyMetadata"]]


def test_a_user_with_a_policy_and_a_key(iam: Any, user: ServerUser, env: Path) -> None:
    done = _provide(user, env)
    assert done.created
    assert done.key is not None
    assert read_settings(env) == {"S3_BUCKET": "cats", **done.key.settings}
    assert _key_ids(iam) == [done.key.key_id]
    assert iam.get_user_policy(UserName=NAME, PolicyName="the-policy")["PolicyDocument"] == DOCUMENT
    assert done.key.secret not in repr(done)


def test_again_changes_nothing(iam: Any, user: ServerUser, env: Path) -> None:
    _provide(user, env)
    before = env.read_bytes()
    assert _provide(user, env) == Provision(created=False, key=None)
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
def test_keys_of_others_stay_and_nothing_is_made(iam: Any, user: ServerUser, env: Path, line: str) -> None:
    env.write_text(line, encoding="utf-8")
    with pytest.raises(BucketError, match="--replace-keys"):
        _provide(user, env)
    assert env.read_text(encoding="utf-8") == line
    assert iam.list_users()["Users"] == []


def test_keys_of_others_are_replaced_where_told(user: ServerUser, env: Path) -> None:
    env.write_text("AWS_ACCESS_KEY_ID=AKIAOTHER\nAWS_SECRET_ACCESS_KEY=x\n", encoding="utf-8")
    done = _provide(user, env, replace=True)
    assert done.key is not None
    assert read_settings(env) == done.key.settings


def test_a_third_key_is_refused_with_what_to_do(user: ServerUser, env: Path) -> None:
    _provide(user, env)
    _provide(user, env, replace=True)
    with pytest.raises(BucketError, match=f"aws iam delete-access-key --user-name {NAME}"):
        _provide(user, env, replace=True)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_key_that_can_not_be_written_down_is_deleted(
    iam: Any, user: ServerUser, env: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr(server_key, "write_settings", fail)
    with pytest.raises((BucketError, KeyboardInterrupt)) as caught:
        _provide(user, env)
    assert _key_ids(iam) == []
    assert isinstance(caught.value, KeyboardInterrupt) or "the new key was deleted again" in str(caught.value)


def test_a_directory_that_takes_no_file(iam: Any, user: ServerUser, tmp_path: Path) -> None:
    with pytest.raises(BucketError, match="No such file or directory"):
        _provide(user, tmp_path / "missing" / ".env")
    assert _key_ids(iam) == []


def test_a_key_that_can_be_neither_written_nor_deleted_is_named(
    account: S3Server, iam: Any, user: ServerUser, tmp_path: Path
) -> None:
    account.fault = refused("DeleteAccessKey", "403 Forbidden", "AccessDenied")
    with pytest.raises(BucketError, match="needs iam:DeleteAccessKey") as caught:
        _provide(user, tmp_path / "missing" / ".env")
    assert caught.value.message.endswith(f"--access-key-id {_key_ids(iam)[0]}")


@pytest.mark.parametrize("operation", ["CreateUser", "PutUserPolicy", "CreateAccessKey"])
def test_a_denied_call_names_the_action(
    account: S3Server, user: ServerUser, env: Path, operation: str
) -> None:
    before = env.read_bytes()
    account.fault = all_of(refused(operation, "403 Forbidden", "AccessDenied"))
    with pytest.raises(BucketError, match=f"AWS denied {operation}, which needs iam:{operation}"):
        _provide(user, env)
    assert env.read_bytes() == before


def test_denied_listing_of_keys_is_told(account: S3Server, user: ServerUser, env: Path) -> None:
    _provide(user, env)
    account.fault = refused("ListAccessKeys", "403 Forbidden", "AccessDenied")
    with pytest.raises(BucketError, match="iam:ListAccessKeys"):
        _provide(user, env)
