"""Requests as a visitor's browser makes them: without credentials."""

import http.client
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from app.aws import POOLS, BadAnswer
from app.proxies import proxy_for

_MOST_BYTES = 1024 * 1024

_FAILURES = (BadAnswer, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""What can go wrong on the way, from a name that is none to an answer that is no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visitor gets; of the body at most a mebibyte."""

    status: int
    content_type: str
    body: bytes


class NoAnswer(Exception):
    """The address can't be reached, or its TLS certificate is not accepted; says which, without the query."""


def visit(method: str, url: str, body: bytes | None = None, *, seconds: float = 5.0) -> Answer:
    """Ask for `url`, following no redirect, as browsers can't follow S3's; raises `NoAnswer`.

    `seconds` is the longest wait for a connection, and the longest silence. `AWS_CA_BUNDLE` names the
    authorities, as for boto3; `HTTPS_PROXY` and `NO_PROXY` are honoured.
    """
    with _failures_told(url), _pool(url, seconds) as pool:
        answer = pool.request(method, url, body=body, redirect=False, preload_content=False)
        try:
            return Answer(
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
        raise NoAnswer(f"No answer at {url.partition('?')[0]} ({type(exc).__name__}).") from exc


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
