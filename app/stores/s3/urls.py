"""URLs that browsers can read without credentials: presigned URLs, and the URLs of public objects.

A presigned URL stays the same for a while, so that browsers can cache the image. Its signature is dated to
the start of a time window and is valid for two windows. So the URL is valid for at least one more window
after a client receives it. If a URL is signed with temporary credentials, such as those of a role, it expires
with them, and it changes when they are renewed.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html

Only an anonymous read shows whether an object is public. Neither an accepted ACL nor a policy proves it,
since Block Public Access may override both, for the bucket or for the account. Reading the settings of
Block Public Access would require permissions that the server doesn't otherwise need.
"""

import http.client
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from app.aws.session import POOLS, BadResponse
from app.core.addresses import proxy_for
from app.core.errors import AppError

_PROBE_TIMEOUT_SECONDS = 3.0
_REMEMBERED_SECONDS = 600.0
_MAX_REMEMBERED_FOLDERS = 1_000

_PAUSE_SECONDS = 60.0
"""How many seconds to wait after a failed anonymous request before sending the next one. This machine may
have no route to the public endpoint."""

_MAX_BODY_BYTES = 1024 * 1024

_FAILURES = (BadResponse, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""All exceptions that a request can raise, for example for an invalid host name, or for a response that is
not HTTP."""


def presigned(url: str, credentials: ReadOnlyCredentials, region: str, *, seconds: int, now: float) -> str:
    """Return `url` signed for GET. It is valid for at most `seconds` after `now`, and for at least half
    of that time.

    `now` is a Unix time. The signature is in the query string (AWS signature version 4):
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    window = max(seconds // 2, 1)
    request = AWSRequest(method="GET", url=url)
    start = datetime.fromtimestamp(now // window * window, UTC)
    _SignerAt(start, credentials, region, 2 * window).add_auth(request)
    return str(request.url)


class _SignerAt(S3SigV4QueryAuth):
    """botocore's signer, with a given time instead of the current time."""

    def __init__(self, start: datetime, credentials: ReadOnlyCredentials, region: str, seconds: int) -> None:
        super().__init__(credentials, "s3", region, expires=seconds)
        self._start = start

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._start.strftime("%Y%m%dT%H%M%SZ")
        super()._modify_request_before_signing(request)  # type: ignore[misc]


class PublicAccess:
    """Reads one object of each top-level folder anonymously, and remembers the result for the folder.

    One object per folder suffices because policies usually apply to whole folders.
    """

    def __init__(self, url_of: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._url_of = url_of
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}
        self._paused_until = 0.0

    def is_public(self, key: str) -> bool:
        """Return whether anyone can read the object `key`, which must exist.

        Return False if this is unknown.
        """
        folder = key.partition("/")[0] if "/" in key else ""
        public, until = self._known.get(folder, (False, 0.0))
        now = self._clock()
        if now < until:
            return public
        if now < self._paused_until:
            return False
        try:
            status = fetch_anonymously("HEAD", self._url_of(key), seconds=_PROBE_TIMEOUT_SECONDS).status
        except (NoResponse, AppError):
            status = 0
        is_refusal = 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
        if status != HTTPStatus.OK and not is_refusal:
            self._paused_until = now + _PAUSE_SECONDS
            return False
        # For an object that is encrypted with KMS, the response to an anonymous request is a 400.
        public = status == HTTPStatus.OK
        if len(self._known) >= _MAX_REMEMBERED_FOLDERS:
            self._known.clear()
        self._known[folder] = (public, now + _REMEMBERED_SECONDS)
        return public


@dataclass(frozen=True, slots=True)
class AnonymousResponse:
    """The response to an anonymous request, with at most a mebibyte of its body."""

    status: int
    content_type: str
    body: bytes


class NoResponse(Exception):
    """Raised if the URL's host can't be reached, or if its TLS certificate is not accepted.

    The message contains the URL without its query, which may contain a signature.
    """


def fetch_anonymously(
    method: str, url: str, body: bytes | None = None, *, seconds: float = 5.0
) -> AnonymousResponse:
    """Request `url` without credentials and without following redirects. Raises `NoResponse`.

    Redirects are not followed because browsers can't follow S3's redirects either. `seconds` is the timeout
    for connecting and for each read. Like boto3, this respects `AWS_CA_BUNDLE`, `HTTPS_PROXY` and `NO_PROXY`.
    """
    try:
        # Each request gets a new pool. Requests are rare, and forked processes would share a lasting pool.
        with _connection_pool(url, seconds) as pool:
            response = pool.request(method, url, body=body, redirect=False, preload_content=False)
            try:
                return AnonymousResponse(
                    response.status,
                    response.headers.get("Content-Type", ""),
                    response.read(_MAX_BODY_BYTES, decode_content=True),
                )
            finally:
                response.close()
    except _FAILURES as exc:
        raise NoResponse(f"No response from {url.partition('?')[0]} ({type(exc).__name__}).") from exc


def _connection_pool(url: str, seconds: float) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=seconds, read=seconds),
        "retries": False,
        "ca_certs": os.environ.get("AWS_CA_BUNDLE") or None,
    }
    proxy = proxy_for(url)
    if proxy is None:
        pool = urllib3.PoolManager(**options)
    else:
        pool = urllib3.ProxyManager(proxy, proxy_headers=_proxy_credentials(proxy), **options)
    pool.pool_classes_by_scheme = POOLS
    return pool


def _proxy_credentials(proxy: str) -> dict[str, str]:
    """Return the header that contains the user and the password from the proxy's URL, or an empty dict."""
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=user))
