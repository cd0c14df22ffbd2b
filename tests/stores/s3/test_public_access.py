"""Anonymous requests show whether images are public."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.core.errors import StoreRefused
from app.stores.s3 import urls as public_access_module
from app.stores.s3.store import S3Store
from app.stores.s3.urls import PublicAccess
from tests.conftest import json_of
from tests.pictures import picture
from tests.s3server import Fault, S3Server, error, refusal
from tests.stores.s3.conftest import REGION
from tests.waiting import wait_until


def _put(store: S3Store, key: str = "a/b.png") -> None:
    store.put(key, b"bytes", content_type="image/png")


def _anonymous(status: str) -> Fault:
    """Return a fault that sends this status to anonymous requests."""
    return error(status, "Played", lambda environ: "HTTP_AUTHORIZATION" not in environ)


def _anonymous_requests(s3: S3Server) -> int:
    return sum("authorization" not in headers for _, _, headers in s3.requests)


def test_if_the_acl_takes_effect_the_folder_is_public(s3: S3Server, store: S3Store) -> None:
    _put(store)
    assert store.is_public("a/b.png")
    assert store.is_public("a/other.png")
    assert _anonymous_requests(s3) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Who", "403 Forbidden", "404 Not Found"])
def test_nothing_is_public_without_an_acl_or_a_policy(s3: S3Server, bucket: str, status: str) -> None:
    store = S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="none")
    s3.fault = _anonymous(status)
    _put(store)
    assert not store.is_public("a/b.png")
    assert not store.is_public("b/b.png")
    assert _anonymous_requests(s3) == 2


def test_if_the_acl_is_ignored_nothing_is_public(s3: S3Server, store: S3Store) -> None:
    """With IgnorePublicAcls of Block Public Access, S3 accepts the put but denies anonymous reads."""
    s3.fault = _anonymous("403 Forbidden")
    _put(store)
    assert not store.is_public("a/b.png")
    assert not store.is_public("a/b.png")
    assert _anonymous_requests(s3) == 1


def test_a_policy_makes_images_public_if_acls_are_disabled(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("400 Bad Request", "AccessControlListNotSupported", "PUT", times=1)
    _put(store)
    s3.fault = _open_folder("open")
    assert not store.is_public("a/b.png")
    _put(store, "open/b.png")
    assert store.is_public("open/b.png")
    assert not store.is_public("a/b.png")


def _open_folder(folder: str) -> Fault:
    """Return the fault of a policy that lets everyone read `folder`."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if "HTTP_AUTHORIZATION" in environ:
            return None
        is_open = environ["PATH_INFO"].split("/")[2] == folder
        start_response("200 OK" if is_open else "403 Forbidden", [("Content-Length", "0")])
        return [b""]

    return answer


@pytest.mark.parametrize("status", ["500 Internal Server Error", "429 Slow Down", "301 Moved"])
def test_an_unclear_response_means_not_public(s3: S3Server, store: S3Store, status: str) -> None:
    s3.fault = _anonymous(status)
    _put(store)
    assert not store.is_public("a/b.png")
    assert not store.is_public("b/b.png")
    assert _anonymous_requests(s3) == 1


def test_a_silent_server_is_probed_once_and_briefly(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_access_module, "_PROBE_TIMEOUT_SECONDS", 0.5)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        s3.silence()
        start_response("200 OK", [("Content-Length", "0")])
        yield b""

    s3.fault = answer
    public_access = PublicAccess(lambda key: f"{s3.url}/bucket/{key}")
    assert not public_access.is_public("a/b.png")
    assert not public_access.is_public("c/b.png")
    wait_until(lambda: s3.requests)
    assert len(s3.requests) == 1


def test_the_result_expires(s3: S3Server) -> None:
    now = [0.0]
    public_access = PublicAccess(lambda key: f"{s3.url}/bucket/{key}", clock=lambda: now[0])
    s3.fault = _open_folder("a")
    assert public_access.is_public("a/b.png")
    s3.fault = _anonymous("403 Forbidden")
    now[0] += 599
    assert public_access.is_public("a/b.png")
    now[0] += 2
    assert not public_access.is_public("a/b.png")
    s3.fault = _anonymous("500 Internal Server Error")
    now[0] += 601
    assert not public_access.is_public("a/b.png")
    s3.fault = _open_folder("a")
    assert not public_access.is_public("a/b.png")
    now[0] += 61
    assert public_access.is_public("a/b.png")


def test_each_top_level_folder_is_probed_separately(s3: S3Server) -> None:
    s3.fault = _open_folder("a")
    public_access = PublicAccess(lambda key: f"{s3.url}/bucket/{key}")
    assert [public_access.is_public(key) for key in ("a/x.png", "x.png", "b/a/x.png", "a/b/x.png")] == [
        True,
        False,
        False,
        True,
    ]


def _endless_headers(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Send anonymous clients a response for which http.client does not raise an OSError."""
    if "HTTP_AUTHORIZATION" in environ:
        return None
    start_response("200 OK", [("Content-Length", "0"), *((f"X-{n}", "a") for n in range(150))])
    return [b""]


def test_an_invalid_response_means_not_public(s3: S3Server, store: S3Store) -> None:
    s3.fault = _endless_headers
    _put(store)
    assert not store.is_public("a/b.png")
    assert not store.is_public("b/b.png")
    assert _anonymous_requests(s3) == 1


def test_a_failed_probe_does_not_fail_the_upload(s3: S3Server, s3_client: FlaskClient) -> None:
    s3.fault = _endless_headers
    response = s3_client.post("/api/images", data=picture(), content_type="image/png")
    assert response.status_code == 201
    assert json_of(response)["image_url"].startswith("http://localhost/api/images/")


def test_a_store_without_a_url_is_not_public() -> None:
    def fails(key: str) -> str:
        raise StoreRefused

    assert not PublicAccess(fails).is_public("a/b.png")
