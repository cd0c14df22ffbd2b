"""An application with and without the fast path, which the tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.delivery.comparison import Comparison


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """An application with and without the fast path."""
    root: Path = tmp_path_factory.mktemp("comparison")
    directories = {name: str(root / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    flask = create_app(Config.from_env(directories))
    yield Comparison(flask)
    components_of(flask).cache.close()
