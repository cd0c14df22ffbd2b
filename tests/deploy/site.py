"""gunicorn with API keys behind nginx."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.deploy.fronted import Answer, ask, fronted
from tests.server.running import Running, running

KEY = "a-key-for-tests"


@dataclass
class Site:
    """nginx at `url`, gunicorn behind it, their cache."""

    url: str
    server: Running
    cache_dir: Path

    def upload(self, data: bytes, **fields: str) -> str:
        """Store an image by way of nginx: its path on either server."""
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
        """Delete an image by way of nginx."""
        return ask(self.url, path, "DELETE", {"X-API-Key": KEY})


@contextmanager
def site_in(data: Path, nginx: Path, **settings: str) -> Iterator[Site]:
    """Both servers with their files in these directories."""
    with (
        running(data, **{"API_KEYS": KEY, "WEB_CONCURRENCY": "1", **settings}) as server,
        fronted(nginx, data / "cache", server.url.removeprefix("http://")) as url,
    ):
        yield Site(url, server, data / "cache")
