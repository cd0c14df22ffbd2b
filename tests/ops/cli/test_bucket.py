"""`flask bucket setup`, `flask bucket iam-policy` and `flask bucket create-user`."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import Result
from flask import Flask

from app import create_app
from app.components import components_of
from app.config.env_file import read_settings
from app.config.settings import Config
from tests.aws_restrictions import refused
from tests.compatible import Ceph, answering, s3rver
from tests.s3server import S3Server, first_of, play_aws

SETTINGS = {"S3_BUCKET": "cats", "AWS_REGION": "us-east-1", "S3_ACL": "none"}
BLOCK_ALL = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


@pytest.fixture
def app(config: Config, account: S3Server) -> Iterator[Flask]:
    """An application without a bucket."""
    flask = create_app(replace(config, aws_endpoint_url_s3=account.url))
    yield flask
    components_of(flask).cache.close()


def _run(app: Flask, *arguments: str, answer: str = "") -> Result:
    return app.test_cli_runner().invoke(args=["bucket", *arguments], input=answer)


def _set_up(app: Flask, *arguments: str, answer: str = "") -> Result:
    return _run(app, "setup", "--bucket", "cats", *arguments, answer=answer)


def _buckets(account: S3Server) -> list[str]:
    return [bucket["Name"] for bucket in account.client().list_buckets()["Buckets"]]


def test_setup_prints_the_plan_the_results_and_the_settings(app: Flask, account: S3Server) -> None:
    result = _set_up(app, "--mode", "private", "--region", "eu-west-1", answer="y\n")
    assert result.output.splitlines() == [
        "To make cats a private bucket in eu-west-1:",
        "  Create the bucket cats in eu-west-1 (CreateBucket)",
        "  Disable ACLs: the bucket owner owns every object (PutBucketOwnershipControls)",
        "  Block all public access to the bucket (PutPublicAccessBlock)",
        "  Discard incomplete uploads after 7 days (PutBucketLifecycleConfiguration)",
        "  Encrypt objects with S3's own keys (PutBucketEncryption)",
        "Make these changes? [y/N]: y",
        "done: Create the bucket cats in eu-west-1",
        "done: Disable ACLs: the bucket owner owns every object",
        "done: Block all public access to the bucket",
        "done: Discard incomplete uploads after 7 days",
        "done: Encrypt objects with S3's own keys",
        "Settings for .env:",
        "S3_BUCKET=cats",
        "AWS_REGION=eu-west-1",
        f"AWS_ENDPOINT_URL_S3={account.url}",
        "S3_ACL=none",
        "IMAGE_URLS=server",
    ]
    assert account.client().get_bucket_location(Bucket="cats")["LocationConstraint"] == "eu-west-1"
    block = account.client().get_public_access_block(Bucket="cats")["PublicAccessBlockConfiguration"]
    assert block == BLOCK_ALL


def test_setup_changes_nothing_without_confirmation(app: Flask, account: S3Server) -> None:
    assert _set_up(app, "--mode", "public", answer="n\n").exit_code == 1
    assert _buckets(account) == []


def test_a_second_setup_has_nothing_to_do(app: Flask, account: S3Server) -> None:
    arguments = ("--mode", "public", "--cors", "https://a.example", "--expire", "generated/=30", "--yes")
    assert _set_up(app, *arguments).exit_code == 0
    account.reset()
    result = _set_up(app, *arguments)
    assert (result.exit_code, result.output.splitlines()[0]) == (
        0,
        "Nothing to do: cats already has these settings.",
    )
    assert {method for method, _, _ in account.requests} == {"HEAD", "GET"}
    assert (
        _set_up(app, "--mode", "public", "--dry-run").output
        == "Nothing to do: cats already has these settings.\n"
    )


def test_dry_run_prints_the_calls_without_making_them(app: Flask, account: S3Server) -> None:
    printed = _set_up(app, "--mode", "public", "--dry-run").output
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "S3ImageServerPublicRead",
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": "arn:aws:s3:::cats/*",
            }
        ],
    }
    assert 'CreateBucket {\n  "Bucket": "cats"\n}' in printed
    assert f"PutBucketPolicy {json.dumps({'Bucket': 'cats', 'Policy': policy}, indent=2)}" in printed
    assert {method for method, _, _ in account.requests} == {"HEAD"}


def test_json_contains_the_same_steps_for_dry_run_and_setup(app: Flask, account: S3Server) -> None:
    planned = json.loads(_set_up(app, "--mode", "public", "--dry-run", "--json").stdout)
    done = json.loads(_set_up(app, "--mode", "public", "--yes", "--json").stdout)
    assert [step["outcome"] for step in done["steps"]] == ["done"] * 6
    for step in done["steps"]:
        assert (step.pop("outcome"), step.pop("message")) == ("done", "")
    assert planned == done
    assert planned["steps"][0] == {
        "title": "Create the bucket cats in us-east-1",
        "operation": "CreateBucket",
        "parameters": {"Bucket": "cats"},
    }
    assert planned["settings"] == SETTINGS | {"AWS_ENDPOINT_URL_S3": account.url, "IMAGE_URLS": "s3"}


def test_a_bucket_with_objects_becomes_public_only_with_open_existing(app: Flask, account: S3Server) -> None:
    _set_up(app, "--mode", "private", "--yes")
    account.client().put_object(Bucket="cats", Key="a.png", Body=b"x")
    account.reset()
    result = _set_up(app, "--mode", "public", "--yes")
    assert result.exit_code == 1
    assert "To let everyone read them, use --open-existing" in result.output
    assert {method for method, _, _ in account.requests} == {"HEAD", "GET"}
    assert _set_up(app, "--mode", "public", "--yes", "--open-existing").exit_code == 0
    assert _set_up(app, "--mode", "public", "--yes").exit_code == 0, "it is public now"


def test_a_bucket_that_can_not_be_listed_becomes_public_only_with_open_existing(
    app: Flask, account: S3Server
) -> None:
    _set_up(app, "--mode", "private", "--yes")
    denied = ("403 Forbidden", "AccessDenied")
    account.fault = first_of(refused("GET ?list-type", *denied), refused("GET ?max-keys", *denied))
    result = _set_up(app, "--mode", "public", "--yes")
    assert result.exit_code == 1
    assert "it can't be listed, which needs s3:ListBucket" in result.output
    assert "--open-existing" in result.output
    block = account.client().get_public_access_block(Bucket="cats")["PublicAccessBlockConfiguration"]
    assert block == BLOCK_ALL
    assert _set_up(app, "--mode", "public", "--yes", "--open-existing").exit_code == 0


def test_a_failed_step_exits_with_status_1_and_writes_no_settings(
    app: Flask, account: S3Server, tmp_path: Path
) -> None:
    account.fault = refused("PUT ?lifecycle", "403 Forbidden", "AccessDenied")
    env = tmp_path / ".env"
    result = _set_up(app, "--mode", "private", "--yes", "--write-env", "--env-file", str(env))
    assert result.exit_code == 1
    assert (
        "failed: Discard incomplete uploads after 7 days\n"
        "  AWS denied PutBucketLifecycleConfiguration, which needs s3:PutLifecycleConfiguration. "
        "AWS says: as played\n"
        "done: Encrypt objects with S3's own keys\n"
    ) in result.output
    assert "S3_ACL" not in result.output
    assert not env.exists()


def test_unsupported_settings_are_listed(app: Flask, account: S3Server) -> None:
    _set_up(app, "--mode", "private", "--yes")
    account.fault = refused("GET ?encryption", "501 Not Implemented", "NotImplemented")
    printed = _set_up(app, "--mode", "private", "--yes").output
    assert printed.startswith("not supported by this server: GetBucketEncryption\nNothing to do")


def test_write_env_adds_the_settings_to_the_file(app: Flask, account: S3Server, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("PORT=9000\nS3_ACL=auto\n", encoding="utf-8")
    result = _set_up(app, "--mode", "private", "--yes", "--write-env", "--env-file", str(env))
    assert f"Written to {env}:" in result.output
    assert read_settings(env) == SETTINGS | {
        "PORT": "9000",
        "AWS_ENDPOINT_URL_S3": account.url,
        "IMAGE_URLS": "server",
    }
    nowhere = tmp_path / "missing" / ".env"
    failed = _set_up(app, "--mode", "private", "--yes", "--write-env", "--env-file", str(nowhere))
    assert (failed.exit_code, "could not be written" in failed.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mode", "open"), "'open' is not one of"),
        ((), "Missing option '--mode'"),
        (("--mode", "public", "--cors", "example.org"), "is not * or an origin such as"),
        (("--mode", "public", "--cors", "https://example.org/app"), "is not * or an origin such as"),
        (("--mode", "public", "--cors", "https://*.example.*"), "is not * or an origin such as"),
        (("--mode", "public", "--expire", "=30"), "is not a prefix and a number of days"),
        (("--mode", "public", "--expire", "tmp/=0"), "is not a prefix and a number of days"),
        (("--mode", "public", "--expire", "tmp/"), "is not a prefix and a number of days"),
    ],
)
def test_wrong_options_are_usage_errors(
    app: Flask, account: S3Server, arguments: tuple[str, ...], words: str
) -> None:
    result = _set_up(app, *arguments, "--yes")
    assert (result.exit_code, words in result.output) == (2, True)
    assert account.requests == []


def test_setup_needs_a_bucket_name(app: Flask) -> None:
    result = _run(app, "setup", "--mode", "private")
    assert (result.exit_code, "Use --bucket NAME, or set S3_BUCKET" in result.output) == (2, True)


def test_iam_policy_prints_only_json(app: Flask) -> None:
    policy: dict[str, Any] = json.loads(
        _run(app, "iam-policy", "--bucket", "cats", "--mode", "private", "--region", "cn-north-1").stdout
    )
    assert [statement["Resource"] for statement in policy["Statement"]] == [
        "arn:aws-cn:s3:::cats/*",
        "arn:aws-cn:s3:::cats",
    ]
    assert "s3:PutObjectAcl" not in policy["Statement"][0]["Action"]


def test_the_policy_for_a_kms_key_uses_the_region_of_the_call(config: Config, account: S3Server) -> None:
    settings: dict[str, Any] = {"s3_sse": "aws:kms", "s3_sse_kms_key_id": "abc"}
    app = create_app(replace(config, aws_endpoint_url_s3=account.url, **settings))
    policy = json.loads(_run(app, "iam-policy", "--bucket", "cats", "--region", "cn-north-1").stdout)
    own = json.loads(_run(app, "iam-policy", "--bucket", "cats").stdout)
    components_of(app).cache.close()
    assert policy["Statement"][2]["Resource"] == "arn:aws-cn:kms:cn-north-1:*:key/abc"
    assert own["Statement"][2]["Resource"] == "arn:aws:kms:us-east-1:*:key/abc"


def test_create_user_prints_the_key_only_with_show(app: Flask, account: S3Server, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    arguments = ("create-user", "--bucket", "cats", "--env-file", str(env))
    result = _run(app, *arguments, "--json")
    assert json.loads(result.stdout) == {
        "user": "s3-image-server",
        "created": True,
        "policy": "s3-image-server-cats",
        "env_file": str(env),
        "new_key": True,
    }
    key = read_settings(env)
    assert not any(value in result.output for value in key.values())
    assert "Unset it before you start the server" in result.stderr
    shown = json.loads(_run(app, *arguments, "--json", "--replace-keys", "--show").stdout)
    assert read_settings(env) == {name: shown[name] for name in key}
    assert account.client("iam").list_users()["Users"][0]["UserName"] == "s3-image-server"


def test_an_error_is_one_line_without_a_traceback(app: Flask, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("AWS_SECRET_ACCESS_KEY=x\n", encoding="utf-8")
    result = _run(app, "create-user", "me", "--bucket", "cats", "--env-file", str(env))
    assert (result.exit_code, result.output) == (
        1,
        f"Error: {env} contains keys that do not belong to me. Use --replace-keys to replace them.\n",
    )


def test_create_user_needs_iam(app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_IAM")
    result = _run(app, "create-user", "--bucket", "cats", "--env-file", str(tmp_path / ".env"))
    assert (result.exit_code, "is not AWS, so it has no IAM users" in result.output) == (1, True)


def test_a_profile_takes_precedence_over_keys_in_the_environment(
    app: Flask, account: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profiles = tmp_path / "credentials"
    profiles.write_text(
        "[admin]\naws_access_key_id = AKIAADMIN\naws_secret_access_key = x\n", encoding="utf-8"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    assert _set_up(app, "--mode", "private", "--yes", "--profile", "admin").exit_code == 0
    assert all("Credential=AKIAADMIN/" in headers["authorization"] for _, _, headers in account.requests)


@pytest.mark.parametrize("mode", ["public", "private"])
def test_settings_are_written_for_a_server_that_lacks_some_settings(
    app: Flask, account: S3Server, tmp_path: Path, mode: str
) -> None:
    account.fault = Ceph()
    env = tmp_path / ".env"
    result = _set_up(app, "--mode", mode, "--yes", "--write-env", "--env-file", str(env))
    assert result.exit_code == 0
    assert (
        "undone, since uploads failed after it: "
        + {
            "public": "Allow a public bucket policy",
            "private": "Block all public access to the bucket",
        }[mode]
        + "\n  The server refused every upload after this step (403 AccessDenied).\n"
    ) in result.output
    assert (
        "not supported by this server: Encrypt objects with S3's own keys\n"
        "  The server responded with 200 and the response to a different request.\n"
    ) in result.output
    urls = {"public": "s3", "private": "server"}[mode]
    assert read_settings(env) == SETTINGS | {"AWS_ENDPOINT_URL_S3": account.url, "IMAGE_URLS": urls}
    again = _set_up(app, "--mode", mode, "--yes")
    assert (again.exit_code, "Nothing to do" in again.output) == (0, True)


def test_on_a_server_without_policies_acls_may_make_objects_public(
    app: Flask, account: S3Server, tmp_path: Path
) -> None:
    account.fault = s3rver
    env = tmp_path / ".env"
    for _ in range(2):
        result = _set_up(app, "--mode", "public", "--yes", "--write-env", "--env-file", str(env))
        assert (result.exit_code, "The server does not support bucket policies." in result.output) == (
            0,
            True,
        )
        assert read_settings(env).items() >= {"S3_ACL": "auto", "IMAGE_URLS": "auto"}.items()
    printed = json.loads(_set_up(app, "--mode", "public", "--yes", "--json").stdout)
    assert printed["settings"].items() >= {"S3_ACL": "auto", "IMAGE_URLS": "auto"}.items()
    assert "The server has no" not in _set_up(app, "--mode", "private", "--yes").output


def test_open_existing_is_not_needed_if_no_step_publishes_objects(app: Flask, account: S3Server) -> None:
    account.make_bucket("cats").put_object(Bucket="cats", Key="a.png", Body=b"x")
    account.fault = s3rver
    assert _set_up(app, "--mode", "public", "--yes").exit_code == 0


def test_dry_run_makes_no_test_upload(app: Flask, account: S3Server) -> None:
    account.fault = ceph = Ceph()
    _set_up(app, "--mode", "private", "--yes")
    ceph.block["BlockPublicAcls"] = True
    account.requests.clear()
    assert _set_up(app, "--mode", "private", "--dry-run").exit_code == 0
    assert {method for method, _, _ in account.requests} == {"HEAD", "GET"}


CLIENTS = "app.ops.bucket.clients.AwsClients.from_config"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("Rules"), "KeyError: 'Rules'"),
        (TypeError("None is not iterable"), "TypeError: None is not iterable"),
        (OSError(5, "Input/output error"), "OSError: Input/output error"),
        (ValueError("Invalid header value b'a-secret'"), "(ValueError)"),
        (RuntimeError("a-secret"), "(RuntimeError)"),
    ],
)
def test_an_unexpected_error_is_one_line_without_secrets(
    app: Flask, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr(CLIENTS, Mock(side_effect=error))
    result = _run(app, "setup", "--mode", "private", "--bucket", "cats")
    assert (result.exit_code, words in result.output) == (1, True)
    assert result.output.startswith("Error: The command stopped because of an unexpected error")
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (("create-user", "--bucket", "cats"), CLIENTS),
        (("iam-policy", "--bucket", "cats"), CLIENTS),
        (("doctor",), CLIENTS),
        (("cost",), "app.services.images.ImageService.list_all"),
    ],
)
def test_no_command_prints_a_traceback(
    app: Flask, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], place: str
) -> None:
    monkeypatch.setattr(place, Mock(side_effect=KeyError("Rules")))
    result = _run(app, *command)
    assert (result.exit_code, "(KeyError: 'Rules')" in result.output) == (1, True)


@pytest.mark.parametrize("body", ["not XML", "<html/>", "<CreateUserResponse/>"])
def test_an_invalid_response_of_iam_is_one_line(
    app: Flask, account: S3Server, tmp_path: Path, body: str
) -> None:
    account.fault = answering(lambda environ: environ["REQUEST_METHOD"] == "POST", body.encode())
    result = _run(app, "create-user", "--bucket", "cats", "--env-file", str(tmp_path / ".env"))
    assert (result.exit_code, result.output[:7], "Traceback" in result.output) == (1, "Error: ", False)


def test_setup_writes_an_endpoint_that_only_boto3_reads(
    config: Config, account: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server may run without the variable in this shell, and without the administrator's profile."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.url)
    app, env = create_app(config), tmp_path / ".env"
    arguments = ("--mode", "private", "--yes", "--write-env", "--env-file", str(env))
    assert _set_up(app, *arguments).exit_code == 0
    components_of(app).cache.close()
    assert read_settings(env)["AWS_ENDPOINT_URL_S3"] == account.url
    assert _buckets(account) == ["cats"]


def test_setup_at_aws_writes_no_endpoint(
    config: Config, account: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_aws(account, monkeypatch)
    app = create_app(config)
    planned = json.loads(
        _set_up(app, "--mode", "private", "--region", "eusc-de-east-1", "--dry-run", "--json").stdout
    )
    components_of(app).cache.close()
    assert "AWS_ENDPOINT_URL_S3" not in planned["settings"]
    assert account.requests[0][2]["host"].endswith("s3.eusc-de-east-1.amazonaws.eu")
