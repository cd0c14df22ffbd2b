"""The responses of one application with and without the fast path."""

from typing import NamedTuple

from flask import Flask
from werkzeug.test import Client, TestResponse

from app.core.request_context import RequestIds
from app.delivery.fast_path import FastPath
from tests.conftest import json_of
from tests.pictures import noise

DATA = noise(1)


def fast_path_of(flask: Flask) -> FastPath:
    """Return the fast path of an application."""
    assert isinstance(flask.wsgi_app, RequestIds)  # request IDs always differ
    fast_path = flask.wsgi_app._application
    assert isinstance(fast_path, FastPath)
    return fast_path


class Response(NamedTuple):
    """A response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Comparison:
    """One application with and without the fast path, and two of its images, which are in the cache.

    `paths` are those of an image with a key made from its bytes, and of one with a chosen name.
    """

    def __init__(self, flask: Flask) -> None:
        fast_path = fast_path_of(flask)
        self.flask = flask
        upload = {"data": DATA, "content_type": "image/png"}
        client = flask.test_client()
        self.paths = [
            f"/api/images/{json_of(client.post('/api/images', **upload, query_string=query))['key']}"
            for query in ({}, {"name": "me.png"})
        ]
        self._clients = Client(fast_path), Client(fast_path._application)
        with self._clients[0].get(self.paths[0]) as answer:
            self._validators = {"ETAG": answer.headers["ETag"], "MODIFIED": answer.headers["Last-Modified"]}

    def open(self, method: str, path: str, headers: dict[str, str]) -> Response:
        """Return the response, which must be the same with and without the fast path.

        In the values of `headers`, `ETAG` and `MODIFIED` stand for the validators of the first image.
        """
        for word, validator in self._validators.items():
            headers = {name: value.replace(word, validator) for name, value in headers.items()}
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        fast, flask = (
            _facts(client.open(path, method=method, environ_overrides=environ)) for client in self._clients
        )
        assert fast == flask, (method, path, headers)
        return fast


def _facts(response: TestResponse) -> Response:
    with response:
        headers = {name.lower(): value for name, value in response.headers}
        assert len(headers) == len(response.headers)
        return Response(response.status_code, headers, response.data)
