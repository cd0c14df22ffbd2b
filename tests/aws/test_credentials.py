"""Failing credential providers: responses are 502, logs and commands give advice, and no secret is shown."""

import getpass
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError
from botocore.utils import ContainerMetadataFetcher
from flask import Flask

from app import create_app
from app.aws import credentials as aws_credentials
from app.aws.session import new_session
from app.components import components_of
from app.config.settings import Config
from app.core.errors import GeneratorRefused, StoreRefused
from app.generators.base import GenerationRequest
from app.generators.bedrock import BedrockGenerator
from app.stores.s3 import client as s3_client_module
from app.stores.s3.store import S3Store
from tests.aws_restrictions import body_of
from tests.conftest import json_of
from tests.credential_sources import KEYS, ROLE, SOURCES, TELLTALE, process_output, remove_all
from tests.pictures import picture
from tests.s3server import S3Server, error

ADVICE = "give the machine a role|Correct the AWS_"
ALL = pytest.mark.parametrize("name", SOURCES)


@pytest.fixture
def break_source(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return a function that disables all credential providers except the named one."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    monkeypatch.setattr(ContainerMetadataFetcher, "RETRY_ATTEMPTS", 1)
    remove_all(monkeypatch, home)
    return lambda name: SOURCES[name](monkeypatch, home)


@pytest.fixture
def s3_app(s3_config: Config, break_source: Callable[[str], None]) -> Iterator[Flask]:
    """Return an application whose credential provider each test breaks."""
    flask = create_app(replace(s3_config, image_urls="presigned", cache_max_bytes=10**7))
    yield flask
    components_of(flask).cache.close()


@ALL
def test_requests_without_credentials_get_502(
    s3_app: Flask, break_source: Callable[[str], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    break_source(name)
    client = s3_app.test_client()
    for answer in (
        client.get("/api/images/a.png"),
        client.get("/api/images"),
        client.post("/api/images", data=picture(), content_type="image/png"),
        client.delete("/api/images/a.png"),
    ):
        assert (answer.status_code, json_of(answer)["code"]) == (502, "store_refused"), caplog.text
    assert re.search(ADVICE, caplog.text)
    assert TELLTALE not in caplog.text
    assert client.get("/readyz").status_code == 503


@ALL
def test_no_url_is_signed_without_credentials(
    s3: S3Server, break_source: Callable[[str], None], name: str
) -> None:
    break_source(name)
    with pytest.raises(StoreRefused, match=ADVICE) as caught:
        S3Store("cats", region="us-east-1", endpoint_url=s3.url).signed_url("a.png")
    assert TELLTALE not in str(caught.value)
    assert s3.requests == []


@ALL
def test_no_model_is_called_without_credentials(break_source: Callable[[str], None], name: str) -> None:
    break_source(name)
    generator = BedrockGenerator("stability.x", region="us-west-2", timeout=20)
    for ask in (
        lambda: generator.generate(GenerationRequest("sea", 64, 64, seed=1)),
        generator.describe_model,
    ):
        with pytest.raises(GeneratorRefused) as caught:
            ask()
        assert "rejected the server's credentials" in caught.value.message
        assert "AWS_ACCESS_KEY_ID" in caught.value.detail
        assert TELLTALE not in caught.value.detail


@ALL
def test_setup_and_doctor_report_the_failure_in_one_line(
    s3_app: Flask, break_source: Callable[[str], None], name: str
) -> None:
    break_source(name)
    runner = s3_app.test_cli_runner()
    setup = runner.invoke(args=["bucket", "setup", "--mode", "private", "--yes"])
    assert (setup.exit_code, setup.output[:7]) == (1, "Error: "), setup.exception
    assert re.search(ADVICE, setup.output)
    assert setup.output.count("\n") == 1
    doctor = runner.invoke(args=["bucket", "doctor", "--json"])
    assert doctor.exit_code == 1, doctor.exception
    problems = [row for row in json.loads(doctor.stdout) if row["status"] == "problem"]
    assert [row["check"] for row in problems] == ["credentials"]
    assert re.search(ADVICE, problems[0]["fix"])
    assert TELLTALE not in setup.output + doctor.output


def test_white_space_around_credentials_is_removed(
    s3: S3Server,
    bucket: str,
    break_source: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    name = "process-with-spaces"
    printed = process_output(
        AccessKeyId=" AKIAEXAMPLE\n", SecretAccessKey="not-a-secret\r\n", SessionToken="token\n"
    )
    source = SOURCES["process-without-json"]
    monkeypatch.setitem(SOURCES, name, source)
    break_source(name)
    (tmp_path / "home" / "process.py").write_text(f"print({printed!r})", encoding="utf-8")
    store = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)
    store.put("a.png", b"bytes", content_type="image/png")
    headers = s3.requests[-1][2]
    assert headers["x-amz-security-token"] == "token"
    assert "Credential=AKIAEXAMPLE/" in headers["authorization"]
    assert "X-Amz-Security-Token=token&" in store.signed_url("a.png")


def test_the_token_file_of_a_role_may_end_in_a_line_break(
    s3: S3Server, break_source: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    received = []

    def is_sts(environ: dict[str, Any]) -> bool:
        received.append(body_of(environ))
        return True

    (tmp_path / "token").write_text("token\n", encoding="utf-8")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    s3.fault = error("403 Forbidden", "InvalidIdentityToken", is_sts)
    with pytest.raises(StoreRefused):
        S3Store("cats", region="us-east-1", endpoint_url=s3.url).head("a.png")
    assert b"WebIdentityToken=token&" in received[0] + b"&"


def test_the_token_file_of_a_container_may_end_in_a_line_break(
    s3: S3Server,
    bucket: str,
    break_source: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    received = []

    def give(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes] | None:
        if environ["PATH_INFO"] != "/role":
            return None
        received.append(environ["HTTP_AUTHORIZATION"])
        keys = {"AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": TELLTALE, "Token": "token"}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}).encode()]

    break_source("none")
    (tmp_path / "token").write_text("token\r\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{s3.url}/role")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    s3.fault = give
    store = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)
    assert store.put("a.png", b"bytes", content_type="image/png").created
    assert set(received) == {"token"}


def test_a_credential_process_is_killed_after_its_timeout(
    s3: S3Server, break_source: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(aws_credentials, "PROCESS_TIMEOUT_SECONDS", 0.2)
    break_source("process-without-json")
    (tmp_path / "home" / "process.py").write_text("import time\ntime.sleep(600)", encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(StoreRefused, match="did not end within"):
        S3Store("cats", region="us-east-1", endpoint_url=s3.url).head("a.png")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidIdentityToken", "NoSuchKey", "NotFound"])
def test_a_denied_role_does_not_make_images_missing(
    s3: S3Server,
    break_source: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: str,
) -> None:
    """The 403 for the role must not be mistaken for S3's 403 for a missing object."""
    home = tmp_path / "home"
    (home / "config").write_text(
        f"[profile images]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\n{KEYS}",
        encoding="utf-8",
    )
    monkeypatch.setenv("AWS_PROFILE", "images")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    s3.fault = error("403 Forbidden", code, lambda environ: environ["REQUEST_METHOD"] == "POST")
    store = S3Store("cats", region="us-east-1", endpoint_url=s3.url)
    for call in (store.get, store.head):
        with pytest.raises(StoreRefused, match="AssumeRole"):
            call("a.png")


@pytest.mark.parametrize("interactive", [True, False])
def test_an_mfa_code_is_prompted_for_only_if_interactive(
    s3: S3Server, break_source: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, interactive: bool
) -> None:
    received: list[str] = []

    def answer(prompt: str) -> str:
        received.append(prompt)
        return "123456"

    monkeypatch.setattr(getpass, "getpass", answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    break_source("mfa")
    credentials = new_session(interactive=interactive).get_credentials()
    assert credentials is not None
    if interactive:
        assert credentials.get_frozen_credentials().token
    else:
        with pytest.raises(CredentialRetrievalError, match="requires an MFA code"):
            credentials.get_frozen_credentials()
    assert len(received) == interactive


def test_credentials_that_appear_later_are_found(
    s3: S3Server,
    bucket: str,
    break_source: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A client that was created without credentials never finds any, so it is not kept."""
    monkeypatch.setattr(s3_client_module, "CREDENTIALS_PAUSE_SECONDS", 0.0)
    store = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)
    model = BedrockGenerator("stability.x", region="us-west-2", timeout=20)
    for ask in (store.list, model._client):
        with pytest.raises((StoreRefused, NoCredentialsError)):
            ask()
    (tmp_path / "home" / "credentials").write_text(f"[default]\n{KEYS}", encoding="utf-8")
    assert store.list().objects == ()
    assert model._client()


def test_missing_credentials_are_not_looked_up_on_every_request(
    s3: S3Server, break_source: Callable[[str], None], tmp_path: Path
) -> None:
    """A request for the role of an instance fails only after several seconds."""
    store = S3Store("cats", region="us-east-1", endpoint_url=s3.url)
    with pytest.raises(StoreRefused):
        store.list()
    (tmp_path / "home" / "credentials").write_text(f"[default]\n{KEYS}", encoding="utf-8")
    with pytest.raises(StoreRefused, match="Unable to locate credentials"):
        store.list()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("bucket create-user", 1),
        ("bucket cost", 1),
        ("bucket iam-policy", 0),
        ("images export {0}/out", 1),
        ("images import {0}/in", 1),
        ("cache warm", 1),
    ],
)
def test_every_command_reports_the_failure_in_one_line(
    s3_app: Flask, break_source: Callable[[str], None], tmp_path: Path, command: str, status: int
) -> None:
    """`iam-policy` needs no credentials, but the other commands do."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture())
    (tmp_path / "out").mkdir()
    break_source("process-missing")
    arguments = command.format(tmp_path).split()
    more = ["--env-file", str(tmp_path / ".env")] if "create-user" in command else []
    result = s3_app.test_cli_runner().invoke(args=[*arguments, *more])
    assert (result.exit_code, isinstance(result.exception, SystemExit | type(None))) == (status, True), (
        result.output
    )
    assert (re.search(ADVICE, result.output) is not None) is bool(status)
