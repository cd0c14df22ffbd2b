"""Requests that AWS refuses and moto permits, refused in front of moto."""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from botocore.exceptions import ClientError

from tests.s3server import Fault, S3Server

Environ = dict[str, Any]
Answer = Callable[..., Any]

_BLOCKED = {"BlockPublicAcls": True, "BlockPublicPolicy": True}


class AwsRestrictions:
    """A fault that refuses public policies under Block Public Access, and ACLs if they are disabled.

    A bucket without such settings in moto has those of a new bucket at AWS: everything blocked, ACLs
    disabled. `blocked_above` is Block Public Access of the account. The first `late` policies are refused
    although they are allowed, as happens shortly after the block is lifted.
    """

    def __init__(self, server: S3Server, *, blocked_above: bool = False, late: int = 0) -> None:
        self._client = server.client()
        self._blocked_above = blocked_above
        self.late = late

    def __call__(self, environ: Environ, start_response: Answer) -> Iterable[bytes] | None:
        """Return an error response, or None to let moto respond."""
        if environ["REQUEST_METHOD"] != "PUT":
            return None
        bucket, _, key = environ["PATH_INFO"].strip("/").partition("/")
        if environ["QUERY_STRING"] == "policy" and self._refuses_policy(bucket, body_of(environ)):
            return answer_error(environ, start_response, "403 Forbidden", "AccessDenied")
        if "HTTP_X_AMZ_ACL" in environ and key and self._ownership(bucket) == "BucketOwnerEnforced":
            return answer_error(environ, start_response, "400 Bad Request", "AccessControlListNotSupported")
        return None

    def _refuses_policy(self, bucket: str, body: bytes) -> bool:
        if not any(statement["Principal"] == "*" for statement in json.loads(body)["Statement"]):
            return False
        if self._blocked_above or self._block(bucket)["BlockPublicPolicy"]:
            return True
        self.late -= 1
        return self.late >= 0

    def _block(self, bucket: str) -> Any:
        try:
            return self._client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        except ClientError:
            return _BLOCKED

    def _ownership(self, bucket: str) -> str:
        try:
            answer = self._client.get_bucket_ownership_controls(Bucket=bucket)
        except ClientError:
            return "BucketOwnerEnforced"
        return str(answer["OwnershipControls"]["Rules"][0]["ObjectOwnership"])


def refused(operation: str, status: str, code: str, times: int = 10**9) -> Fault:
    """Return a fault: this error for the next `times` calls of the operation.

    Name the operation as `PUT ?policy`, as `PUT` for the bucket itself, or as `CreateUser` for IAM.
    """
    left = [times]

    def answer(environ: Environ, start_response: Answer) -> Iterable[bytes] | None:
        if left[0] == 0 or operation != _operation(environ):
            return None
        left[0] -= 1
        return answer_error(environ, start_response, status, code)

    return answer


def body_of(environ: Environ) -> bytes:
    """Return the request's body, and keep it readable for the next handler."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def answer_error(environ: Environ, start_response: Answer, status: str, code: str) -> Iterable[bytes]:
    """Respond with S3's error, or with IAM's, which has another root element."""
    body_of(environ)
    error = f"<Error><Code>{code}</Code><Message>as played</Message></Error>"
    if environ["REQUEST_METHOD"] == "POST":
        error = f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else error.encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _operation(environ: Environ) -> str:
    if environ["REQUEST_METHOD"] == "POST":
        return str(parse_qs(body_of(environ).decode())["Action"][0])
    query = environ["QUERY_STRING"].partition("=")[0].partition("&")[0]
    return f"{environ['REQUEST_METHOD']} ?{query}" if query else str(environ["REQUEST_METHOD"])
