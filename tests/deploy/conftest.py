"""gunicorn behind nginx, and a second nginx over the same cache without a server behind it."""

from collections.abc import Iterator

import pytest

from tests.deploy.nginx import NGINX, nginx, send
from tests.deploy.site import Site, running_site
from tests.pictures import noise
from tests.ports import free_port
from tests.variant_requests import HITS


@pytest.fixture(scope="session", autouse=True)
def _requires_nginx() -> None:
    if NGINX is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """gunicorn behind nginx, with an API key and otherwise default settings. All tests share it."""
    with running_site(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("nginx")) as started:
        yield started


@pytest.fixture(scope="session")
def nginx_only(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an nginx over the cache of `site`; nothing listens behind it."""
    with nginx(tmp_path_factory.mktemp("nginx"), site.cache_dir, f"127.0.0.1:{free_port()}") as url:
        yield url


@pytest.fixture(scope="session")
def hit(site: Site) -> str:
    """The path of an immutable image in the cache of `site`, with all of `HITS` among its variants."""
    path = site.upload(noise(1))
    for name, accept in HITS:
        assert send(site.server.url, f"{path}/{name}", headers={"Accept": accept}).status == 200, name
    return path
