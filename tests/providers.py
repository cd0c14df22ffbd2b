"""A server with the protocols of Bedrock and OpenAI over real HTTP, which misbehaves as scripted.

Providers bill each attempt: `ModelServer.attempts` counts what would have been paid for.
"""

import base64
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from werkzeug.serving import make_server

from app.config.settings import Config
from tests.pictures import picture

Behaviour = Callable[["ModelServer", dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""Returns the response to a WSGI request; called with the server, the environment and `start_response`."""

API_KEY = "sk-test-0123456789abcdef"
AWS_SECRET = "wJalrXUtnFEMI-never-in-a-log"
IMAGE = picture("PNG", (96, 64))


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived: `uri` undecoded, header names in lower case."""

    method: str
    uri: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class ModelServer:
    """Listens on a free port of 127.0.0.1.

    Each request gets the next behaviour in `script`, and the last one once the others are used up.
    """

    def __init__(self) -> None:
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.released = threading.Event()
        self.received: list[Received] = []
        self.script: list[Behaviour] = []

    @property
    def url(self) -> str:
        """The server's base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def attempts(self) -> int:
        """How many images were requested."""
        return sum(request.method == "POST" for request in self.received)

    def start(self) -> "ModelServer":
        """Start serving in a thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving."""
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """End requests that hang, and clear the script and the recorded requests."""
        self.released.set()
        self.released = threading.Event()
        self.received = []
        self.script = []

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            name[5:].replace("_", "-").lower(): str(v) for name, v in environ.items() if name[:5] == "HTTP_"
        }
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.received.append(Received(environ["REQUEST_METHOD"], environ["RAW_URI"], headers, body))
        behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return behaviour(self, environ, start_response)


def answer(status: str, body: bytes | dict[str, Any] | list[Any], **headers: str) -> Behaviour:
    """Return a complete response; `Retry_After="3"` is the header Retry-After."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}

    def behave(_: ModelServer, __: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [*named.items(), ("Content-Length", str(len(data)))])
        return [data]

    return behave


def stall(server: ModelServer, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Send nothing until the server is reset."""
    server.released.wait(60)
    raise ConnectionResetError


def trickle_body(
    server: ModelServer, _: dict[str, Any], start_response: Callable[..., Any]
) -> Iterator[bytes]:
    """Send a body one byte at a time."""
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "1000000")])
    while not server.released.wait(0.05):
        yield b" "


def trickle_head(server: ModelServer, environ: dict[str, Any], _: Callable[..., Any]) -> list[bytes]:
    """Send a header one byte at a time."""
    environ["werkzeug.socket"].sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not server.released.wait(0.05):
        environ["werkzeug.socket"].sendall(b"a")
    raise ConnectionResetError


def reset(_: ModelServer, environ: dict[str, Any], __: Callable[..., Any]) -> list[bytes]:
    """Reset the connection: a close without lingering sends a TCP reset."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


def chunked(body: dict[str, Any]) -> Behaviour:
    """Return a complete response in two chunks (RFC 9112, 7.1)."""
    data = json.dumps(body).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:5], data[5:]))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    def behave(_: ModelServer, environ: dict[str, Any], __: Callable[..., Any]) -> Iterable[bytes]:
        environ["werkzeug.socket"].sendall(head + chunks + b"0\r\n\r\n")
        raise ConnectionResetError

    return behave


def broken_off(_: ModelServer, __: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Send a body shorter than its Content-Length."""
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "1000")])
    return [b"{"]


@dataclass(frozen=True)
class Protocol:
    """The responses of one provider."""

    name: str
    model: str
    drawn: Callable[[Any], dict[str, Any]]
    """Returns the body of a 200 for an image in base64."""
    empty: dict[str, Any]
    refused: Behaviour
    throttled: Behaviour
    outage: Behaviour
    gone: Behaviour
    bad_key: Behaviour
    no_quota: Behaviour

    def success(self, image: bytes = IMAGE) -> Behaviour:
        """Return a response with an image."""
        return answer("200 OK", self.drawn(base64.b64encode(image).decode()))

    def config(self, config: Config, server: ModelServer, timeout: int = 30) -> Config:
        """Return settings for a generator that calls `server`; Bedrock's endpoint is in the environment."""
        return replace(
            config,
            generator=self.name,
            generator_model=self.model,
            generator_timeout=timeout,
            openai_api_key=API_KEY,
            openai_base_url=f"{server.url}/v1",
        )


def _aws_error(status: str, code: str, message: str, **headers: str) -> Behaviour:
    return answer(
        status, {"message": message}, x_amzn_ErrorType=f"{code}:http://internal.example/", **headers
    )


def _openai_error(status: str, code: str | None, message: str, kind: str, **headers: str) -> Behaviour:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return answer(status, body, **headers)


BEDROCK = Protocol(
    name="bedrock",
    model="stability.stable-image-core-v1:1",
    drawn=lambda text: {"seeds": [2130420379], "finish_reasons": [None], "images": [text]},
    empty={"seeds": [], "finish_reasons": [None], "images": []},
    refused=answer("200 OK", {"finish_reasons": ["Filter reason: prompt"]}),
    throttled=_aws_error("429 Too Many Requests", "ThrottlingException", "Too many requests, please wait."),
    outage=_aws_error("503 Service Unavailable", "ServiceUnavailableException", "Try again later."),
    gone=_aws_error(
        "404 Not Found", "ResourceNotFoundException", "This model version has reached the end of its life."
    ),
    bad_key=_aws_error(
        "403 Forbidden",
        "InvalidSignatureException",
        "The request signature we calculated does not match.\n\nThe Canonical String was 'session-token'",
    ),
    no_quota=_aws_error(
        "400 Bad Request", "ServiceQuotaExceededException", "Your account has used up its quota."
    ),
)

OPENAI = Protocol(
    name="openai",
    model="gpt-image-2.6-flare",
    drawn=lambda text: {"created": 1795337104, "data": [{"b64_json": text}]},
    empty={"created": 1795337104, "data": []},
    refused=_openai_error(
        "400 Bad Request",
        "moderation_blocked",
        "Your request was rejected by the safety system.\nsafety_violations=[violence].",
        "image_generation_user_error",
    ),
    throttled=_openai_error(
        "429 Too Many Requests", "rate_limit_exceeded", "Rate limit reached for images.", "requests"
    ),
    outage=answer("503 Service Unavailable", b"<html>upstream is away</html>", Content_Type="text/html"),
    gone=_openai_error(
        "404 Not Found", "model_not_found", "The model has been shut down.", "invalid_request_error"
    ),
    bad_key=_openai_error(
        "401 Unauthorized", "invalid_api_key", f"Incorrect API key: {API_KEY}.", "invalid_request_error"
    ),
    no_quota=_openai_error(
        "429 Too Many Requests", "insufficient_quota", "You exceeded your quota.", "insufficient_quota"
    ),
)
