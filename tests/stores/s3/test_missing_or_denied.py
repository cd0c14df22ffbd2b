"""Whether a 403 on a read means a missing object or a denial."""

from typing import Any

import pytest

from app.core.errors import NotFound, StoreRefused, StoreUnreachable
from app.stores.s3 import missing_or_denied as denial
from app.stores.s3.store import S3Store
from tests.s3server import Fault, S3Server, error, first_of, refusal

LISTING = "User: arn:aws:iam::1:user/u is not authorized to perform: s3:ListBucket on resource: x"
READING = "User: arn:aws:iam::1:user/u is not authorized to perform: s3:GetObject on resource: x"
DECRYPTING = "User: arn:aws:iam::1:user/u is not authorized to perform: kms:Decrypt on resource: x"

READS = [lambda store, key: store.get(key), lambda store, key: store.head(key)]


def _put(store: S3Store, key: str) -> None:
    store.put(key, b"bytes", content_type="image/png")


def _read(store: S3Store, key: str) -> None:
    stored = store.get(key)
    assert stored is not None
    stored.body.close()


def _reads(environ: dict[str, Any]) -> bool:
    return environ["REQUEST_METHOD"] in ("GET", "HEAD")


def _hidden(*there: str, message: str = "Access Denied") -> Fault:
    """Return the fault of a bucket without s3:ListBucket. Reads of every key except `there` are denied."""
    return error(
        "403 Forbidden",
        "AccessDenied",
        lambda environ: _reads(environ) and not environ["PATH_INFO"].endswith(there or ("\0",)),
        message=message,
    )


def _denied(*keys: str, message: str = "Access Denied") -> Fault:
    """Return the fault of a policy that denies reading `keys`."""
    return error(
        "403 Forbidden",
        "AccessDenied",
        lambda environ: _reads(environ) and environ["PATH_INFO"].endswith(keys),
        message=message,
    )


@pytest.mark.parametrize("read", READS)
def test_missing_images_are_not_found_even_without_the_list_permission(
    s3: S3Server, store: S3Store, read: Any
) -> None:
    s3.fault = _hidden()
    with pytest.raises(NotFound):
        read(store, "a/no.png")
    assert not store.exists("a/no.png")
    _put(store, "a/b.png")
    s3.fault = _hidden("a/b.png")
    assert store.exists("a/b.png")
    with pytest.raises(NotFound):
        read(store, "a/no.png")


def test_the_bucket_is_probed_once(s3: S3Server, store: S3Store) -> None:
    s3.fault = _hidden()
    for number in range(3):
        with pytest.raises(NotFound):
            store.get(f"a/{number}.png")
    probes = [path for method, path, _ in s3.requests if method == "HEAD"]
    assert len(probes) == 1
    folder, name = probes[0].split("/")[2:]
    assert folder == "a"  # where the same policies apply
    assert len(name) == len("0" * 32 + ".png")


@pytest.mark.parametrize("read", READS)
def test_a_403_is_a_denial_if_missing_images_are_404s(s3: S3Server, store: S3Store, read: Any) -> None:
    s3.fault = _denied("a/secret.png")
    with pytest.raises(StoreRefused, match="Allow s3:GetObject"):
        read(store, "a/secret.png")
    with pytest.raises(NotFound):
        read(store, "a/no.png")


@pytest.mark.parametrize(
    ("message", "expected"),
    [(LISTING, NotFound), (READING, StoreRefused), (DECRYPTING, StoreRefused)],
)
@pytest.mark.parametrize("read", READS)
def test_the_action_that_aws_names_decides(
    s3: S3Server, store: S3Store, read: Any, message: str, expected: type[Exception]
) -> None:
    s3.fault = _hidden(message=message)
    with pytest.raises(expected):
        read(store, "a/b.png")


CREDENTIALS = [
    "ExpiredToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
    "AccountProblem",
]


@pytest.mark.parametrize("code", CREDENTIALS)
@pytest.mark.parametrize("read", READS)
def test_no_other_403_means_missing(s3: S3Server, store: S3Store, read: Any, code: str) -> None:
    s3.fault = _hidden()
    with pytest.raises(NotFound):
        store.get("a/learn.png")
    s3.fault = error("403 Forbidden", code, _reads)
    with pytest.raises(StoreRefused, match=code):
        read(store, "a/b.png")


def test_a_revoked_permission_is_not_a_missing_image(
    s3: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests are denied, even those for objects that were read before."""
    monkeypatch.setattr(denial, "_READABLE_SECONDS", 0)
    _put(store, "a/b.png")
    _read(store, "a/b.png")
    s3.fault = _hidden()
    for key in ("a/no.png", "a/b.png", "a/no.png"):
        with pytest.raises(StoreRefused):
            store.get(key)
    s3.fault = _hidden("a/b.png")
    with pytest.raises(NotFound):
        store.get("a/no.png")


def test_an_object_read_before_is_not_missing_without_proof(
    s3: S3Server, bucket: str, store: S3Store
) -> None:
    """A new process revalidates an image that is still in its cache."""
    _put(store, "a/b.png")
    etag = store.head("a/b.png").etag
    s3.fault = _hidden()
    fresh = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)
    with pytest.raises(StoreRefused):
        fresh.get("a/b.png", if_none_match=etag)


def test_a_deleted_object_proves_nothing(
    s3: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denial, "_READABLE_SECONDS", 0)
    _put(store, "a/b.png")
    store.delete("a/b.png")
    s3.fault = _hidden()
    with pytest.raises(NotFound):
        store.get("a/b.png")


def test_an_outage_during_the_probe_is_an_outage(s3: S3Server, store: S3Store) -> None:
    s3.fault = first_of(_denied("a/b.png"), refusal("503 Slow Down", "SlowDown", "HEAD"))
    with pytest.raises(StoreUnreachable):
        store.get("a/b.png")


def test_a_changed_policy_is_noticed(s3: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denial, "_PROBE_SECONDS", 0)
    s3.fault = _hidden()
    with pytest.raises(NotFound):
        store.get("a/b.png")
    s3.fault = _denied("a/b.png")
    with pytest.raises(StoreRefused):
        store.get("a/b.png")
