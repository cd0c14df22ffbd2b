"""Which requests for variants nginx answers itself, and that all get the responses that gunicorn sends."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.disk_cache import DiskCache
from app.core.variant_keys import INFO, VariantPath
from app.delivery.negotiation import preferred_format
from app.services.signing import UrlSigner
from app.services.urls import variant_url_path
from app.services.variant_rules import PRESET_EXTENSIONS, QUERY_NAMES
from tests.accept_headers import BROWSERS, FALLBACKS, QUALITIES
from tests.deploy.nginx import CONF, Answer, send
from tests.deploy.site import SIGNING_KEY, Site
from tests.pictures import noise
from tests.variant_requests import HITS, REFUSED

AVIF = "image/avif,*/*"
UNREACHABLE = 502  # of an nginx without gunicorn


def _cached(site: Site, path: str) -> Path:
    return site.cache_dir / "variants" / path.removeprefix("/api/images/")


def _both(site: Site, target: str, accept: str = AVIF, method: str = "GET") -> tuple[Answer, Answer]:
    """Return the responses of nginx with gunicorn behind it, and of gunicorn."""
    headers = {"Host": "127.0.0.1", "X-Request-ID": "a-1", "Accept": accept}
    nginx, gunicorn = (send(url, target, method, headers) for url in (site.url, site.server.url))
    return nginx, gunicorn


def _assert_same(site: Site, target: str, accept: str = AVIF, method: str = "GET") -> Answer:
    nginx, gunicorn = _both(site, target, accept, method)
    assert (nginx.status, nginx.body) == (gunicorn.status, gunicorn.body)
    assert nginx.differing(gunicorn) <= {"server", "date", "connection"}
    return nginx


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("name", "accept"), HITS)
def test_nginx_serves_cached_listed_variants(
    site: Site, hit: str, nginx_only: str, name: str, accept: str, method: str
) -> None:
    nginx = send(nginx_only, f"{hit}/{name}", method, {"Accept": accept})
    gunicorn = send(site.server.url, f"{hit}/{name}", method, {"Accept": accept})
    assert (nginx.status, nginx.body) == (200, gunicorn.body)
    assert nginx.differing(gunicorn) - {"date"} == {"server", "x-request-id"}
    assert nginx.headers.get("vary") == (None if "." in name else "Accept")


@pytest.mark.parametrize("accept", FALLBACKS.values(), ids=FALLBACKS)
def test_gunicorn_chooses_the_fallback(site: Site, hit: str, nginx_only: str, accept: str) -> None:
    answer = _assert_same(site, f"{hit}/w32", accept)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["vary"] == "Accept"
    assert send(nginx_only, f"{hit}/w32", headers={"Accept": accept}).status == UNREACHABLE


@pytest.mark.parametrize(("accept", "extension"), QUALITIES.values(), ids=QUALITIES)
def test_qualities_get_the_same_format_from_both(site: Site, hit: str, accept: str, extension: str) -> None:
    nginx, gunicorn = _both(site, f"{hit}/w32", accept)
    assert (nginx.status, nginx.body) == (gunicorn.status, gunicorn.body)
    assert nginx.differing(gunicorn) <= {"server", "date", "x-request-id"}  # nginx may serve it itself
    assert nginx.headers["content-type"] == f"image/{extension}"


def test_without_an_accept_header_gunicorn_chooses(site: Site, hit: str, nginx_only: str) -> None:
    assert send(site.url, f"{hit}/w32").headers["content-type"] == "image/jpeg"
    assert send(nginx_only, f"{hit}/w32").status == UNREACHABLE


def _format_by_nginx(accept: str) -> str | None:
    """Return the extension that the `map` of `$http_accept` chooses, or None if gunicorn chooses."""
    conf = CONF.read_text(encoding="utf-8")
    rules = re.findall(r'^    "~\*(.+)" \.(avif|webp);$', conf, re.MULTILINE)
    assert len(rules) == 2
    matching = (extension for rule, extension in rules if re.search(rule, accept, re.IGNORECASE | re.ASCII))
    return next(matching, None)


_ELEMENTS = st.sampled_from(
    ["image/avif", "image/webp", "Image/AVIF", "image/avifs", "image/*", "*/*", "image/jpeg", "a/b", ""]
)
_PARAMETERS = st.sampled_from(
    ["", ";q=0", "; q=0.5", ";q=1", ";a=b", ";a=", '="', ";q=0;q=1", "; =", ";a*=b"]
)
_HEADERS = st.lists(st.builds("{}{}".format, _ELEMENTS, _PARAMETERS), max_size=6).flatmap(
    lambda parts: st.sampled_from([",", ", ", " ,"]).map(lambda comma: comma.join(parts))
)


@pytest.mark.fuzz
@given(_HEADERS | st.text('image/avifwebp,;q=0.1 *"\\', max_size=40))
def test_if_nginx_chooses_a_format_gunicorn_chooses_the_same(accept: str) -> None:
    assert _format_by_nginx(accept) in (None, preferred_format(accept))


def test_nginx_judges_the_headers_of_browsers() -> None:
    assert [_format_by_nginx(accept) for accept, _ in BROWSERS.values()] == [
        extension for _, extension in BROWSERS.values()
    ]


@pytest.mark.parametrize(("name", "status"), REFUSED)
def test_nginx_passes_on_what_is_not_the_canonical_url_of_a_listed_variant(
    site: Site, hit: str, nginx_only: str, name: str, status: int
) -> None:
    if "%00" in name:  # which nginx refuses itself
        assert {answer.status for answer in _both(site, f"{hit}/{name}")} == {status}
    else:
        assert _assert_same(site, f"{hit}/{name}").status == status
        assert send(nginx_only, f"{hit}/{name}", headers={"Accept": AVIF}).status == UNREACHABLE


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS"])
def test_nginx_passes_on_other_methods(site: Site, hit: str, nginx_only: str, method: str) -> None:
    assert send(nginx_only, f"{hit}/w32.webp", method).status == UNREACHABLE
    _assert_same(site, f"{hit}/w32.webp", method=method)


def test_the_facts_about_an_image_come_from_gunicorn(site: Site, hit: str, nginx_only: str) -> None:
    """They are cached next to the variants."""
    assert _assert_same(site, f"{hit}/info").headers["content-type"] == "application/json"
    file = _cached(site, f"{hit}/{INFO}.json")
    file.touch()  # in case that the facts are not cached, since they are metadata of the object
    try:
        for name in ("info", "info.json", "info.json?v=2", "%69nfo.json"):
            assert send(nginx_only, f"{hit}/{name}", headers={"Accept": AVIF}).status == UNREACHABLE
    finally:
        file.unlink()
    assert _assert_same(site, f"{hit}/info.json").status == 400


def test_signed_variants_come_from_gunicorn(site: Site, hit: str, nginx_only: str) -> None:
    path = variant_url_path(VariantPath(hit.removeprefix("/api/images/"), "w20,h20,cover", "webp"))
    url = f"{path}?{UrlSigner([SIGNING_KEY]).sign(path)}"
    for _ in range(2):
        answer = send(site.url, url)
        assert answer.status == 200
    assert _assert_same(site, url).headers["cache-status"] == "s3-image-server; hit"
    assert _assert_same(site, path).status == 400
    assert _assert_same(site, f"{path}?sig={'A' * 43}").status == 403
    assert (site.cache_dir / "guarded" / path.removeprefix("/api/images/")).exists()
    for target in (url, path, path.replace("/api/images/", "/api/images/../guarded/")):
        assert send(nginx_only, target).status == UNREACHABLE
    assert not _cached(site, path).exists()


@pytest.mark.parametrize("query", [*(f"{name}=1" for name in sorted(QUERY_NAMES)), "v=2&w=32", "w", "%77=32"])
def test_a_query_for_a_variant_goes_to_gunicorn(site: Site, hit: str, nginx_only: str, query: str) -> None:
    assert send(nginx_only, f"{hit}?{query}").status == UNREACHABLE
    assert _assert_same(site, f"{hit}?{query}").status in (308, 400)


@pytest.mark.parametrize("query", ["v=2", "", "width=32&sw=1", "a=?w=1", "a=%26w%3D1", "v"])
def test_nginx_ignores_other_queries(hit: str, nginx_only: str, query: str) -> None:
    assert send(nginx_only, f"{hit}?{query}").body == noise(1)
    assert send(nginx_only, f"{hit}/w32.webp?{query}&w=48").headers["content-type"] == "image/webp"


def test_nginx_conf_names_the_extensions_of_variants() -> None:
    conf = CONF.read_text(encoding="utf-8")
    assert rf"\.(?:{'|'.join(PRESET_EXTENSIONS)}))(?:\?|$)\" variants/".replace('\\"', '"') in conf


@pytest.mark.parametrize(
    "target", ["images/ab/{0}.avif?w=32", "images/ab/{0}", "images/ab/{0}.avif", "images/ab"]
)
def test_nginx_never_redirects_to_a_directory(site: Site, nginx_only: str, target: str) -> None:
    """The variants of an image are in a directory whose name is the key of the image."""
    file = _cached(site, f"images/ab/{'c' * 30}.avif/thumb.webp")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    try:
        path = f"/api/images/{target.format('c' * 30)}"
        assert send(nginx_only, path, headers={"Accept": AVIF}).status == UNREACHABLE
    finally:
        file.unlink()
        file.parent.rmdir()


TRICKS = [
    "HIT/../HIT/w32.webp",
    "HIT/./w32.webp",
    "HIT//w32.webp",
    "HIT/%2e/w32.webp",
    "HIT%2fw32.webp",
    "HIT/w32%2ewebp",
    "HIT/w32%2Cstill.png",
    "HIT/w32.webp/",
    "HIT/w32.webp/.",
    "HIT/w32.webp/x",
    "HIT/w32.webp/w32.webp",
    "HIT/w32.webp;a",
    "HIT/w32/",
    "HIT/..%2fw32.webp",
    "HIT/..%5cw32.webp",
    "HIT/x/../w32.webp",
    "%69mages/../HIT/w32.webp",
    "../variants/HIT/w32.webp",
    "variants/HIT/w32.webp",
    "/variants/HIT/w32.webp",
    "HIT/../../../guarded/HIT/w32.webp",
    "HIT/../../../../index.sqlite3",
    "HIT/../../../../index.sqlite3/thumb.webp",
]


@pytest.mark.parametrize("target", TRICKS)
def test_only_the_canonical_spelling_of_a_path_reaches_a_file(
    site: Site, hit: str, nginx_only: str, target: str
) -> None:
    path = f"/api/images/{target.replace('HIT', hit.removeprefix('/api/images/'))}"
    nginx, gunicorn = _both(site, path)
    assert (nginx.status, nginx.body) == (gunicorn.status, gunicorn.body)
    assert send(nginx_only, path, headers={"Accept": AVIF}).status == UNREACHABLE


def test_a_miss_is_made_by_gunicorn_and_then_served_by_nginx(site: Site, nginx_only: str) -> None:
    path = site.upload(noise(30))
    for name in ("w48.webp", "w48"):
        assert send(nginx_only, f"{path}/{name}", headers={"Accept": AVIF}).status == UNREACHABLE
        first = send(site.url, f"{path}/{name}", headers={"Accept": AVIF})
        assert first.headers["cache-status"] == "s3-image-server; fwd=uri-miss; stored"
        again = send(nginx_only, f"{path}/{name}", headers={"Accept": AVIF})
        assert again.headers["cache-status"] == "s3-image-server; hit"
        assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])


def test_variants_of_a_deleted_image_are_a_404_at_once(site: Site, nginx_only: str) -> None:
    path = site.upload(noise(31))
    names = ("w32.webp", "w32", "thumb.avif")
    for name in names:
        assert send(site.url, f"{path}/{name}", headers={"Accept": AVIF}).status == 200
        assert send(nginx_only, f"{path}/{name}", headers={"Accept": AVIF}).status == 200
    assert site.delete(path).status == 200
    for name in names:
        assert _assert_same(site, f"{path}/{name}").status == 404
        assert send(nginx_only, f"{path}/{name}", headers={"Accept": AVIF}).status == UNREACHABLE


def test_variants_of_a_purged_image_are_made_again(site: Site, nginx_only: str) -> None:
    path = site.upload(noise(32))
    target = f"{path}/w32.webp"
    assert [send(url, target).status for url in (site.url, nginx_only)] == [200, 200]
    cache = DiskCache(site.cache_dir, 1 << 30)
    try:
        assert cache.forget(path.removeprefix("/api/images/"))
    finally:
        cache.close()
    assert send(nginx_only, target).status == UNREACHABLE
    made_again = send(site.url, target)
    assert made_again.status == 200, made_again
    assert made_again.headers["cache-status"] == "s3-image-server; fwd=uri-miss; stored"


def test_nginx_never_serves_variants_of_mutable_images(site: Site, nginx_only: str) -> None:
    fields = {"folder": "users/9", "name": "me.png"}
    path = site.upload(noise(33), **fields)
    targets = [f"{path}/{name}" for name in ("w32.webp", "w32", "thumb.avif")]
    before = [send(site.url, target, headers={"Accept": AVIF}) for target in targets]
    for target, answer in zip(targets, before, strict=True):
        assert answer.headers["cache-control"] == "public, no-cache"
        assert _assert_same(site, target).headers["cache-status"] == "s3-image-server; hit"
        assert send(nginx_only, target, headers={"Accept": AVIF}).status == UNREACHABLE
    site.upload(noise(34), overwrite="true", **fields)
    for target, old in zip(targets, before, strict=True):
        new = send(site.url, target, headers={"Accept": AVIF})
        assert (new.status, new.headers["cache-status"]) == (200, "s3-image-server; fwd=uri-miss; stored")
        assert new.body != old.body
    assert site.delete(path).status == 200
    assert {send(site.url, target, headers={"Accept": AVIF}).status for target in targets} == {404}
