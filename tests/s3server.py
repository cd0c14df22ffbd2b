"""An S3 server over HTTP: moto's, with a record of the requests, and with injected faults."""

import functools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Fault = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes] | None]
"""Handles a WSGI request instead of moto, or returns None to let moto handle it."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


class S3Server:
    """Listens on a port of 127.0.0.1, by default a free one, until `stop`."""

    def __init__(self, port: int = 0) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", port, self._serve, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.fault: Fault | None = None
        self.delay = 0.0
        self._silences = threading.Event()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        """The value for `AWS_ENDPOINT_URL_S3`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "S3Server":
        """Start serving."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving, and end all silences."""
        self._silences.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Remove recorded requests and faults, and end all silences."""
        self.requests.clear()
        self.fault = None
        self.delay = 0.0
        self._silences.set()
        self._silences = threading.Event()

    def silence(self, seconds: float = 30.0) -> None:
        """Wait, in a fault, for this long or until `reset`."""
        self._silences.wait(seconds)

    def count(self, method: str, key: str) -> int:
        """Return the number of requests with this method for `key`."""
        return sum(m == method and path.endswith(f"/{key}") for m, path, _ in self.requests)

    def make_bucket(self, name: str) -> Any:
        """Create a bucket. Return a boto3 client, which the caller closes."""
        client = self.client()
        client.create_bucket(Bucket=name)
        return client

    def client(self, service: Any = "s3", **credentials: Any) -> Any:
        """Return a boto3 client of this server. The caller closes it."""
        credentials = credentials or {name.lower(): value for name, value in CREDENTIALS.items()}
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", **credentials)

    def serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Handle the request without faults. For faults that change S3's response."""
        return list(self._moto(environ, start_response))

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            name[5:].replace("_", "-").lower(): str(v) for name, v in environ.items() if name[:5] == "HTTP_"
        }
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], headers))
        if self.delay and environ["REQUEST_METHOD"] == "GET":
            time.sleep(self.delay)
        answer = self.fault(environ, start_response) if self.fault else None
        return self._moto(environ, start_response) if answer is None else answer


def play_aws(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Route requests to AWS's hosts to `server`, as a proxy, over plain HTTP."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    plain = functools.partialmethod(boto3.session.Session.client, use_ssl=False)
    monkeypatch.setattr(boto3.session.Session, "client", plain)


def refusal(status: str, code: str, method: str, times: int = 10**9, **more: Any) -> Fault:
    """Return a fault: S3's XML error for the next `times` requests with `method`."""
    return error(status, code, lambda environ: environ["REQUEST_METHOD"] == method, times=times, **more)


def error(
    status: str,
    code: str,
    when: Callable[[dict[str, Any]], bool],
    *,
    times: int = 10**9,
    message: str = "as played",
    elements: str = "",
    headers: tuple[tuple[str, str], ...] = (),
) -> Fault:
    """Return a fault: S3's error for the next `times` requests for which `when` returns True."""
    left = [times]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if left[0] == 0 or not when(environ):
            return None
        left[0] -= 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<Error><Code>{code}</Code><Message>{message}</Message>{elements}</Error>".encode()
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else body
        length = ("Content-Length", str(len(body)))
        start_response(status, [("Content-Type", "application/xml"), length, *headers])
        return [body]

    return answer


def lost(s3: S3Server, *, times: int = 1, status: str = "500 Internal Server Error") -> Fault:
    """Return a fault: handle the next `times` puts, but respond as if they had failed."""
    left = [times]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if left[0] == 0 or environ["REQUEST_METHOD"] != "PUT":
            return None
        left[0] -= 1
        s3.serve(environ, lambda *args: None)
        body = b"<Error><Code>InternalError</Code><Message>as played</Message></Error>"
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def first_of(*faults: Fault) -> Fault:
    """Return a fault: the response of the first of these faults that has one."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        answers = (fault(environ, start_response) for fault in faults)
        return next((found for found in answers if found is not None), None)

    return answer
