"""What is answered to what is no HTTP request, in the shape of all our errors."""

import json
import socket
from collections.abc import Callable
from http import HTTPStatus

from gunicorn import util

from app.requestid import HEADER, current_request_id


class MalformedRequest:
    """Stands for a request that could not be read, and holds nothing of what was sent.

    It has what gunicorn takes from requests; `count` is told status and code of the answer.
    """

    method = uri = path = query = ""
    body = None
    version = (1, 1)

    def __init__(self, count: Callable[[str, str], None]) -> None:
        self.count = count


def code_of(status: int) -> str:
    """The `code` in the body of the answer with this status."""
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def refusal(status: int) -> str:
    """The body of the answer with this status."""
    text = "Something went wrong on our side." if status == 500 else "The server can't read this request."
    return json.dumps({"success": False, "message": text, "code": code_of(status)})


def write_refusal(sock: socket.socket, status: int, reason: str, message: str) -> None:
    """In place of `gunicorn.util.write_error`, whose `message` may hold what was sent."""
    body = refusal(status)
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\n{HEADER}: {current_request_id()}\r\n"
    util.write_nonblock(sock, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))
