"""The search for what no answer may show finds it."""

from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.config.settings import Config
from tests.telltale import told, watched

ANSWER = '{"success": false, "message": "%s", "code": "x"}'


@pytest.mark.parametrize(
    "shown",
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
def test_it_is_found(config: Config, shown: str) -> None:
    settings = replace(config, s3_bucket="bucket-of-mine", openai_api_key="sk-secret")
    assert told(settings, ANSWER % shown.format(config=settings))


def test_an_ordinary_error_tells_nothing(config: Config) -> None:
    assert told(config, ANSWER % "There is no image under this key.") == []


@pytest.mark.crashes
def test_every_error_is_looked_at(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/crash", view_func=lambda: str(1 / 0))
    with watched() as answers:
        client.get("/healthz")
        assert (answers.told, answers.crashes) == ([], [])
        client.get("/crash")
    assert len(answers.crashes) == 1
