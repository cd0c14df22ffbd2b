"""nginx and gunicorn send the same responses for cached images and their variants."""

from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import pytest

from app.core.objects import CONTENT_TYPES
from tests.accept_headers import BROWSERS
from tests.deploy.nginx import Answer, send
from tests.deploy.site import Site

_CHROME = BROWSERS["Chrome, Edge"][0]

_DIFFERENCES: dict[int, set[str]] = {
    200: {"server", "date"},
    # nginx sends Accept-Ranges only with a 200, and Last-Modified with a 304 too; RFC 9110 permits both.
    206: {"server", "date", "accept-ranges"},
    304: {"server", "date", "accept-ranges", "last-modified"},
}
"""All headers in which responses of nginx differ from those of gunicorn, by status."""

_BY_NGINX: list[tuple[str, dict[str, str], int]] = [
    ("GET", {}, 200),
    ("HEAD", {}, 200),
    ("GET", {"If-None-Match": "ETAG"}, 304),
    ("HEAD", {"If-None-Match": "ETAG"}, 304),
    ("GET", {"If-None-Match": "W/ETAG"}, 304),
    ("GET", {"If-None-Match": '"one", W/"two", ETAG'}, 304),
    ("GET", {"If-None-Match": "*"}, 304),
    ("GET", {"If-None-Match": '"other"'}, 200),
    ("GET", {"If-Modified-Since": "MODIFIED"}, 304),
    ("GET", {"If-Modified-Since": "LATER"}, 304),
    ("GET", {"If-Modified-Since": "EARLIER"}, 200),
    ("GET", {"If-Modified-Since": "yesterday"}, 200),
    ("GET", {"If-None-Match": "ETAG", "If-Modified-Since": "MODIFIED"}, 304),
    ("GET", {"If-None-Match": '"other"', "If-Modified-Since": "MODIFIED"}, 200),
    ("GET", {"Range": "bytes=0-0"}, 206),
    ("GET", {"Range": "bytes=0-99"}, 206),
    ("GET", {"Range": "bytes=0-"}, 206),
    ("GET", {"Range": "bytes=0-999999999"}, 206),
    ("GET", {"Range": "bytes=-1"}, 206),
    ("GET", {"Range": "bytes=-999999999"}, 206),
    ("GET", {"Range": "bytes=0-99", "If-Range": "ETAG"}, 206),
    ("GET", {"Range": "bytes=0-99", "If-Range": "MODIFIED"}, 206),
    ("GET", {"Range": "bytes=0-99", "If-Range": "W/ETAG"}, 200),
    ("GET", {"Range": "bytes=0-99", "If-Range": '"other"'}, 200),
    ("GET", {"Range": "bytes=0-99", "If-Range": "EARLIER"}, 200),
    ("GET", {"Range": "bytes=0-99", "If-None-Match": "ETAG"}, 304),
    ("GET", {"If-Range": "ETAG"}, 200),
]
"""Method, headers and status of requests that nginx answers from the cache."""

_BY_GUNICORN: list[tuple[str, dict[str, str], int]] = [
    ("HEAD", {"Range": "bytes=0-99"}, 200),
    ("GET", {"Range": "bytes=100-"}, 206),
    ("GET", {"Range": "bytes=100-199", "If-Range": "ETAG"}, 206),
    ("GET", {"Range": "bytes=999999999-"}, 416),
    ("GET", {"Range": "bytes=-0"}, 416),
    ("GET", {"Range": "bytes=0-9,20-29"}, 200),
    ("GET", {"Range": "bytes=9-0"}, 200),
    ("GET", {"Range": "bytes=first"}, 200),
    ("GET", {"Range": "lines=0-9"}, 200),
    ("GET", {"If-Match": "ETAG"}, 200),
    ("GET", {"If-Match": '"other"'}, 412),
    ("GET", {"If-Unmodified-Since": "MODIFIED"}, 200),
    ("GET", {"If-Unmodified-Since": "EARLIER"}, 412),
]
"""The same of requests that nginx passes on although the image is in the cache: its answer would differ."""


def _with_validators(headers: dict[str, str], image: Answer) -> dict[str, str]:
    """Return `headers` with the validators of `image` in place of the words ETAG, MODIFIED and so on."""
    modified = image.headers["last-modified"]
    seconds = parsedate_to_datetime(modified).timestamp()
    words = {
        "ETAG": image.headers["etag"],
        "MODIFIED": modified,
        "EARLIER": formatdate(seconds - 60, usegmt=True),
        "LATER": formatdate(seconds + 60, usegmt=True),
    }
    for word, value in words.items():
        headers = {name: text.replace(word, value) for name, text in headers.items()}
    return headers


def _both(
    site: Site, path: str, nginx_url: str, method: str, headers: dict[str, str]
) -> tuple[Answer, Answer, set[str]]:
    """Return the responses of nginx and of gunicorn, and the names of headers in which they differ."""
    headers = {"X-Request-ID": "a-1", "Accept": _CHROME} | headers
    headers = _with_validators(headers, send(site.server.url, path, headers={"Accept": _CHROME}))
    nginx, gunicorn = (send(url, path, method, headers) for url in (nginx_url, site.server.url))
    return nginx, gunicorn, nginx.differing(gunicorn)


_IMAGES = pytest.mark.parametrize("name", ["", "/w32.webp", "/w32"], ids=["image", "variant", "negotiated"])


@_IMAGES
@pytest.mark.parametrize(("method", "headers", "status"), _BY_NGINX)
def test_nginx_answers_as_gunicorn_does(
    site: Site, hit: str, nginx_only: str, name: str, method: str, headers: dict[str, str], status: int
) -> None:
    nginx, gunicorn, differing = _both(site, hit + name, nginx_only, method, headers)
    assert (nginx.status, nginx.body) == (gunicorn.status, gunicorn.body)
    assert nginx.status == status
    assert "x-request-id" not in nginx.headers  # assigning one would make nginx slower
    assert differing - {"x-request-id"} | {"date"} == _DIFFERENCES[status]


@_IMAGES
@pytest.mark.parametrize(("method", "headers", "status"), _BY_GUNICORN)
def test_nginx_passes_on_requests_that_it_would_answer_differently(
    site: Site, hit: str, name: str, method: str, headers: dict[str, str], status: int
) -> None:
    nginx, gunicorn, differing = _both(site, hit + name, site.url, method, headers)
    assert (nginx.status, nginx.body) == (gunicorn.status, gunicorn.body)
    assert nginx.status == status
    assert differing | {"date"} == {"server", "date"}


def test_nginx_sends_the_whole_image_for_a_matching_tag_and_an_older_date(
    site: Site, hit: str, nginx_only: str
) -> None:
    """gunicorn ignores the date (RFC 9110, 13.1.3), nginx does not, and sends the whole image."""
    headers = {"If-None-Match": "ETAG", "If-Modified-Since": "EARLIER"}
    nginx, gunicorn, _ = _both(site, hit, nginx_only, "GET", headers)
    assert (nginx.status, gunicorn.status) == (200, 304)


@pytest.mark.parametrize("extension", CONTENT_TYPES)
def test_nginx_knows_the_content_type_of_every_extension(site: Site, nginx_only: str, extension: str) -> None:
    key = f"generated/2026/01/20260131_120000_{0:024x}.{extension}"
    file = Path(site.cache_dir, "objects", key)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"bytes")
    try:
        answer = send(nginx_only, f"/api/images/{key}")
    finally:
        file.unlink()
    assert (answer.status, answer.body) == (200, b"bytes")
    assert answer.headers["content-type"] == CONTENT_TYPES[extension]
