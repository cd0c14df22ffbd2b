"""Faults that respond as real servers compatible with S3 do, in front of moto. Recorded by running them."""

from collections.abc import Callable, Iterable
from typing import Any

from tests.aws_restrictions import answer_error, body_of
from tests.s3server import Fault

Environ = dict[str, Any]
Start = Callable[..., Any]

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

LISTING = b"<ListBucketResult><Name>cats</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
"""The response to a request whose subresource the server ignores."""


class Ceph:
    """A fault that responds as Ceph RGW 16.2 does.

    It has neither ownership controls nor encryption, and under `BlockPublicAcls` it denies every put of an
    object. With `full` the user's quota is used up.
    """

    def __init__(self, *, full: bool = False, **block: bool) -> None:
        self.full = full
        self.block = dict.fromkeys(BLOCKS, False) | block

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes] | None:
        """Return a response, or None to let moto respond."""
        method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
        if query in ("ownershipControls", "encryption"):
            if method == "GET":
                return answer_200(environ, start, LISTING)
            return answer_error(environ, start, "400 Bad Request", "InvalidArgument")
        if query == "publicAccessBlock":
            return self._answer_block(environ, start)
        if puts_object(environ) and self.block["BlockPublicAcls"]:
            return answer_error(environ, start, "403 Forbidden", "AccessDenied")
        if puts_object(environ) and self.full:
            return answer_error(environ, start, "403 Forbidden", "QuotaExceeded")
        return None

    def _answer_block(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            on = "".join(f"<{name}>{str(on).lower()}</{name}>" for name, on in self.block.items())
            root = "BlockPublicAccessBlockConfiguration"
            return answer_200(environ, start, f"<{root}>{on}</{root}>".encode())
        body = body_of(environ).decode()
        self.block = {name: f"<{name}>true<" in body for name in BLOCKS}
        return answer_200(environ, start, b"")


def s3rver(environ: Environ, start: Start) -> Iterable[bytes] | None:
    """A fault that responds as s3rver 3.7 does, whose only bucket setting is CORS."""
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    if query == "ownershipControls":
        if method == "GET":
            return answer_200(environ, start, LISTING)
        return answer_error(environ, start, "409 Conflict", "BucketAlreadyExists")
    if query == "policy" and method == "GET":
        return answer_error(environ, start, "405 Method Not Allowed", "MethodNotAllowed")
    if query in ("acl", "publicAccessBlock", "policy", "lifecycle", "encryption"):
        return answer_error(environ, start, "501 Not Implemented", "NotImplemented")
    return None


def swift(environ: Environ, start: Start) -> Iterable[bytes] | None:
    """A fault that responds as the s3api of Swift 2.30 does: deleting a setting deletes the bucket."""
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    if query in ("policy", "cors"):
        return answer_error(environ, start, "501 Not Implemented", "NotImplemented")
    if query in ("ownershipControls", "publicAccessBlock", "lifecycle", "encryption", "logging"):
        if method == "GET":
            return answer_200(environ, start, LISTING)
        if method == "PUT":
            return answer_error(environ, start, "400 Bad Request", "MalformedXML")
        environ["QUERY_STRING"] = ""
    return None


def answering(when: Callable[[Environ], bool], body: bytes = b"") -> Fault:
    """Return a fault: 200 with `body` for requests for which `when` returns True."""

    def answer(environ: Environ, start: Start) -> Iterable[bytes] | None:
        return answer_200(environ, start, body) if when(environ) else None

    return answer


def asks(call: str) -> Callable[[Environ], bool]:
    """Return a predicate: whether a request is a call such as `PUT ?policy`."""
    return lambda environ: f"{environ['REQUEST_METHOD']} ?{environ['QUERY_STRING']}" == call


def puts_object(environ: Environ) -> bool:
    """Return whether a request is a PutObject."""
    return environ["REQUEST_METHOD"] == "PUT" and "/" in environ["PATH_INFO"].strip("/")


def answer_200(environ: Environ, start: Start, body: bytes) -> Iterable[bytes]:
    """Respond with 200 and this body."""
    body_of(environ)
    start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
