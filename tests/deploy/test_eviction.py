"""Images that nginx serves count as used: the kernel updates the access times of the files that it sends."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.nginx import nginx, send
from tests.deploy.site import Site, running_site
from tests.pictures import noise
from tests.ports import free_port

_SIZE = (256, 256)
_MAX_UPLOADS = 60


@pytest.fixture
def small_site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose cache has room for about a dozen of the images used here."""
    if os.statvfs(tmp_path).f_flag & os.ST_NOATIME:
        pytest.skip(f"{tmp_path} is mounted noatime: the kernel keeps no access times there")
    with running_site(tmp_path, tmp_path_factory.mktemp("nginx"), CACHE_MAX_BYTES="3MiB") as started:
        yield started


def _is_cached(site: Site, path: str) -> bool:
    key = path.removeprefix("/api/images/")
    return any((site.cache_dir / area / key).is_file() for area in ("objects", "variants"))


def _fill_until_gone(site: Site, first: int, paths: list[str]) -> list[str]:
    """Upload images, numbered from `first`, until none of `paths` is cached; return the new paths."""
    new: list[str] = []
    while any(_is_cached(site, path) for path in paths):
        assert len(new) < _MAX_UPLOADS, "nothing is evicted"
        new.append(site.upload(noise(first + len(new), _SIZE)))
    return new


def _read(paths: list[str], url: str) -> None:
    assert [send(url, path).status for path in paths] == [200] * len(paths)


def test_images_that_nginx_serves_outlive_unused_ones(
    small_site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Check it twice: the kernel updates an access time only if it is not later than the change time.

    That is so for a new file, and again after an eviction recorded a use, which updates the change time. No
    server is behind the nginx that reads, so that no other access is counted.
    """
    with nginx(
        tmp_path_factory.mktemp("nginx"), small_site.cache_dir, f"127.0.0.1:{free_port()}"
    ) as nginx_only:
        old = [small_site.upload(noise(number, _SIZE)) for number in range(8)]
        used, unused = old[:3], old[3:]
        _read(used, nginx_only)
        second = _fill_until_gone(small_site, 100, unused)
        _read(used, nginx_only)
        _fill_until_gone(small_site, 200, second)
        _read(used, nginx_only)


def test_variants_that_nginx_serves_outlive_unused_ones_and_their_own_source(
    small_site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with nginx(
        tmp_path_factory.mktemp("nginx"), small_site.cache_dir, f"127.0.0.1:{free_port()}"
    ) as nginx_only:
        sources = [small_site.upload(noise(number, _SIZE)) for number in range(4)]
        variants = [f"{path}/w192.png" for path in sources]
        _read(variants, small_site.url)
        used, unused = variants[:2], variants[2:]
        for number in range(50, 53):  # older than the next read, since an upload may evict several files
            small_site.upload(noise(number, _SIZE))
        _read(used, nginx_only)
        _fill_until_gone(small_site, 100, [*sources, *unused])
        _read(used, nginx_only)


def test_unused_images_are_evicted_in_the_order_of_their_age(small_site: Site) -> None:
    """Otherwise the test above could not fail."""
    old = [small_site.upload(noise(number, _SIZE)) for number in range(8)]
    _fill_until_gone(small_site, 100, old[:3])
    assert _is_cached(small_site, old[-1])
