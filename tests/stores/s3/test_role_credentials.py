"""Temporary credentials of a role, which containers get over HTTP, are renewed in time."""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.utils import ContainerMetadataFetcher
from werkzeug.serving import make_server

from app.core.errors import StoreRefused
from app.stores.s3.store import S3Store
from tests.s3server import CREDENTIALS, S3Server

SOON = timedelta(minutes=5)
"""An expiry so near that botocore renews the credentials before each use."""

LATE = timedelta(hours=6)


class Role:
    """The agent that ECS and EKS run next to a container.

    It issues a new key for each request, valid for `lasts`.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """

    def __init__(self) -> None:
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.given = 0
        self.lasts = LATE
        self.is_down = False

    @property
    def url(self) -> str:
        """The value for `AWS_CONTAINER_CREDENTIALS_FULL_URI`."""
        return f"http://127.0.0.1:{self._server.server_port}/role"

    def __enter__(self) -> "Role":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.is_down:
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        self.given += 1
        body = json.dumps(
            {
                "RoleArn": "arn:aws:iam::123456789012:role/images",
                "AccessKeyId": f"ASIAROLE{self.given}",
                "SecretAccessKey": f"secret-{self.given}",
                "Token": f"token-{self.given}",
                "Expiration": f"{datetime.now(UTC) + self.lasts:%Y-%m-%dT%H:%M:%SZ}",
            }
        ).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]


@pytest.fixture
def role(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Role]:
    """Return the role. It is the only source of credentials."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with Role() as found:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", found.url)
        yield found


def _signers(s3: S3Server) -> list[int]:
    """Return the number of the key that signed each request. Check that the token belongs to the key."""
    found = []
    for _, _, headers in s3.requests:
        key = re.search(r"Credential=ASIAROLE(\d+)/", headers["authorization"])
        assert key
        assert headers["x-amz-security-token"] == f"token-{key[1]}"
        found.append(int(key[1]))
    return found


def _signed_by(url: str) -> tuple[str, str]:
    """Return the key and the token in a presigned URL."""
    query = parse_qs(urlsplit(url).query)
    return query["X-Amz-Credential"][0].partition("/")[0], query["X-Amz-Security-Token"][0]


def test_valid_credentials_are_kept(s3: S3Server, role: Role, store: S3Store) -> None:
    store.put("a.png", b"bytes", content_type="image/png")
    store.head("a.png")
    assert set(_signers(s3)) == {1}
    assert role.given == 1


def test_credentials_are_renewed_before_they_expire(s3: S3Server, role: Role, store: S3Store) -> None:
    role.lasts = SOON
    for _ in range(3):
        store.exists("a.png")
    signers = _signers(s3)
    assert signers == sorted(set(signers)), "each request by a newer key"
    role.lasts = LATE
    s3.requests.clear()
    store.exists("a.png")
    store.exists("a.png")
    assert set(_signers(s3)) == {role.given}


def test_urls_are_signed_by_the_newest_credentials(role: Role, store: S3Store) -> None:
    """A URL expires with the credentials that signed it."""
    role.lasts = SOON
    first, second = store.signed_url("a.png"), store.signed_url("a.png")
    assert _signed_by(first) != _signed_by(second) == (f"ASIAROLE{role.given}", f"token-{role.given}")
    role.lasts = LATE
    last = store.signed_url("a.png")
    assert last == store.signed_url("a.png") != second
    assert _signed_by(last) == (f"ASIAROLE{role.given}", f"token-{role.given}")


def test_s3_is_not_called_until_credentials_are_back(s3: S3Server, role: Role, store: S3Store) -> None:
    role.is_down = True
    for call in (store.head, store.signed_url):
        with pytest.raises(StoreRefused, match="give the machine a role"):
            call("a.png")
    assert s3.requests == []
    role.is_down = False
    assert not store.exists("a.png")
    assert set(_signers(s3)) == {1}


def test_renewed_credentials_that_have_expired_are_a_refusal(
    s3: S3Server, role: Role, store: S3Store
) -> None:
    """The agent returns outdated credentials, or the clock is wrong."""
    role.lasts = -SOON
    for call in (store.head, store.signed_url):
        with pytest.raises(StoreRefused, match="still expired"):
            call("a.png")
    assert s3.requests == []
