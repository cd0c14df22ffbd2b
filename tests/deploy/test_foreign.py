"""Objects of other people look the same whether nginx is in front or not, and nothing stays stale."""

import gzip
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.deploy.fronted import Answer, ask
from tests.deploy.site import Site, site_in
from tests.pictures import noise, picture
from tests.s3server import CREDENTIALS, S3Server

BUCKET = "somebodys-images"
MUTABLE, IMMUTABLE = "public, no-cache", "public, max-age=31536000, immutable"


class Shop(NamedTuple):
    """A site over a bucket, where every request asks S3 about what may have changed."""

    site: Site
    look: Any

    def put(self, key: str, data: bytes, **more: Any) -> None:
        """Put an object as others would."""
        self.look.put_object(Bucket=BUCKET, Key=key, Body=data, ContentType="image/png", **more)

    def both(self, key: str, **headers: str) -> tuple[Answer, Answer]:
        """What gunicorn answers, and then nginx, so that the cache has it for certain."""
        path = f"/api/images/{key}"
        return ask(self.site.server.url, path, "GET", headers), ask(self.site.url, path, "GET", headers)

    def is_nginx_s(self, key: str) -> bool:
        """Whether the file lies where nginx sends it without asking."""
        return (self.site.cache_dir / "objects" / key).exists()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One for all tests here."""
    s3 = S3Server().start()
    look = s3.make_bucket(BUCKET)
    settings = {"S3_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    data, nginx = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("nginx")
    with site_in(data, nginx, CACHE_TTL="0", **settings, **CREDENTIALS) as site:
        yield Shop(site, look)
    look.close()
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
def test_a_key_that_only_looks_immutable_is_mutable(shop: Shop, what: str) -> None:
    key, metadata = LOOKALIKES[what]
    shop.put(key, noise(1), Metadata=metadata)
    for answer in shop.both(key):
        assert (answer.status, answer.headers["cache-control"]) == (200, MUTABLE)
        assert answer.body == noise(1)
        assert answer.headers["etag"] == f'"{hashlib.md5(noise(1)).hexdigest()}"'
    assert not shop.is_nginx_s(key)
    shop.put(key, noise(2))
    for answer in shop.both(key):
        assert (answer.status, answer.body) == (200, noise(2))
        assert answer.headers["cache-control"] == MUTABLE


@pytest.mark.parametrize("key", [_addressed(noise(3), "avatars"), _generated(6)])
def test_a_key_becomes_immutable_with_the_bytes_that_it_stands_for(shop: Shop, key: str) -> None:
    metadata = {"sha256": hashlib.sha256(noise(3)).hexdigest()}
    shop.put(key, noise(4), Metadata=metadata)
    assert {answer.headers["cache-control"] for answer in shop.both(key)} == {MUTABLE}
    shop.put(key, noise(3), Metadata=metadata)
    for answer in (*shop.both(key), *shop.both(key)):
        assert (answer.body, answer.headers["cache-control"]) == (noise(3), IMMUTABLE)
    assert shop.is_nginx_s(key)
    assert not (shop.site.cache_dir / "named" / key).exists()


def test_what_this_server_stores_is_immutable(shop: Shop) -> None:
    key = shop.site.upload(noise(5)).removeprefix("/api/images/")
    assert {answer.headers["cache-control"] for answer in shop.both(key)} == {IMMUTABLE}
    assert shop.is_nginx_s(key)


def test_a_type_that_the_extension_does_not_say_is_told_by_both(shop: Shop) -> None:
    """nginx goes by the extension."""
    data = picture("JPEG")
    key = _addressed(data, "mistyped")
    shop.look.put_object(Bucket=BUCKET, Key=key, Body=data, ContentType="image/jpeg")
    for answer in (*shop.both(key), *shop.both(key)):
        assert (answer.headers["content-type"], answer.body) == ("image/jpeg", data)
    assert not shop.is_nginx_s(key)


ENCODED = gzip.compress(noise(6), mtime=0)


@pytest.mark.parametrize("key", ["a/b.png", "a/Ü b.png", _addressed(ENCODED, "z"), _addressed(noise(6), "z")])
def test_content_encoding_is_passed_on(shop: Shop, key: str) -> None:
    shop.put(key, ENCODED, ContentEncoding="gzip")
    quoted = key.replace("Ü b", "%C3%9C%20b")
    for answer in (*shop.both(quoted), *shop.both(quoted, **{"Accept-Encoding": "identity"})):
        assert (answer.status, answer.body) == (200, ENCODED)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-length"] == str(len(ENCODED))
        assert answer.headers["cache-control"] == MUTABLE
        assert "vary" not in answer.headers  # there is no other form of it
    assert not shop.is_nginx_s(key)
