"""The behaviour of AWS that moto lacks: anonymous requests, checksums, owners, regions, permissions."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

ACCOUNT = "123456789012"
"""The ID of the account that moto simulates."""

_SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
_CONFIGURATION = (
    "publicAccessBlock",
    "ownershipControls",
    "policy",
    "cors",
    "lifecycle",
    "encryption",
    "logging",
    "acl",
)
_FACTS = [("ETag", '"e"'), ("Last-Modified", "Sun, 22 Nov 2026 08:00:00 GMT")]

Body = Iterable[bytes]
Start = Callable[..., Any]


class FakeAws:
    """A fault for `S3Server` that responds like AWS where moto differs.

    `refused` maps calls, as `call_of` names them, to a status line and an error code. `*` stands for all
    signed calls. `public`, `public_keys`, `listable` and `writable` say what anonymous requests can do.
    """

    def __init__(self) -> None:
        self.refused: dict[str, tuple[str, str]] = {}
        self.public = False
        self.public_keys: set[str] = set()
        self.listable = False
        self.writable = False
        self.verifies_checksums = True
        self.conditional = True
        self.stored_instead: tuple[bytes, str] | None = None
        self.owner = ACCOUNT
        self.arn = f"arn:aws:iam::{ACCOUNT}:user/alice"
        self.account_blocks: dict[str, bool] | None = None
        self.region = "us-east-1"
        self.anonymous_type = ""
        self.anonymous_body: bytes | None = None

    def __call__(self, environ: dict[str, Any], start: Start) -> Body | None:
        call = call_of(environ)
        refusal = self.refused.get(call) or self.refused.get("*")
        if "HTTP_AUTHORIZATION" not in environ and call != "sts":
            return self._answer_anonymous(environ, start, call)
        if refusal:
            return _error(environ, start, *refusal, self._headers())
        if call == "HEAD bucket":
            return _answer(start, "200 OK", b"", self._headers())
        return self._answer_signed(environ, start, call)

    def _answer_signed(self, environ: dict[str, Any], start: Start, call: str) -> Body | None:
        if call == "sts":
            return _answer(start, "200 OK", _identity(self.arn))
        if call == "s3control":
            return self._account_block(environ, start)
        if environ.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER", self.owner) != self.owner:
            return _error(environ, start, "403 Forbidden", "AccessDenied")
        if call == "PUT conditional" and not self.conditional:
            environ.pop("HTTP_IF_NONE_MATCH")
        if call == "GET object" and self.stored_instead:
            body, kind = self.stored_instead
            return _answer(start, "200 OK", body, [("Content-Type", kind), *_FACTS])
        if call == "PUT object" and self.verifies_checksums and not _checksums_match(environ):
            return _error(environ, start, "400 Bad Request", "BadDigest")
        return None

    def _headers(self) -> list[tuple[str, str]]:
        return [("x-amz-bucket-region", self.region)] if self.region else []

    def _answer_anonymous(self, environ: dict[str, Any], start: Start, call: str) -> Body | None:
        public = self.public or environ["PATH_INFO"].split("/", 2)[-1] in self.public_keys
        reading = dict.fromkeys(("GET object", "HEAD object"), public)  # s3:GetObject allows both
        allowed = {**reading, "PUT object": self.writable, "GET bucket": self.listable}
        if not allowed.get(call):
            return _error(environ, start, "403 Forbidden", "AccessDenied")
        if self.anonymous_body is not None or self.anonymous_type:
            kind = [("Content-Type", self.anonymous_type or "image/png")]
            return _answer(start, "200 OK", self.anonymous_body or b"", kind)
        environ["HTTP_AUTHORIZATION"] = _SIGNED  # moto requires a signature, whatever the policy says
        return None

    def _account_block(self, environ: dict[str, Any], start: Start) -> Body:
        if self.account_blocks is None:
            return _error(environ, start, "404 Not Found", "NoSuchPublicAccessBlockConfiguration")
        blocks = "".join(f"<{name}>{json.dumps(on)}</{name}>" for name, on in self.account_blocks.items())
        root = "PublicAccessBlockConfiguration"
        return _answer(start, "200 OK", f"<{root}>{blocks}</{root}>".encode())


def call_of(environ: dict[str, Any]) -> str:
    """Return the name of a call: `GET object`, `HEAD bucket`, `GET policy`, `sts`, `s3control` …"""
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path.startswith("/v20180820/"):
        return "s3control"
    if path == "/":
        return "sts"
    if "/doctor/missing-" in path:
        return "GET missing"
    if method == "PUT" and "HTTP_IF_NONE_MATCH" in environ:
        return "PUT conditional"
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    kind = next((name for name in _CONFIGURATION if name in query), "")
    return f"{method} {kind or ('object' if path.strip('/').count('/') else 'bucket')}"


def _checksums_match(environ: dict[str, Any]) -> bool:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    sent = {
        environ.get("HTTP_CONTENT_MD5"): md5,
        environ.get("HTTP_X_AMZ_CHECKSUM_SHA256"): hashlib.sha256(body).digest(),
    }
    return all(given is None or base64.b64decode(given) == right for given, right in sent.items())


def _identity(arn: str) -> bytes:
    fields = f"<Arn>{arn}</Arn><UserId>AIDAEXAMPLE</UserId><Account>{arn.split(':')[4]}</Account>"
    result = f"<GetCallerIdentityResult>{fields}</GetCallerIdentityResult>"
    space = "https://sts.amazonaws.com/doc/2011-06-15/"
    return f'<GetCallerIdentityResponse xmlns="{space}">{result}</GetCallerIdentityResponse>'.encode()


def _error(
    environ: dict[str, Any], start: Start, status: str, code: str, headers: Iterable[tuple[str, str]] = ()
) -> Body:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<Error><Code>{code}</Code><Message>from the fake</Message></Error>".encode()
    if call_of(environ) == "sts":
        body = b"<ErrorResponse>" + body + b"</ErrorResponse>"
    return _answer(start, status, b"" if environ["REQUEST_METHOD"] == "HEAD" else body, headers)


def _answer(start: Start, status: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> Body:
    start(status, [("Content-Length", str(len(body))), *headers])
    return [body]
