"""Which URL clients are told."""

import pytest

from app.links import ImageLinks
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from app.stores.s3 import S3Store

S3_URL = "https://cats.s3.eu-west-1.amazonaws.com/a%20b.png"
SERVER_URL = "/api/images/a%20b.png"


def _s3(acl: str) -> BaseStore:
    return S3Store("cats", region="eu-west-1", acl=acl)


@pytest.mark.parametrize(
    ("acl", "mode", "base", "expected"),
    [
        ("auto", "auto", "", S3_URL),
        ("none", "auto", "", SERVER_URL),
        ("none", "s3", "", S3_URL),
        ("auto", "server", "", SERVER_URL),
        ("auto", "auto", "https://cdn.example.org/", "https://cdn.example.org/a%20b.png"),
    ],
)
def test_urls_of_an_s3_store(acl: str, mode: str, base: str, expected: str) -> None:
    assert ImageLinks(_s3(acl), mode, base).url_of("a b.png") == expected


def test_urls_of_a_local_store(tmp_path: "pytest.TempPathFactory") -> None:
    store = LocalStore(tmp_path)  # type: ignore[arg-type]
    assert ImageLinks(store, "auto", "").url_of("a b.png") == SERVER_URL
