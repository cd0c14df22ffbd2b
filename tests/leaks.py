"""Look for internals in error responses: paths, buckets, credentials, tracebacks. All tests do it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, request_finished

from app.components import EXTENSION
from app.config.settings import Config
from tests.s3server import CREDENTIALS
from tests.server.running import ROOT

_PYTHON = re.compile(
    r'Traceback|File "|\.py\b|site-packages|<class |object at 0x|Errno|botocore|boto3|PIL\.|\bsqlite'
)
"""Text that shows what the server is made of."""


def find_leaks(config: Config, response: str) -> list[str]:
    """Return what `response`, the headers and body of an error, shows of a server with this `config`."""
    paths = [config.local_store_dir, config.cache_dir, config.state_dir, ROOT]
    secrets = [*map(str, paths), config.s3_bucket, config.openai_api_key, *CREDENTIALS.values()]
    return [secret for secret in secrets if secret and secret in response] + _PYTHON.findall(response)


class ErrorResponses:
    """The error responses of one test: the internals that they leaked, and the texts of those with a 500."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.crashes: list[str] = []

    def inspect(self, flask: Flask, response: Response, **_: Any) -> None:
        """Examine `response` if it is an error: a receiver of Flask's signal `request_finished`."""
        components = flask.extensions.get(EXTENSION)  # the tests' S3 server is a Flask application too
        if response.status_code < 400 or components is None:
            return
        text = f"{response.headers}\n{response.get_data(as_text=True)}"
        self.leaks += find_leaks(components.config, text)
        if response.status_code == 500:
            self.crashes.append(text)


@contextmanager
def inspected_responses() -> Iterator[ErrorResponses]:
    """Inspect the responses of all applications in this process while the block runs."""
    errors = ErrorResponses()
    with request_finished.connected_to(errors.inspect):
        yield errors
