"""Fixtures: a local store, a cache, an image service that uses them, and a directory to import from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.core.threads import DecodeLimiter
from app.imaging.survey import ImageLimits
from app.services.images import ImageService
from app.services.signing import UrlSigner
from app.services.urls import ImageUrls
from app.services.variant_rules import VariantRules
from app.services.variant_urls import VariantUrls
from app.stores.base import BaseStore
from app.stores.local import LocalStore


@pytest.fixture
def store(config: Config) -> BaseStore:
    """An empty store."""
    return LocalStore.from_config(config)


@pytest.fixture
def cache(config: Config) -> Iterator[DiskCache]:
    """An empty cache."""
    cache = DiskCache(config.cache_dir, config.cache_max_bytes)
    yield cache
    cache.close()


@pytest.fixture
def images(config: Config, store: BaseStore, cache: DiskCache) -> ImageService:
    """An image service with `store` and `cache`."""
    return ImageService(
        store,
        cache,
        ImageLimits.from_config(config),
        DecodeLimiter(2, 30),
        max_upload_bytes=config.max_upload_bytes,
        urls=ImageUrls(store, "auto", ""),
        variant_urls=VariantUrls(VariantRules("on", [320, 640], {}, UrlSigner(["key"]))),
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "source"
    directory.mkdir()
    return directory
