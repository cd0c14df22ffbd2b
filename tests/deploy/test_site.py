"""gunicorn behind nginx: which of them answers what, errors if one can't, and the values in nginx.conf."""

import json
import os
import re
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from app.api.images import MULTIPART_OVERHEAD_BYTES
from app.api.openai_schemas import MAX_IMAGES
from app.config.settings import Config
from tests.deploy.nginx import CONF, Answer, nginx, send
from tests.deploy.site import KEY, Site, running_site
from tests.pictures import noise
from tests.server.running import running

HIT = "s3-image-server; hit"
README = CONF.with_name("README.md")


def _error(answer: Answer) -> tuple[int, str]:
    """Return the status and code of an error, which must have the shape of all errors."""
    body = json.loads(answer.body)
    assert body.keys() == {"success", "message", "code"}
    assert (body["success"], answer.headers["content-type"]) == (False, "application/json")
    return answer.status, body["code"]


def _cached(site: Site, path: str) -> Path:
    return site.cache_dir / "objects" / path.removeprefix("/api/images/")


def test_nginx_serves_cached_images_while_gunicorn_is_down(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Images that were uploaded or fetched are still served; those that only gunicorn serves are a 502."""
    with running_site(tmp_path, tmp_path_factory.mktemp("nginx")) as site:
        uploaded, fetched, mutable = (
            site.upload(noise(1)),
            site.upload(noise(2)),
            site.upload(noise(3), name="me.png"),
        )
        _cached(site, fetched).unlink()
        assert send(site.url, fetched).headers["cache-status"] == "s3-image-server; fwd=uri-miss; stored"
        assert send(site.url, mutable).body == noise(3)
        site.server.process.terminate()
        site.server.process.wait(60)
        for path, data in ((uploaded, noise(1)), (fetched, noise(2))):
            answer = send(site.url, path)
            assert (answer.status, answer.body, answer.headers["cache-status"]) == (200, data, HIT)
        assert _error(send(site.url, mutable)) == (502, "server_unreachable")


def test_after_a_miss_nginx_serves_the_image(site: Site, nginx_only: str) -> None:
    path = site.upload(noise(4))
    _cached(site, path).unlink()
    assert _error(send(nginx_only, path)) == (502, "server_unreachable")
    assert send(site.url, path).body == noise(4)
    assert send(nginx_only, path).body == noise(4)


def test_nginx_never_serves_mutable_images(site: Site, nginx_only: str) -> None:
    path = site.upload(noise(5), folder="users/1", name="me.png")
    assert send(site.url, path).headers["cache-control"] == "public, no-cache"
    assert _error(send(nginx_only, path)) == (502, "server_unreachable")


def test_a_deleted_image_is_a_404_at_once(site: Site) -> None:
    path = site.upload(noise(6))
    assert send(site.url, path).status == 200
    assert site.delete(path).status == 200
    assert _error(send(site.url, path)) == (404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nginx_passes_on_other_methods(site: Site, hit: str, nginx_only: str, method: str) -> None:
    assert _error(send(nginx_only, hit, method)) == (502, "server_unreachable")
    assert send(site.url, hit, method).status == send(site.server.url, hit, method).status


@pytest.mark.parametrize("query", ["?v=2", "?", "?a=b/c.png&d=../e"])
def test_nginx_ignores_queries(hit: str, nginx_only: str, query: str) -> None:
    assert send(nginx_only, hit + query).body == noise(1)


def test_writing_through_nginx_needs_a_key(site: Site) -> None:
    answer = send(site.url, "/api/images", "POST", {"Content-Type": "image/png"}, noise(7))
    assert _error(answer) == (401, "key_required")


def test_without_keys_no_client_can_write_through_nginx(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """nginx is a local program for gunicorn, but it adds the headers of a proxy."""
    with running_site(tmp_path, tmp_path_factory.mktemp("nginx"), API_KEYS="") as site:
        sent = ("/api/images", "POST", {"Content-Type": "image/png"}, noise(7))
        assert send(site.server.url, *sent).status == 201
        assert _error(send(site.url, *sent)) == (401, "key_required")


def test_nginx_sends_the_clients_address_and_reuses_connections(tmp_path: Path) -> None:
    with socket.socket() as upstream, ThreadPoolExecutor(1) as pool:
        upstream.bind(("127.0.0.1", 0))
        upstream.listen()
        port = upstream.getsockname()[1]
        upstream.settimeout(60)
        received = pool.submit(_answer_two_requests, upstream)
        with nginx(tmp_path, tmp_path, f"127.0.0.1:{port}") as url:  # which sends the first request
            sent = {"Host": "images.example.org:81", "X-Request-ID": "a-1", "X-Forwarded-Prefix": "/evil"}
            assert send(url, "/a", headers=sent).status == 204
        assert received.result(60).splitlines() == [
            "GET /a HTTP/1.1",
            "Host: images.example.org:81",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: images.example.org:81",
            "X-Request-ID: a-1",
            "",
        ]


def _answer_two_requests(upstream: socket.socket) -> str:
    """Answer two requests on one connection; return the second."""
    connection, _ = upstream.accept()
    with connection:
        connection.settimeout(60)
        for _ in range(2):
            request = connection.recv(65536).decode()
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    return request


def test_image_urls_name_nginx(site: Site) -> None:
    response = requests.post(
        f"{site.url}/api/images",
        data=noise(8),
        headers={"X-API-Key": KEY, "Content-Type": "image/png"},
        timeout=60,
    )
    assert response.json()["image_url"].startswith(f"{site.url}/api/images/")
    assert response.headers["Location"] == response.json()["image_url"]


def test_nginx_serves_hits_below_a_path_prefix(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As in deploy/README.md: nginx serves hits, and every URL has the prefix."""
    key = {"X-API-Key": KEY, "Content-Type": "image/png"}
    settings = {"SCRIPT_NAME": "/img", "TRUSTED_PROXIES": "1", "API_KEYS": KEY, "WEB_CONCURRENCY": "1"}
    nginx_directory = tmp_path_factory.mktemp("nginx")
    with running(tmp_path, **settings) as server:
        upstream = server.url.removeprefix("http://")
        with nginx(nginx_directory, tmp_path / "cache", upstream, prefix="/img") as url:
            stored = requests.post(f"{url}/img/api/images", data=noise(20), headers=key, timeout=60)
            assert stored.status_code == 201, stored.text
            image_url = stored.json()["image_url"]
            assert image_url == stored.headers["Location"] == f"{url}/img/api/images/{stored.json()['key']}"
            named = requests.post(f"{url}/img/api/images?name=me", data=noise(21), headers=key, timeout=60)
            assert requests.get(named.json()["image_url"], timeout=60).content == noise(21)
            assert send(url, "/img/healthz").status == 200
            server.process.terminate()
            server.process.wait(60)
            hit = requests.get(image_url, timeout=60)
            assert (hit.status_code, hit.content, hit.headers["Cache-Status"]) == (200, noise(20), HIT)


@pytest.mark.parametrize("path", ["/api/images", "/api/images/a/b.png"])
@pytest.mark.parametrize("way", ["length", "chunked"])
def test_a_body_over_the_limit_is_refused_by_nginx(nginx_only: str, path: str, way: str) -> None:
    body = bytes(12 * 1024 * 1024)
    response = requests.post(
        f"{nginx_only}{path}", data=body if way == "length" else iter([body]), timeout=60, stream=True
    )
    assert response.headers["Server"] == "nginx"
    answer = Answer(
        response.status_code, {"content-type": response.headers["Content-Type"]}, response.content
    )
    assert _error(answer) == (413, "too_large")


def test_limits_in_nginx_conf_match_the_default_settings() -> None:
    conf, settings = CONF.read_text(encoding="utf-8"), Config()
    (mebibytes,) = re.findall(r"client_max_body_size (\d+)m;", conf)
    assert 1 << 20 > int(mebibytes) * (1 << 20) - settings.max_upload_bytes - MULTIPART_OVERHEAD_BYTES > 0
    (seconds,) = re.findall(r"^    proxy_read_timeout (\d+)s;", conf, re.MULTILINE)
    assert int(seconds) == MAX_IMAGES * (settings.generator_timeout + 30)
    assert "n × (GENERATOR_TIMEOUT + 30 s)" in conf
    assert "n × (`GENERATOR_TIMEOUT` + 30)" in README.read_text(encoding="utf-8")


def test_nginx_conf_and_its_readme_count_the_marked_values_alike() -> None:
    conf = CONF.read_text(encoding="utf-8")
    assert re.findall(r"<- (\d)\.", conf) == ["1", "2", "3", "4"]
    assert "replace the four values marked" in conf
    assert "replace the four values marked `<-`" in README.read_text(encoding="utf-8")


def test_a_timeout_of_gunicorn_is_a_504(tmp_path: Path, site: Site, hit: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        upstream = f"127.0.0.1:{silent.getsockname()[1]}"
        with nginx(tmp_path, site.cache_dir, upstream, proxy_read_timeout="1s") as url:
            assert _error(send(url, "/api/images/a/b.png")) == (504, "server_unreachable")
            assert send(url, hit).status == 200


def test_gunicorn_serves_images_that_nginx_cannot_open(site: Site, nginx_only: str) -> None:
    path = site.upload(noise(9))
    file = _cached(site, path)
    file.unlink()
    os.mknod(file, 0o600 | stat.S_IFSOCK)
    try:
        assert send(site.url, path).body == noise(9)
        assert _error(send(nginx_only, path)) == (502, "server_unreachable")
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/api/images/../secret.png", (400, "invalid_key")),
        ("/api/images/../../index.sqlite3", (400, "invalid_key")),
        ("/api/images/a/../../../secret.png", (400, "invalid_key")),
        ("/api/images/%2e%2e/secret.png", (400, "invalid_key")),
        ("/api/images/..%2fsecret.png", (400, "invalid_key")),
        ("/api/images/a/..%2f..%2f..%2fsecret.png", (400, "invalid_key")),
        ("/api/images/%252e%252e/secret.png", (404, "not_found")),
        ("/api/images//secret.png", (400, "invalid_key")),
        ("/api/images/./secret.png", (400, "invalid_key")),
        ("/api/images/a\\..\\secret.png", (400, "invalid_key")),
        ("/api/images/a/secret.png%00", (400, "bad_request")),
        ("/api/images/a/%zz.png", (400, "bad_request")),
        ("/../../../secret.png", (400, "bad_request")),
        ("/api/images/../../../../secret.png", (400, "bad_request")),
        ("/objects/HIT", (404, "not_found")),
        ("/HIT", (404, "not_found")),
        ("/api/images/a/../HIT", (400, "invalid_key")),
        ("/api/images/./HIT", (400, "invalid_key")),
        ("/api/images//HIT", (400, "invalid_key")),
        ("/api/x/../images/HIT", (404, "not_found")),
        ("/api/images/HIT/", (400, "invalid_key")),
        ("/api/images/HIT/x.png", (400, "invalid_variant")),
        ("/s3-image-server-error", (404, "not_found")),
        ("/" + "x" * 40_000, (414, "uri_too_long")),
    ],
)
def test_no_spelling_of_a_path_reaches_another_file(
    site: Site, hit: str, target: str, expected: tuple[int, str]
) -> None:
    (site.cache_dir / "secret.png").write_bytes(b"secret")
    answer = send(site.url, target.replace("HIT", hit.removeprefix("/api/images/")))
    assert _error(answer) == expected


def test_gunicorn_decodes_percent_encoded_keys(site: Site, hit: str, nginx_only: str) -> None:
    escaped = hit.replace("/images/images/", "/images/%69mages/")
    assert send(site.url, escaped).body == noise(1)
    assert send(nginx_only, escaped).status == 502
