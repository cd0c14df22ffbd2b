"""Requests as a visitor's browser makes them: without credentials.

Presigned URLs that stay the same for a while, so that browsers can cache what they show.

A URL is signed as of the beginning of a window of time and is good for two windows: whoever gets it has at
least one of them left. What temporary credentials have signed, those of a role too, ends with them, and once
they are renewed the URL is another one.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html

Whether browsers can read objects at S3 itself: found out by reading one as a browser would.

Neither an ACL that was accepted nor a policy tells: Block Public Access may overrule both, on the bucket or
on the account, and reading those settings needs permissions that the server can do without.
"""

import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from app.aws.session import POOLS, BadAnswer
from app.core.addresses import proxy_for
from app.core.errors import AppError


def presigned(url: str, credentials: ReadOnlyCredentials, region: str, *, seconds: int, now: float) -> str:
    """`url` signed for GET, good until at most `seconds` after `now` (epoch seconds), at least half of that.

    Signature version 4 in the query string:
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    window = max(seconds // 2, 1)
    request = AWSRequest(method="GET", url=url)
    start = datetime.fromtimestamp(now // window * window, UTC)
    _SignerAt(start, credentials, region, 2 * window).add_auth(request)
    return str(request.url)


class _SignerAt(S3SigV4QueryAuth):
    """botocore's signer takes the time from the clock; this one takes it from its maker."""

    def __init__(self, start: datetime, credentials: ReadOnlyCredentials, region: str, seconds: int) -> None:
        super().__init__(credentials, "s3", region, expires=seconds)
        self._start = start

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._start.strftime("%Y%m%dT%H%M%SZ")
        super()._modify_request_before_signing(request)  # type: ignore[misc]


_ASK_SECONDS = 3.0
_REMEMBER_SECONDS = 600.0
_PAUSE_SECONDS = 60.0
"""After an anonymous request that got no answer: perhaps the server has no way to the public endpoint."""

_REMEMBERED = 1_000


class PublicAccess:
    """Asks for one object of each top folder, which policies usually go by, and remembers the answer."""

    def __init__(self, url_of: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._url_of = url_of
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}
        self._paused_until = 0.0

    def is_public(self, key: str) -> bool:
        """Whether anybody can read the object `key`, which exists. False where that can't be found out."""
        folder = key.partition("/")[0] if "/" in key else ""
        public, until = self._known.get(folder, (False, 0.0))
        now = self._clock()
        if now < until:
            return public
        if now < self._paused_until:
            return False
        try:
            public = _answers_everybody(self._url_of(key))
        except (NoResponse, AppError):
            self._paused_until = now + _PAUSE_SECONDS
            return False
        self._remember(folder, public, now)
        return public

    def _remember(self, folder: str, public: bool, now: float) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[folder] = (public, now + _REMEMBER_SECONDS)


def _answers_everybody(url: str) -> bool:
    """Raises `NoAnswer` where there is no clear answer."""
    status = fetch_anonymously("HEAD", url, seconds=_ASK_SECONDS).status
    if status != HTTPStatus.OK and (not 400 <= status < 500 or status == HTTPStatus.TOO_MANY_REQUESTS):
        raise NoResponse(f"{status} is no clear answer.")
    return status == HTTPStatus.OK  # 400 is what S3 says to strangers of an object encrypted by KMS


_MOST_BYTES = 1024 * 1024

_FAILURES = (BadAnswer, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""What can go wrong on the way, from a name that is none to an answer that is no HTTP."""


@dataclass(frozen=True, slots=True)
class AnonymousResponse:
    """What a visitor gets; of the body at most a mebibyte."""

    status: int
    content_type: str
    body: bytes


class NoResponse(Exception):
    """The address can't be reached, or its TLS certificate is not accepted; says which, without the query."""


def fetch_anonymously(
    method: str, url: str, body: bytes | None = None, *, seconds: float = 5.0
) -> AnonymousResponse:
    """Ask for `url`, following no redirect, as browsers can't follow S3's; raises `NoAnswer`.

    `seconds` is the longest wait for a connection, and the longest silence. `AWS_CA_BUNDLE` names the
    authorities, as for boto3; `HTTPS_PROXY` and `NO_PROXY` are honoured.
    """
    with _failures_told(url), _pool(url, seconds) as pool:
        answer = pool.request(method, url, body=body, redirect=False, preload_content=False)
        try:
            return AnonymousResponse(
                answer.status,
                answer.headers.get("Content-Type", ""),
                answer.read(_MOST_BYTES, decode_content=True),
            )
        finally:
            answer.close()


@contextmanager
def _failures_told(url: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as exc:
        raise NoResponse(f"No answer at {url.partition('?')[0]} ({type(exc).__name__}).") from exc


def _pool(url: str, seconds: float) -> urllib3.PoolManager:
    """For one visit: they are rare, and a connection that is kept would be shared after a fork."""
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=seconds, read=seconds),
        "retries": False,
        "ca_certs": os.environ.get("AWS_CA_BUNDLE") or None,
    }
    proxy = proxy_for(url)
    if proxy is None:
        pool = urllib3.PoolManager(**options)
    else:
        pool = urllib3.ProxyManager(proxy, proxy_headers=_credentials(proxy), **options)
    pool.pool_classes_by_scheme = POOLS
    return pool


def _credentials(proxy: str) -> dict[str, str]:
    """The header for a proxy whose URL has a user in it."""
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=user))
