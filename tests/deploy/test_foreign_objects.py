"""Objects that other programs stored are served alike by nginx and gunicorn, and are never stale."""

import gzip
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.deploy.nginx import Answer, send
from tests.deploy.site import Site, running_site
from tests.pictures import noise, picture
from tests.s3server import CREDENTIALS, S3Server

BUCKET_NAME = "images-of-others"
MUTABLE, IMMUTABLE = "public, no-cache", "public, max-age=31536000, immutable"


class Bucket(NamedTuple):
    """A bucket, and a site over it that revalidates mutable images at each request."""

    site: Site
    aws: Any

    def put(self, key: str, data: bytes, **more: Any) -> None:
        """Put an object without this server."""
        self.aws.put_object(Bucket=BUCKET_NAME, Key=key, Body=data, ContentType="image/png", **more)

    def both(self, key: str, **headers: str) -> tuple[Answer, Answer]:
        """Return the responses of gunicorn and then of nginx, when the image is in the cache."""
        path = f"/api/images/{key}"
        return send(self.site.server.url, path, "GET", headers), send(self.site.url, path, "GET", headers)

    def nginx_can_serve(self, key: str) -> bool:
        """Return whether the file is where nginx serves it without gunicorn."""
        return (self.site.cache_dir / "objects" / key).exists()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket that the tests of this module share."""
    s3 = S3Server().start()
    aws = s3.make_bucket(BUCKET_NAME)
    settings = {"S3_BUCKET": BUCKET_NAME, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    data, nginx = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("nginx")
    with running_site(data, nginx, CACHE_TTL="0", **settings, **CREDENTIALS) as site:
        yield Bucket(site, aws)
    aws.close()
    s3.stop()


def _addressed(data: bytes, folder: str) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"{folder}/{digest[:2]}/{digest[2:32]}.png"


def _generated(number: int) -> str:
    return f"generated/2026/11/20261122_080509_{number:024x}.png"


_SHA256 = hashlib.sha256(noise(1)).hexdigest()

LOOKALIKES: dict[str, tuple[str, dict[str, str]]] = {
    "a made-up digest": ("avatars/0a/" + "1" * 30 + ".png", {}),
    "an MD5": (f"avatars/0b/{hashlib.md5(noise(1)).hexdigest()[2:]}.png", {}),
    "the digest of something else": (_addressed(b"something else", "avatars"), {}),
    "a time and a random number": (_generated(1), {}),
    "a generated one's metadata": (_generated(2), {"prompt": "a cat", "model": "m", "size": "1x1"}),
    "the digest of something else in the metadata": (_generated(3), {"sha256": "0" * 64}),
    "the beginning of the digest in the metadata": (_generated(4), {"sha256": _SHA256[:8]}),
    "no digest in the metadata": (_generated(5), {"sha256": ""}),
}


@pytest.mark.parametrize("what", LOOKALIKES)
def test_keys_that_only_look_immutable_are_mutable(bucket: Bucket, what: str) -> None:
    key, metadata = LOOKALIKES[what]
    bucket.put(key, noise(1), Metadata=metadata)
    for answer in bucket.both(key):
        assert (answer.status, answer.headers["cache-control"]) == (200, MUTABLE)
        assert answer.body == noise(1)
        assert answer.headers["etag"] == f'"{hashlib.md5(noise(1)).hexdigest()}"'
    assert not bucket.nginx_can_serve(key)
    bucket.put(key, noise(2))
    for answer in bucket.both(key):
        assert (answer.status, answer.body) == (200, noise(2))
        assert answer.headers["cache-control"] == MUTABLE


@pytest.mark.parametrize("key", [_addressed(noise(3), "avatars"), _generated(6)])
def test_a_key_becomes_immutable_once_its_bytes_match_the_digest(bucket: Bucket, key: str) -> None:
    metadata = {"sha256": hashlib.sha256(noise(3)).hexdigest()}
    bucket.put(key, noise(4), Metadata=metadata)
    assert {answer.headers["cache-control"] for answer in bucket.both(key)} == {MUTABLE}
    bucket.put(key, noise(3), Metadata=metadata)
    for answer in (*bucket.both(key), *bucket.both(key)):
        assert (answer.body, answer.headers["cache-control"]) == (noise(3), IMMUTABLE)
    assert bucket.nginx_can_serve(key)
    assert not (bucket.site.cache_dir / "named" / key).exists()


def test_uploads_are_immutable(bucket: Bucket) -> None:
    key = bucket.site.upload(noise(5)).removeprefix("/api/images/")
    assert {answer.headers["cache-control"] for answer in bucket.both(key)} == {IMMUTABLE}
    assert bucket.nginx_can_serve(key)


def test_variants_of_mutable_images_are_never_stale(bucket: Bucket) -> None:
    bucket.put("a/me.png", noise(11))
    old = bucket.both("a/me.png/w32.png")
    bucket.put("a/me.png", noise(12))
    new = bucket.both("a/me.png/w32.png")
    for answer in (*old, *new):
        assert (answer.status, answer.headers["cache-control"]) == (200, MUTABLE)
    assert old[0].body == old[1].body != new[0].body == new[1].body
    assert not (bucket.site.cache_dir / "variants" / "a").exists()


def test_an_object_that_is_stored_under_the_path_of_a_variant_takes_precedence(bucket: Bucket) -> None:
    key = "a/you.png"
    bucket.put(key, noise(13))
    bucket.put(f"{key}/w32.png", noise(14))
    for answer in (*bucket.both(f"{key}/w32.png"), *bucket.both(f"{key}/w32.png")):
        assert (answer.status, answer.body) == (200, noise(14))
        assert answer.headers["cache-control"] == MUTABLE
    assert not (bucket.site.cache_dir / "variants" / key).exists()


def test_both_send_the_stored_type_if_the_extension_has_another(bucket: Bucket) -> None:
    """nginx would send the extension's."""
    data = picture("JPEG")
    key = _addressed(data, "mistyped")
    bucket.aws.put_object(Bucket=BUCKET_NAME, Key=key, Body=data, ContentType="image/jpeg")
    for answer in (*bucket.both(key), *bucket.both(key)):
        assert (answer.headers["content-type"], answer.body) == ("image/jpeg", data)
    assert not bucket.nginx_can_serve(key)


ENCODED = gzip.compress(noise(6), mtime=0)


@pytest.mark.parametrize("key", ["a/b.png", "a/Ü b.png", _addressed(ENCODED, "z"), _addressed(noise(6), "z")])
def test_both_send_the_content_encoding(bucket: Bucket, key: str) -> None:
    bucket.put(key, ENCODED, ContentEncoding="gzip")
    quoted = key.replace("Ü b", "%C3%9C%20b")
    for answer in (*bucket.both(quoted), *bucket.both(quoted, **{"Accept-Encoding": "identity"})):
        assert (answer.status, answer.body) == (200, ENCODED)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-length"] == str(len(ENCODED))
        assert answer.headers["cache-control"] == MUTABLE
        assert "vary" not in answer.headers  # only one form is stored
    assert not bucket.nginx_can_serve(key)
