"""Tests of secrets with a trailing line break, which many shells add, and of unusable secrets."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.pictures import picture
from tests.providers import IMAGE, OPENAI, ModelServer
from tests.s3server import CREDENTIALS, S3Server
from tests.server.running import GUNICORN, ROOT, running

SECRET = "tell-tale-of-a-secret"


@pytest.fixture
def models() -> Iterator[ModelServer]:
    """Start a server that provides an image model."""
    server = ModelServer().start()
    yield server
    server.stop()


def test_a_trailing_line_break_in_a_secret_is_ignored(
    tmp_path: Path, s3: S3Server, bucket: str, models: ModelServer
) -> None:
    models.script = [OPENAI.success(IMAGE)]
    with running(
        tmp_path,
        **{name: f"{value}\n" for name, value in CREDENTIALS.items()},
        AWS_SESSION_TOKEN=f" {SECRET}\r\n",
        AWS_REGION="us-east-1\n",
        AWS_ENDPOINT_URL=f"{s3.url}\n",
        S3_BUCKET=f"{bucket}\n",
        GENERATOR="openai",
        GENERATOR_MODEL=OPENAI.model,
        OPENAI_API_KEY=f"{SECRET}\n",
        OPENAI_BASE_URL=f"{models.url}/v1\n",
        IMAGE_URLS="s3\n",
        WEB_CONCURRENCY="1",
    ) as server:
        upload = {"data": picture(), "headers": {"Content-Type": "image/png"}}
        for path, body in (("images", upload), ("generate-image", {"json": {"prompt": "sea"}})):
            answer = requests.post(f"{server.url}/api/{path}", timeout=60, **body)
            assert answer.ok, server.log
            image = answer.json()
            assert image["image_url"] == f"{s3.url}/{bucket}/{image['key']}"
            assert requests.get(f"{server.url}/api/images/{image['key']}", timeout=60).ok
        log = server.log
    assert models.received[-1].headers["authorization"] == f"Bearer {SECRET}"
    assert {headers["x-amz-security-token"] for _, _, headers in s3.requests} == {SECRET}
    assert SECRET not in log


REFUSED = [
    ({"OPENAI_API_KEY": f"{SECRET}\n{SECRET}"}, "OPENAI_API_KEY"),
    ({"AWS_SESSION_TOKEN": f"{SECRET}\x01"}, "AWS_SESSION_TOKEN"),
    ({"AWS_SECRET_ACCESS_KEY": f"{SECRET}\r{SECRET}"}, "AWS_SECRET_ACCESS_KEY"),
    ({"HTTPS_PROXY": f"http://user:{SECRET}\n@proxy"}, "HTTPS_PROXY"),
    ({"API_KEYS": f"web={SECRET}\x01{SECRET}"}, "API_KEYS"),
    ({"RATELIMIT_STORAGE_URI": f"redis://:{SECRET}/x@counters:6379"}, "RATELIMIT_STORAGE_URI"),
]


@pytest.mark.parametrize(("settings", "name"), REFUSED)
def test_a_secret_that_can_not_be_sent_is_reported_at_startup(
    tmp_path: Path, settings: dict[str, str], name: str
) -> None:
    places = {n: f"{tmp_path}/{n}" for n in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    environ = {**os.environ, **places, "ENV_FILE": os.devnull, "PORT": "0", **settings}
    result = subprocess.run(
        GUNICORN, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert SECRET not in result.stderr + result.stdout
