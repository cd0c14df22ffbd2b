"""A custom store, loaded by name and tested by the contract."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from io import BytesIO

import pytest

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import ConfigError, NotFound
from app.core.objects import NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.stores.base import BaseStore
from tests.contracts import StoreContract
from tests.pictures import picture


class MemoryStore(BaseStore):
    """Stores objects in a dictionary."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[ObjectFacts, bytes]] = {}
        self._lock = threading.Lock()

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str = "",
        metadata: Mapping[str, str] = NO_METADATA,
        overwrite: bool = True,
    ) -> PutResult:
        """Store the bytes."""
        etag = f'"{md5(data, usedforsecurity=False).hexdigest()}"'
        facts = ObjectFacts(key, len(data), content_type, etag, datetime.now(UTC), dict(metadata))
        with self._lock:
            created = overwrite or key not in self._objects
            if created:
                self._objects[key] = (facts, data)
            return PutResult(self._objects[key][0], created)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Return the stored bytes."""
        facts, data = self._find(key)
        return None if facts.etag == if_none_match else StoredObject(facts, BytesIO(data))

    def head(self, key: str) -> ObjectFacts:
        """Return the stored facts."""
        return self._find(key)[0]

    def delete(self, key: str) -> None:
        """Remove the object."""
        self._objects.pop(key, None)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Sort the keys for each page."""
        keys = [key for key in sorted(self._objects) if key.startswith(prefix) and key > (cursor or "")]
        objects = tuple(self._objects[key][0] for key in keys[:limit])
        return ObjectPage(objects, keys[limit - 1] if len(keys) > limit else None)

    def _find(self, key: str) -> tuple[ObjectFacts, bytes]:
        try:
            return self._objects[key]
        except KeyError as exc:
            raise NotFound from exc


class TestMemoryStore(StoreContract):
    """The contract for a custom store."""

    @pytest.fixture
    def store(self) -> BaseStore:
        """Return an empty store."""
        return MemoryStore()


@pytest.fixture
def own_config(config: Config) -> Config:
    """Return settings that name the custom store."""
    return replace(config, store="tests.stores.test_own_store:MemoryStore")


def test_the_server_runs_with_a_custom_store(own_config: Config) -> None:
    flask = create_app(own_config)
    client = flask.test_client()
    url = client.post("/api/images", data={"image": (BytesIO(picture()), "a.png")}).get_json()["image_url"]
    parts = components_of(flask)
    assert parts.config.store.endswith(":MemoryStore")
    assert parts.store.list().objects[0].size == len(picture())
    response = client.get(url)
    assert response.data == picture()
    response.close()
    parts.cache.close()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no.such.module:Store", "can't be loaded: No module named 'no'"),
        ("tests.stores.test_own_store:Nothing", "has no attribute 'Nothing'"),
        ("app.config.settings:Config", "is not a subclass of app.stores.base.BaseStore"),
        ("app.stores.base:BaseStore", "lacks these methods: delete, get, head, list, put"),
        ("tests.stores.broken:Store", "can't be loaded: out of order"),
    ],
)
def test_an_invalid_store_is_reported_at_startup(config: Config, value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="STORE=") as caught:
        create_app(replace(config, store=value))
    assert value in str(caught.value)
    assert problem in str(caught.value)
