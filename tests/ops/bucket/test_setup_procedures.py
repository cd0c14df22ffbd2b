"""Both procedures of `docs/buckets.md`, from an empty account to an image that a browser shows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import moto.settings
import pytest
import requests
from botocore.exceptions import ClientError
from dotenv import dotenv_values
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.aws_restrictions import AwsRestrictions
from tests.conftest import json_of
from tests.pictures import noise
from tests.s3server import S3Server

BUCKET = "newgate-ai-images-2025"
ANYTHING = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'

Launch = Callable[[dict[str, str]], Flask]


@pytest.fixture
def launch(config: Config) -> Iterator[Launch]:
    """Return a function that starts the application with the given settings, as `make run` does."""
    started: list[Flask] = []

    def start(settings: dict[str, str]) -> Flask:
        read = Config.from_env(settings)
        started.append(
            create_app(replace(read, local_store_dir=config.local_store_dir, cache_dir=config.cache_dir))
        )
        return started[-1]

    yield start
    for flask in started:
        components_of(flask).cache.close()


def _flask_bucket(app: Flask, *arguments: str) -> str:
    result = app.test_cli_runner().invoke(args=["bucket", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def _upload(client: FlaskClient, image: bytes) -> dict[str, Any]:
    response = client.post("/api/images", data=image, content_type="image/png")
    assert response.status_code == 201, response.get_data(as_text=True)
    return json_of(response)


def _anonymously(url: str) -> requests.Response:
    with requests.get(url, timeout=60) as response:
        return response


@pytest.fixture
def admin(account: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put an administrator's key in the environment, and let moto enforce IAM."""
    iam = account.client("iam")
    iam.create_user(UserName="admin")
    iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=ANYTHING)
    key = iam.create_access_key(UserName="admin")["AccessKey"]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        yield


def test_a_public_bucket_serves_images_to_everyone(account: S3Server, launch: Launch) -> None:
    account.fault = AwsRestrictions(account)
    endpoint = {"AWS_ENDPOINT_URL_S3": account.url}
    printed = _flask_bucket(launch(endpoint), "setup", "--mode", "public", "--bucket", BUCKET, "--yes")
    settings = dict(line.split("=", 1) for line in printed.partition("for .env:\n")[2].splitlines())
    assert settings == endpoint | {
        "S3_BUCKET": BUCKET,
        "AWS_REGION": "us-east-1",
        "S3_ACL": "none",
        "IMAGE_URLS": "s3",
    }
    image = noise(1)
    answer = _upload(launch(settings).test_client(), image)
    assert answer["image_url"] == f"{account.url}/{BUCKET}/{answer['key']}"
    shown = _anonymously(answer["image_url"])
    assert (shown.status_code, shown.headers["Content-Type"], shown.content) == (200, "image/png", image)


@pytest.mark.usefixtures("admin")
def test_a_private_bucket_serves_images_only_through_the_server(
    account: S3Server, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.fault = AwsRestrictions(account)
    env = tmp_path / ".env"
    for_env = ("--env-file", str(env))
    app = launch({"AWS_ENDPOINT_URL_S3": account.url})
    _flask_bucket(app, "setup", "--mode", "private", "--bucket", BUCKET, "--yes", "--write-env", *for_env)
    settings = {name: value or "" for name, value in dotenv_values(env).items()}
    _flask_bucket(launch(settings), "create-user", *for_env)
    for name, value in dotenv_values(env).items():
        monkeypatch.setenv(name, value or "")

    image = noise(2)
    app = launch(settings)
    answer = _upload(app.test_client(), image)
    assert answer["image_url"] == f"http://localhost/api/images/{answer['key']}"
    components_of(app).cache.clear()  # so that the image is read from the bucket
    browser = app.test_client()
    browser.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    with browser.get(answer["image_url"]) as shown:
        assert (shown.status_code, shown.mimetype, shown.data) == (200, "image/png", image)
    assert browser.get("/api/images/images/no/such.png").status_code == 404
    _assert_user_may_do_nothing_else(account, dotenv_values(env))

    with monkeypatch.context() as patch:  # moto can't enforce IAM on unsigned requests
        patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
        assert _anonymously(f"{account.url}/{BUCKET}/{answer['key']}").status_code == 403


def _assert_user_may_do_nothing_else(account: S3Server, env: dict[str, str | None]) -> None:
    client = account.client(
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"]
    )
    for forbidden in (client.delete_bucket_policy, client.get_bucket_policy, client.delete_bucket):
        with pytest.raises(ClientError, match="AccessDenied"):
            forbidden(Bucket=BUCKET)
