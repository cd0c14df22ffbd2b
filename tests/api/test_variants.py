"""GET and HEAD /api/images/<key>/<variant>, as clients see them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.imaging.sandbox.client import make_in_sandbox
from app.imaging.variants import MadeVariant
from app.services import variants as variant_service
from app.services.signing import UrlSigner
from tests.api.buffered import buffered_client
from tests.conftest import json_of
from tests.pictures import animation, picture

PHOTO = picture("JPEG", (800, 600))
IMMUTABLE, MUTABLE = "public, max-age=31536000, immutable", "public, no-cache"
HIT = "s3-image-server; hit"
CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
SAFARI_15 = "image/webp,image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5"

MakeClient = Callable[..., FlaskClient]


def _upload(client: FlaskClient, data: bytes = PHOTO, **fields: str) -> str:
    sent = client.post("/api/images", data={"image": (BytesIO(data), "a.jpg"), **fields})
    return str(json_of(sent)["key"])


def _size(response: Any) -> tuple[str, tuple[int, int]]:
    with Image.open(BytesIO(response.data)) as image:
        return str(image.format), image.size


def _outcome(response: Any) -> tuple[int, str]:
    """Return the status and the code of an error."""
    return response.status_code, json_of(response)["code"]


@pytest.fixture
def make_client(config: Config) -> Iterator[MakeClient]:
    """A function that returns a client of a new application with these settings and the same directories."""
    applications: list[Flask] = []

    def make(**settings: Any) -> FlaskClient:
        applications.append(create_app(replace(config, **settings)))
        return buffered_client(applications[-1])

    yield make
    for flask in applications:
        components_of(flask).cache.close()


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    """A client of a server with the default settings."""
    return make_client()


@pytest.fixture
def url(client: FlaskClient) -> str:
    """The URL of an immutable JPEG of 800 × 600 pixels."""
    return f"/api/images/{_upload(client)}"


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("w640.avif", "AVIF", (640, 480)),
        ("w640.webp", "WEBP", (640, 480)),
        ("w640.jpg", "JPEG", (640, 480)),
        ("w640.png", "PNG", (640, 480)),
        ("w320,still.webp", "WEBP", (320, 240)),
        ("w3840.jpg", "JPEG", (800, 600)),  # never larger than the image
        ("thumb.webp", "WEBP", (320, 320)),
        ("card.gif", "GIF", (640, 480)),
    ],
)
def test_listed_variants_are_made_and_then_served_from_the_cache(
    client: FlaskClient, url: str, name: str, kind: str, size: tuple[int, int]
) -> None:
    first, head, again = (client.open(f"{url}/{name}", method=method) for method in ("GET", "HEAD", "GET"))
    assert (first.status_code, _size(first)) == (200, (kind, size))
    assert (again.status_code, again.data, again.headers["Cache-Status"]) == (200, first.data, HIT)
    assert (head.status_code, head.data) == (200, b"")
    for response in (head, again):
        for header in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Cache-Control"):
            assert response.headers[header] == first.headers[header]
    assert first.headers["Cache-Control"] == IMMUTABLE
    assert (first.headers["X-Content-Type-Options"], first.headers.get("Vary")) == ("nosniff", None)


@pytest.mark.parametrize(
    ("accept", "data", "expected"),
    [
        (CHROME, PHOTO, "image/avif"),
        (SAFARI_15, PHOTO, "image/webp"),
        ("image/avif;q=0,image/webp", PHOTO, "image/webp"),
        ("image/*", PHOTO, "image/jpeg"),
        ("*/*", PHOTO, "image/jpeg"),
        ("", PHOTO, "image/jpeg"),
        ("image/avif" * 800, PHOTO, "image/jpeg"),
        ("*/*", animation(3, size=(40, 40)), "image/png"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"name": "me"}], ids=["immutable", "mutable"])
def test_without_an_extension_the_accept_header_decides(
    client: FlaskClient, accept: str, data: bytes, expected: str, fields: dict[str, str]
) -> None:
    url = f"/api/images/{_upload(client, data, **fields)}/w320"
    for _ in range(2):
        response = client.get(url, headers={"Accept": accept})
        assert (response.status_code, response.content_type) == (200, expected)
        assert "Accept" in response.headers["Vary"]
    etag = response.headers["ETag"]
    unchanged = client.get(url, headers={"Accept": accept, "If-None-Match": etag})
    assert (unchanged.status_code, unchanged.headers["Vary"]) == (304, response.headers["Vary"])
    others = [other for other in (CHROME, SAFARI_15, "*/*") if other != accept]
    types = {other: client.get(url, headers={"Accept": other}) for other in others}
    for other, found in types.items():
        if found.content_type != expected:
            assert client.get(url, headers={"Accept": other, "If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("fields", [{}, {"name": "me"}], ids=["immutable", "mutable"])
def test_formats_of_the_same_size_have_different_entity_tags(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    """At the URL without an extension, a cache would otherwise mistake one for the other."""
    url = f"/api/images/{_upload(client, PHOTO, **fields)}/w320"

    def make(*args: Any) -> MadeVariant:
        return replace(make_in_sandbox(*args), data=b"x" * 500)

    monkeypatch.setattr(variant_service, "make_in_sandbox", make)
    accepted = ("image/avif", "image/webp", "*/*")
    tags = [client.get(url, headers={"Accept": accept}).headers["ETag"] for accept in accepted]
    assert len(set(tags)) == len(accepted)


def test_variants_of_named_images_are_revalidated_and_follow_their_image(client: FlaskClient) -> None:
    url = f"/api/images/{_upload(client, name='me')}/w320.webp"
    old = client.get(url)
    assert (old.headers["Cache-Control"], _size(old)) == (MUTABLE, ("WEBP", (320, 240)))
    _upload(client, picture("JPEG", (400, 400)), name="me")
    new = client.get(url, headers={"If-None-Match": old.headers["ETag"]})
    assert (new.status_code, _size(new)) == (200, ("WEBP", (320, 320)))
    assert client.delete("/api/images/me.jpg").status_code == 200
    assert client.get(url).status_code == 404


def test_variants_support_conditions_and_ranges(client: FlaskClient, url: str) -> None:
    whole = client.get(f"{url}/w640.webp")
    etag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
    for condition in ({"If-None-Match": etag}, {"If-Modified-Since": modified}, {"If-None-Match": "*"}):
        assert client.get(f"{url}/w640.webp", headers=condition).status_code == 304
    part = client.get(f"{url}/w640.webp", headers={"Range": "bytes=3-9", "If-Range": etag})
    assert (part.status_code, part.data) == (206, whole.data[3:10])
    assert client.get(f"{url}/w640.webp", headers={"If-Match": '"x"'}).status_code == 412
    assert client.get(f"{url}/w640.webp", headers={"Range": "bytes=9999999-"}).status_code == 416


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("W640.webp", "w640.webp"),
        ("w0640.WEBP", "w640.webp"),
        ("w640,center.webp", "w640.webp"),
        ("still,w640.webp", "w640,still.webp"),
        ("w640,still.jpg", "w640.jpg"),
        ("w640.jpeg", "w640.jpg"),
        ("THUMB", "thumb"),
        ("%77640", None),
        ("?w=640", "w640"),
        ("?w=640&format=webp", "w640.webp"),
        ("?%77=640&fit=contain", "w640"),
        ("?preset=thumb&format=jpeg", "thumb.jpg"),
    ],
)
def test_other_spellings_redirect_once(
    client: FlaskClient, url: str, spelling: str, canonical: str | None
) -> None:
    asked = f"{url}{spelling}" if spelling.startswith("?") else f"{url}/{spelling}"
    response = client.get(asked)
    if canonical is not None:
        assert (response.status_code, response.headers["Location"]) == (308, f"{url}/{canonical}")
        response = client.get(response.headers["Location"])
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("w641.webp", 400, "variant_not_permitted"),
        ("w640.gif", 400, "variant_not_permitted"),
        ("w64,h64,cover", 400, "variant_not_permitted"),
        ("w0.webp", 400, "invalid_variant"),
        ("w99999999.webp", 400, "invalid_variant"),
        ("w640.jxl", 400, "invalid_variant"),
        ("w640.json", 400, "invalid_variant"),
        ("info.json", 400, "invalid_variant"),
        ("w640+first.webp", 400, "invalid_variant"),
        ("center.webp", 400, "invalid_variant"),
        (".webp", 400, "invalid_variant"),
        ("x" * 4000, 400, "invalid_variant"),
        ("w640,w640.webp", 400, "invalid_variant"),
        ("w641.webp?sig=" + "A" * 43, 403, "signature_refused"),
        ("w641.webp?sig=", 403, "signature_refused"),
        ("w641.webp?exp=1", 400, "variant_not_permitted"),
    ],
)
def test_refused_variants(client: FlaskClient, url: str, name: str, status: int, code: str) -> None:
    response = client.get(f"{url}/{name}")
    assert _outcome(response) == (status, code)
    assert response.headers["Cache-Control"] == "no-store"
    if code == "variant_not_permitted" and name.startswith("w641"):
        assert "w640" in json_of(response)["message"]


def test_listed_variants_ignore_signatures(client: FlaskClient, url: str) -> None:
    for query in ("sig=x", "exp=x", "exp=1&sig=x", "v=2", "sig"):
        response = client.get(f"{url}/w320?{query}")
        assert (response.status_code, response.headers["Cache-Control"]) == (200, IMMUTABLE)


def test_signatures_permit_their_own_url_until_they_expire(make_client: MakeClient) -> None:
    old, new = "an old key of signatures", "a new key of signatures"
    client = make_client(signing_keys=(new, old))
    key = _upload(client)
    path = f"/api/images/{key}/w100,h100,cover"
    for signer in (UrlSigner((old,)), UrlSigner((new,))):
        assert _size(client.get(f"{path}.webp?{signer.sign(f'{path}.webp')}")) == ("WEBP", (100, 100))
        assert client.get(f"{path}?{signer.sign(path)}").headers["Vary"] == "Accept"
    signature = UrlSigner((new,)).sign(f"{path}.webp")
    for other in (f"{path}.avif", path, path.replace("100", "101") + ".webp", "/api/images/x.jpg/w100.webp"):
        assert _outcome(client.get(f"{other}?{signature}")) == (403, "signature_refused")
    assert _outcome(make_client(signing_keys=(old,)).get(f"{path}.webp?{signature}"))[0] == 403
    moved = client.get(f"{path.replace('w100', 'W0100')}.webp?{signature}")
    assert (moved.status_code, moved.headers["Location"]) == (308, f"{path}.webp?{signature}")


def test_no_cache_keeps_a_variant_for_longer_than_its_signature(make_client: MakeClient) -> None:
    client = make_client(signing_keys=("a key of signatures",))
    path = f"/api/images/{_upload(client)}/w77.webp"
    signer = UrlSigner(("a key of signatures",))
    for _ in range(2):
        response = client.get(f"{path}?{signer.sign(path, int(time.time()) + 1000)}")
        _, _, seconds = response.headers["Cache-Control"].partition("public, max-age=")
        assert 900 < int(seconds) <= 1000
    assert client.get(f"{path}?{signer.sign(path)}").headers["Cache-Control"] == IMMUTABLE
    expired = signer.sign(path, int(time.time()) - 1)
    assert _outcome(client.get(f"{path}?{expired}")) == (403, "signature_refused")
    later = expired.replace("exp=", "exp=9")
    assert _outcome(client.get(f"{path}?{later}")) == (403, "signature_refused")


def test_variants_can_be_limited_to_presets_or_switched_off(make_client: MakeClient) -> None:
    url = f"/api/images/{_upload(make_client())}"
    presets = make_client(variants="presets")
    assert presets.get(f"{url}/thumb").status_code == 200
    assert _outcome(presets.get(f"{url}/w640.webp")) == (400, "variant_not_permitted")
    off = make_client(variants="off")
    signed = components_of(presets.application).variant_urls.url_of(url.removeprefix("/api/images/"), "w77")
    for path in (f"{url}/thumb", f"{url}/thumb.webp", f"{url}/w640.webp", signed):
        assert _outcome(off.get(path)) == (400, "variant_not_permitted")
    assert off.get(f"{url}?w=640&format=webp").data == PHOTO


def test_the_facts_about_an_image(client: FlaskClient, url: str) -> None:
    facts = json_of(client.get(f"{url}/info"))
    expected = {"width": 800, "height": 600, "frames": 1, "has_alpha": False, "bytes": len(PHOTO)}
    assert facts.items() >= expected.items()
    assert facts["content_type"] == "image/jpeg"
    assert json_of(client.get(f"{url}/info")) == facts
    assert _outcome(client.get("/api/images/missing.jpg/info")) == (404, "not_found")


@pytest.mark.parametrize("name", ["info", "w640.webp", "thumb"])
def test_the_path_of_a_variant_may_be_longer_than_a_key(client: FlaskClient, name: str) -> None:
    folders = "/".join(["a" * 200] * 5)
    key = f"{folders}/{'b' * (1024 - len(folders) - 5)}.jpg"
    assert len(key) == 1024
    assert _outcome(client.get(f"/api/images/{key}/{name}")) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["missing.jpg/w640.webp", "missing.jpg/thumb", "images/aa/" + "b" * 30 + ".jpg/w640"]
)
def test_a_missing_image_has_no_variants(client: FlaskClient, path: str) -> None:
    for accept in (CHROME, "*/*"):
        response = client.get(f"/api/images/{path}", headers={"Accept": accept})
        assert _outcome(response) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "{long}.jpg/w640.webp",
        "{long}/a.jpg/thumb",
        "a.jpg/{long}.webp",
        "{deep}a.jpg/w640.webp",
        "{deep}a.jpg/thumb",
        "../a.jpg/w640.webp",
        "a/../b.jpg/W640.webp",
        "a/../b.jpg?w=640",
        "/evil.example/a.jpg/W640.webp",
        "/evil.example/a.jpg?w=640",
        "a\\b.jpg/W640.webp",
        "a\r\nSet-Cookie: a=b.jpg/W640.webp",
        "a.jpg/",
        ".jpg/w640.webp",
    ],
)
def test_keys_that_are_no_keys_are_refused_and_leave_the_cache_healthy(
    client: FlaskClient, path: str
) -> None:
    raw, _, query = path.format(long="n" * 300, deep="d/" * 2200).partition("?")
    environ = {"PATH_INFO": f"/api/images/{raw}", "QUERY_STRING": query}
    for method in ("GET", "HEAD"):
        response = client.open("/", method=method, environ_overrides=environ)
        assert response.status_code in (400, 404)
        assert "Location" not in response.headers
    components = components_of(client.application)
    components.loop_hooks.find(environ["PATH_INFO"], lambda: CHROME)
    assert not components.cache._health.has_failed


def test_redirects_name_neither_another_host_nor_forget_the_mount_point(make_client: MakeClient) -> None:
    client = make_client(script_name="/pictures")
    key = _upload(client)
    response = client.get(f"/pictures/api/images/{key}/W640.webp", headers={"Host": "evil.example"})
    assert response.headers["Location"] == f"/pictures/api/images/{key}/w640.webp"
    assert client.get(response.headers["Location"]).status_code == 200
    assert (
        components_of(client.application).loop_hooks.find(response.headers["Location"], lambda: "")
        is not None
    )


def test_other_methods_do_not_touch_variants(client: FlaskClient, url: str) -> None:
    assert client.get(f"{url}/w640.webp").status_code == 200
    assert client.post(f"{url}/w640.webp").status_code == 405
    assert client.delete(f"{url}/w640.webp").status_code == 404
    assert client.get(f"{url}/w640.webp").headers["Cache-Status"] == HIT


def test_pages_of_listed_origins_may_read_variants(make_client: MakeClient) -> None:
    client = make_client(cors_origins=("https://app.example",))
    url = f"/api/images/{_upload(client)}"
    for path in ("w320", "w320", "W320", "w321"):
        response = client.get(f"{url}/{path}", headers={"Origin": "https://app.example", "Accept": CHROME})
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        vary = ", ".join(response.headers.getlist("Vary"))
        assert ("Origin" in vary, "Accept" in vary) == (True, path == "w320")


def test_a_variant_that_is_too_large_does_not_affect_the_others(make_client: MakeClient) -> None:
    client = make_client(variant_max_pixels=100_000)
    url = f"/api/images/{_upload(client)}"
    for _ in range(2):
        assert _outcome(client.get(f"{url}/w640.webp")) == (422, "too_many_pixels")
    assert client.get(f"{url}/w320.webp").status_code == 200


def test_an_animation_that_is_too_large_is_reduced_to_its_first_frame(make_client: MakeClient) -> None:
    client = make_client(variant_max_pixels=5000)
    url = f"/api/images/{_upload(client, animation(4, size=(40, 40)))}/w32"
    for accept in ("image/webp", "image/webp", "*/*"):
        response = client.get(url, headers={"Accept": accept})
        assert (response.status_code, response.headers.get("X-Image-Variant")) == (200, None)
    small = make_client(variant_max_pixels=2000)
    url = f"/api/images/{_upload(small, animation(5, size=(40, 40)))}/w32.webp"
    for status in ("s3-image-server; fwd=uri-miss; stored", HIT):
        response = small.get(url)
        assert (response.headers["X-Image-Variant"], response.headers["Cache-Status"]) == (
            "first-frame",
            status,
        )


def test_a_full_queue_refuses_variants_that_must_be_made_but_no_hits(
    client: FlaskClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for accept in (CHROME, "*/*"):
        assert client.get(f"{url}/w320", headers={"Accept": accept}).status_code == 200
    monkeypatch.setattr(variant_service, "_MAX_PRESENT", 0)
    for accept in (CHROME, "*/*"):
        assert client.get(f"{url}/w320", headers={"Accept": accept}).headers["Cache-Status"] == HIT
    response = client.get(f"{url}/w640.webp")
    assert _outcome(response) == (503, "busy")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("area", ["guarded", "variants", "derived"])
def test_cached_variants_can_not_be_requested_by_their_cache_keys(
    client: FlaskClient, make_client: MakeClient, area: str
) -> None:
    """Otherwise, signed variants could be read without their signature."""
    for name in ("", "me.png"):
        key = _upload(client, PHOTO, **({"name": name} if name else {}))
        signed = components_of(client.application).variant_urls.url_of(key, "w77,h50,cover", "webp")
        assert client.get(signed).status_code == 200
        assert client.get(f"/api/images/{key}/w32.webp").status_code == 200
        assert client.get(f"/api/images/{key}/info").status_code == 200
        for path in ("w77,h50,cover.webp", "w32.webp", "info.json", "info", "a%00b", "a" * 300):
            response = client.get(f"/api/images//{area}/{key}/{path}")
            assert _outcome(response) == (400, "invalid_key"), path
    assert components_of(client.application).cache.is_writable()


def test_the_first_frame_as_a_fallback_is_the_same_file_as_the_jpeg(client: FlaskClient, url: str) -> None:
    first = client.get(f"{url}/w32,still", headers={"Accept": "*/*"})
    second = client.get(f"{url}/w32.jpg")
    assert (first.status_code, first.content_type, first.headers["Vary"]) == (200, "image/jpeg", "Accept")
    assert (second.headers["Cache-Status"], second.data) == (HIT, first.data)
    assert client.get(f"{url}/w32,still.jpg").status_code == 308
