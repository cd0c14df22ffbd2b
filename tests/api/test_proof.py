"""What answers say of images whose keys look immutable, with the local store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import noise

IMMUTABLE, MUTABLE = "public, max-age=31536000, immutable", "public, no-cache"


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    """An application that asks the store each time about what may change."""
    flask = create_app(replace(config, cache_ttl=0))
    yield flask
    components_of(flask).cache.close()


def _lay(config: Config, key: str, data: bytes) -> None:
    """Lay a file into the store's directory by hand."""
    path = Path(config.local_store_dir, "objects", key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "key", ["avatars/ab/" + "0" * 30 + ".png", "generated/2026/11/20261122_080509_" + "0" * 24 + ".png"]
)
def test_a_file_laid_there_by_hand_is_mutable(app: Flask, config: Config, key: str) -> None:
    for data in (noise(1), noise(2)):
        _lay(config, key, data)
        for _ in range(2):
            with app.test_client().get(f"/api/images/{key}") as response:
                assert (response.data, response.headers["Cache-Control"]) == (data, MUTABLE)


@pytest.mark.parametrize("keep_prompts", [True, False])
def test_what_is_generated_is_immutable(config: Config, keep_prompts: bool) -> None:
    """Also on another machine, whose cache has nothing of it yet."""
    first = create_app(replace(config, keep_prompts=keep_prompts))
    url = json_of(first.test_client().post("/api/generate-image", json={"prompt": "x", "size": "64x64"}))[
        "image_url"
    ]
    second = create_app(replace(config, cache_dir=config.cache_dir / "other"))
    tags = set()
    for flask in (first, second, second):
        with flask.test_client().get(url) as response:
            assert response.headers["Cache-Control"] == IMMUTABLE
            tags.add(response.headers["ETag"])
    assert len(tags) == 1
    for flask in (first, second):
        components_of(flask).cache.close()
