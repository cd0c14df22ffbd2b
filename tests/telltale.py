"""What no answer may show: paths, buckets, credentials, stacks. All answers of all tests are searched."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, request_finished

from app.components import EXTENSION
from app.config.settings import Config
from tests.s3server import CREDENTIALS
from tests.server.running import ROOT

_STACK = re.compile(
    r'Traceback|File "|\.py\b|site-packages|<class |object at 0x|Errno|botocore|boto3|PIL\.|\bsqlite'
)
"""How Python shows itself in a text."""


def told(config: Config, answer: str) -> list[str]:
    """What an error's answer, headers and all, shows of the server with these settings."""
    places = [config.local_store_dir, config.cache_dir, config.state_dir, ROOT]
    secrets = [*map(str, places), config.s3_bucket, config.openai_api_key, *CREDENTIALS.values()]
    return [secret for secret in secrets if secret and secret in answer] + _STACK.findall(answer)


class Answers:
    """The answers of one test: what they told, and how many were a 500."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.crashes: list[str] = []

    def look_at(self, flask: Flask, response: Response, **_: Any) -> None:
        """Search an error's answer."""
        parts = flask.extensions.get(EXTENSION)  # the tests' S3 server is of Flask, too
        if response.status_code < 400 or parts is None:
            return
        text = f"{response.headers}\n{response.get_data(as_text=True)}"
        self.told += told(parts.config, text)
        if response.status_code == 500:
            self.crashes.append(text)


@contextmanager
def watched() -> Iterator[Answers]:
    """Look at every answer of every application in this process while the block runs."""
    answers = Answers()
    with request_finished.connected_to(answers.look_at):
        yield answers
