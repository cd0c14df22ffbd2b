"""A gunicorn with API keys, nginx before it, and the same nginx with nobody behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.fronted import NGINX, fronted
from tests.deploy.site import Site, site_in
from tests.pictures import noise
from tests.ports import free_port


@pytest.fixture(scope="session", autouse=True)
def _nginx() -> None:
    if NGINX is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """gunicorn behind nginx, with the default settings but an API key."""
    with site_in(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("nginx")) as started:
        yield started


@pytest.fixture
def alone(site: Site, tmp_path: Path) -> Iterator[str]:
    """nginx over the cache of `site`, with no gunicorn behind it."""
    with fronted(tmp_path, site.cache_dir, f"127.0.0.1:{free_port()}") as url:
        yield url


@pytest.fixture(scope="module")
def hit(site: Site) -> str:
    """The path of an immutable image that lies in the cache."""
    return site.upload(noise(1))
