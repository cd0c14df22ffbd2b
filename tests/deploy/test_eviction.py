"""What nginx serves counts as used: the kernel moves the access time of the files that it sends."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.fronted import ask, fronted
from tests.deploy.site import Site, site_in
from tests.pictures import noise
from tests.ports import free_port

_SIZE = (256, 256)
_MOST = 60


@pytest.fixture
def small(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose cache has room for some dozen of the images used here."""
    if os.statvfs(tmp_path).f_flag & os.ST_NOATIME:
        pytest.skip(f"{tmp_path} is mounted noatime: the kernel keeps no access times there")
    with site_in(tmp_path, tmp_path_factory.mktemp("nginx"), CACHE_MAX_BYTES="3MiB") as started:
        yield started


def _is_cached(site: Site, path: str) -> bool:
    return (site.cache_dir / "objects" / path.removeprefix("/api/images/")).exists()


def _fill_until_gone(site: Site, first: int, paths: list[str]) -> list[str]:
    """Upload images, counting from `first`, until none of `paths` is cached; the new images' paths."""
    new: list[str] = []
    while any(_is_cached(site, path) for path in paths):
        assert len(new) < _MOST, "they stay for ever"
        new.append(site.upload(noise(first + len(new), _SIZE)))
    return new


def _read(paths: list[str], front: str) -> None:
    assert [ask(front, path).status for path in paths] == [200] * len(paths)


def test_what_nginx_serves_outlives_what_nobody_asks_for(
    small: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Twice over, since the kernel moves an access time only while it is not newer than the change time.

    That holds for a file just written, and again for one whose use an eviction has recorded: it renews the
    change time. The nginx that reads has nobody behind it, so that no other access is counted.
    """
    with fronted(tmp_path_factory.mktemp("alone"), small.cache_dir, f"127.0.0.1:{free_port()}") as alone:
        old = [small.upload(noise(number, _SIZE)) for number in range(8)]
        used, unused = old[:3], old[3:]
        _read(used, alone)
        second = _fill_until_gone(small, 100, unused)
        _read(used, alone)
        _fill_until_gone(small, 200, second)
        _read(used, alone)


def test_without_use_the_oldest_go_first(small: Site) -> None:
    """The test above could not fail otherwise."""
    old = [small.upload(noise(number, _SIZE)) for number in range(8)]
    _fill_until_gone(small, 100, old[:3])
    assert _is_cached(small, old[-1])
