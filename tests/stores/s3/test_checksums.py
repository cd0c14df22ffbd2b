"""The checksum that S3 returns with an object."""

import base64
import hashlib
from collections.abc import Iterable, Iterator

import pytest

from app.stores.s3.store import S3Store
from tests.rawstore import RawRequest, RawStore, answer_of
from tests.s3server import S3Server
from tests.stores.s3.conftest import REGION

DIGEST = hashlib.sha256(b"bytes")
WHOLE = base64.b64encode(DIGEST.digest()).decode()


@pytest.fixture
def raw(s3: object) -> Iterator[RawStore]:
    """Return a server whose responses each test sets, with credentials for it."""
    server = RawStore(lambda request: [])
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("headers", "sha256"),
    [
        ([], ""),
        ([f"x-amz-checksum-sha256: {WHOLE}"], DIGEST.hexdigest()),
        ([f"x-amz-checksum-sha256: {WHOLE}", "x-amz-checksum-type: FULL_OBJECT"], DIGEST.hexdigest()),
        ([f"x-amz-checksum-sha256: {WHOLE}", "x-amz-checksum-type: COMPOSITE"], ""),
        ([f"x-amz-checksum-sha256: {WHOLE}-3"], ""),
        (["x-amz-checksum-sha256: not base64"], ""),
        (["x-amz-checksum-sha256: YWJj"], ""),
        (["x-amz-checksum-crc32: AAAAAA=="], ""),
    ],
)
def test_only_a_checksum_of_the_whole_object_is_used(raw: RawStore, headers: list[str], sha256: str) -> None:
    def answer(request: RawRequest) -> Iterable[bytes]:
        about = ["Content-Type: image/png", 'ETag: "e"', "Last-Modified: Sun, 22 Nov 2026 08:00:00 GMT"]
        return [answer_of("200 OK", *about, "Content-Length: 5", *headers, body=b"bytes")]

    raw.answer = answer
    stored = S3Store("bucket", region=REGION, endpoint_url=raw.url).get("a.png")
    assert stored is not None
    with stored:
        assert (stored.facts.sha256, stored.body.read()) == (sha256, b"bytes")


def test_aws_sends_the_checksum_with_the_object(s3: S3Server, aws: str) -> None:
    look = s3.client()
    look.put_object(Bucket=aws, Key="a.png", Body=b"bytes", ChecksumAlgorithm="SHA256")
    look.close()
    stored = S3Store(aws, region=REGION).get("a.png")
    assert stored is not None
    with stored:
        assert stored.facts.sha256 == DIGEST.hexdigest()
