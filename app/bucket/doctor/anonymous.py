"""Requests as a visitor's browser makes them: without credentials."""

import os
from dataclasses import dataclass
from functools import cache

import urllib3

_TIMEOUT = urllib3.Timeout(connect=4, read=6)
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visitor gets; of the body at most a mebibyte."""

    status: int
    content_type: str
    body: bytes


class NoAnswer(Exception):
    """The address can't be reached, or its TLS certificate is not accepted; says which, without the query."""


def visit(method: str, url: str, body: bytes | None = None) -> Answer:
    """Ask for `url`, following no redirect, as browsers can't follow S3's; raises `NoAnswer`."""
    try:
        answer = _pool().request(method, url, body=body, redirect=False, preload_content=False)
        try:
            return Answer(
                answer.status,
                answer.headers.get("Content-Type", ""),
                answer.read(_MOST_BYTES, decode_content=True),
            )
        finally:
            answer.close()
    except urllib3.exceptions.HTTPError as exc:
        raise NoAnswer(f"No answer at {url.partition('?')[0]} ({type(exc).__name__}).") from exc


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=_TIMEOUT, retries=False, ca_certs=os.environ.get("AWS_CA_BUNDLE") or None
    )
