"""Test that a server whose credential source fails starts, returns 502 and logs what to do."""

import os
from pathlib import Path

import pytest
import requests

from tests.s3server import S3Server
from tests.server.running import running

ROLE = "arn:aws:iam::123456789012:role/images"
SOURCES = [
    {"AWS_PROFILE": "no-such-profile"},
    {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/token", "AWS_ROLE_ARN": ROLE},
]


@pytest.mark.parametrize("source", SOURCES, ids=["profile", "token"])
def test_the_server_answers_502_and_logs_what_to_set(
    tmp_path: Path, s3: S3Server, source: dict[str, str]
) -> None:
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    settings = {"S3_BUCKET": "cats", "AWS_ENDPOINT_URL_S3": s3.url, "WEB_CONCURRENCY": "1"}
    with running(tmp_path, **files, **settings, **source, AWS_EC2_METADATA_DISABLED="true") as server:
        answer = requests.get(f"{server.url}/api/images/a.png", timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (502, "store_refused")
        log = server.log
    assert (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role" in log
    )
    assert next(iter(source.values())) in log
    assert "Traceback" not in log
