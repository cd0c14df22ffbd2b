"""gunicorn with an API key behind nginx."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.deploy.nginx import Answer, nginx, send
from tests.server.running import Running, running

KEY = "a-key-for-tests"
SIGNING_KEY = "a-signing-key-for-tests"


@dataclass
class Site:
    """nginx at `url`, `server` behind it, and the cache that both read."""

    url: str
    server: Running
    cache_dir: Path

    def upload(self, data: bytes, **fields: str) -> str:
        """Upload an image through nginx; return its path, the same on both servers."""
        response = requests.post(
            f"{self.url}/api/images",
            files={"image": ("photo.png", data)},
            data=fields,
            headers={"X-API-Key": KEY},
            timeout=60,
        )
        assert response.status_code == 201, response.text
        return f"/api/images/{response.json()['key']}"

    def delete(self, path: str) -> Answer:
        """Delete an image through nginx."""
        return send(self.url, path, "DELETE", {"X-API-Key": KEY})


@contextmanager
def running_site(data: Path, nginx_directory: Path, **settings: str) -> Iterator[Site]:
    """Run both servers, with their files in these directories."""
    defaults = {"API_KEYS": KEY, "SIGNING_KEYS": SIGNING_KEY, "WEB_CONCURRENCY": "1"}
    with (
        running(data, **{**defaults, **settings}) as server,
        nginx(nginx_directory, data / "cache", server.url.removeprefix("http://")) as url,
    ):
        yield Site(url, server, data / "cache")
