"""The check for leaks in error responses finds them."""

from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.config.settings import Config
from tests.leaks import find_leaks, inspected_responses

BODY = '{"success": false, "message": "%s", "code": "x"}'


@pytest.mark.parametrize(
    "message",
    [
        "No such file: {config.local_store_dir}/objects/a.png",
        "{config.cache_dir}",
        "bucket-of-mine does not exist",
        "The key sk-secret is wrong",
        'Traceback (most recent call last): File "/x.py"',
        "[Errno 28] No space left",
        "<botocore.awsrequest.AWSResponse object at 0x7f>",
        "PIL.UnidentifiedImageError",
    ],
)
def test_leaks_are_found(config: Config, message: str) -> None:
    settings = replace(config, s3_bucket="bucket-of-mine", openai_api_key="sk-secret")
    assert find_leaks(settings, BODY % message.format(config=settings))


def test_an_ordinary_error_leaks_nothing(config: Config) -> None:
    assert find_leaks(config, BODY % "There is no image with this key.") == []


@pytest.mark.crashes
def test_every_error_response_is_inspected(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/crash", view_func=lambda: str(1 / 0))
    with inspected_responses() as errors:
        client.get("/healthz")
        assert (errors.leaks, errors.crashes) == ([], [])
        client.get("/crash")
    assert len(errors.crashes) == 1
