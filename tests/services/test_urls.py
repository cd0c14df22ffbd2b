"""Tests of the URLs that clients get for images."""

import pytest

from app.core.variant_keys import VariantPath
from app.services.urls import ImageUrls, variant_url_path
from app.stores.local import LocalStore
from app.stores.s3.store import S3Store
from tests.s3server import CREDENTIALS

S3_URL = "https://cats.s3.eu-west-1.amazonaws.com/a%20b.png"
SERVER_URL = "/api/images/a%20b.png"


class _Public(S3Store):
    """A store that is known to be public."""

    def is_public(self, key: str) -> bool:
        """Return True."""
        return True


class _Private(S3Store):
    """A store that is not known to be public."""

    def is_public(self, key: str) -> bool:
        """Return False."""
        return False


@pytest.mark.parametrize(
    ("store_class", "mode", "base", "expected"),
    [
        (_Public, "auto", "", S3_URL),
        (_Private, "auto", "", SERVER_URL),
        (_Private, "s3", "", S3_URL),
        (_Public, "server", "", SERVER_URL),
        (_Public, "auto", "https://cdn.example.org/", "https://cdn.example.org/a%20b.png"),
    ],
)
def test_urls_of_an_s3_store(store_class: type[S3Store], mode: str, base: str, expected: str) -> None:
    store = store_class("cats", region="eu-west-1")
    assert ImageUrls(store, mode, base).url_of("a b.png") == expected


def test_presigned_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    store = S3Store("cats", region="eu-west-1")
    url = ImageUrls(store, "presigned", "").url_of("a b.png")
    assert url.startswith(f"{S3_URL}?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert url == store.signed_url("a b.png")


def test_urls_of_a_local_store(tmp_path: "pytest.TempPathFactory") -> None:
    store = LocalStore(tmp_path)  # type: ignore[arg-type]
    for mode in ("auto", "presigned", "s3"):
        assert ImageUrls(store, mode, "").url_of("a b.png") == SERVER_URL


def test_the_url_path_of_a_variant_encodes_the_key_but_not_the_commas_of_the_spec() -> None:
    path = VariantPath("a,b é.png", "w9,h9", "webp")
    assert variant_url_path(path) == "/api/images/a%2Cb%20%C3%A9.png/w9,h9.webp"
    assert variant_url_path(VariantPath("a.png", "thumb", "")) == "/api/images/a.png/thumb"
