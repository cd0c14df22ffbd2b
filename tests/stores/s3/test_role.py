"""A role's credentials, as containers are given them over HTTP: good for a while, renewed in time."""

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
"""So near its end that botocore renews before each use."""

LATE = timedelta(hours=6)


class Role:
    """What ECS and EKS run beside a container: each time it gives another key, good for as long as `lasts`.

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
        """What `AWS_CONTAINER_CREDENTIALS_FULL_URI` takes."""
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
    """The only source of credentials."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with Role() as found:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", found.url)
        yield found


def _signers(s3: S3Server) -> list[int]:
    """By which of the role's keys each request was signed; each has the token of its key."""
    found = []
    for _, _, headers in s3.requests:
        key = re.search(r"Credential=ASIAROLE(\d+)/", headers["authorization"])
        assert key
        assert headers["x-amz-security-token"] == f"token-{key[1]}"
        found.append(int(key[1]))
    return found


def _signed_by(url: str) -> tuple[str, str]:
    """The key and the token that a presigned URL names."""
    query = parse_qs(urlsplit(url).query)
    return query["X-Amz-Credential"][0].partition("/")[0], query["X-Amz-Security-Token"][0]


def test_they_are_kept_while_they_are_good(s3: S3Server, role: Role, store: S3Store) -> None:
    store.put("a.png", b"bytes", content_type="image/png")
    store.head("a.png")
    assert set(_signers(s3)) == {1}
    assert role.given == 1


def test_they_are_renewed_before_they_expire(s3: S3Server, role: Role, store: S3Store) -> None:
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


def test_a_url_is_signed_by_the_newest(role: Role, store: S3Store) -> None:
    """One that an older key has signed ends with that key, so it is not told any longer."""
    role.lasts = SOON
    first, second = store.signed_url("a.png"), store.signed_url("a.png")
    assert _signed_by(first) != _signed_by(second) == (f"ASIAROLE{role.given}", f"token-{role.given}")
    role.lasts = LATE
    last = store.signed_url("a.png")
    assert last == store.signed_url("a.png") != second
    assert _signed_by(last) == (f"ASIAROLE{role.given}", f"token-{role.given}")


def test_without_them_s3_is_not_asked_until_they_are_back(s3: S3Server, role: Role, store: S3Store) -> None:
    role.is_down = True
    for call in (store.head, store.signed_url):
        with pytest.raises(StoreRefused, match="give the machine a role"):
            call("a.png")
    assert s3.requests == []
    role.is_down = False
    assert not store.exists("a.png")
    assert set(_signers(s3)) == {1}


def test_new_credentials_that_have_expired_are_refused(s3: S3Server, role: Role, store: S3Store) -> None:
    """A role's agent that is stale, or a clock that is wrong."""
    role.lasts = -SOON
    for call in (store.head, store.signed_url):
        with pytest.raises(StoreRefused, match="still expired"):
            call("a.png")
    assert s3.requests == []
