"""A client that reads each response to the end, so that tests need not close it."""

from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse


class BufferedClient(FlaskClient):
    """A test client that reads and closes the body of each response."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Send a request and return the whole response."""
        kwargs["buffered"] = True
        return super().open(*args, **kwargs)


def buffered_client(flask: Flask) -> FlaskClient:
    """Return a client of the application that reads each response to the end."""
    return BufferedClient(flask, flask.response_class, use_cookies=False)
