"""A store that counts how it is called."""

from typing import Any

from app.errors import AppError
from app.metrics.catalogue import Metrics
from app.metrics.timed import timed
from app.objects import Body, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.stores.base import BaseStore


class MeteredStore(BaseStore):
    """`store`, each call of which is counted and timed."""

    def __init__(self, store: BaseStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def identity(self) -> str:
        """Not counted: no call of the store."""
        return self._store.identity()

    def put(self, key: str, data: bytes, **options: Any) -> PutResult:
        """Counted as `put`."""
        with self._timed("put"):
            return self._store.put(key, data, **options)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Counted as `get`; a body that breaks off later is counted as a failed `read`."""
        with self._timed("get"):
            stored = self._store.get(key, if_none_match=if_none_match)
        if stored is None or hasattr(stored.body, "fileno"):  # a server sends files without reading them
            return stored
        return StoredObject(stored.facts, _MeteredBody(stored.body, self._metrics))

    def head(self, key: str) -> ObjectFacts:
        """Counted as `head`."""
        with self._timed("head"):
            return self._store.head(key)

    def delete(self, key: str) -> None:
        """Counted as `delete`."""
        with self._timed("delete"):
            self._store.delete(key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Counted as `list`."""
        with self._timed("list"):
            return self._store.list(prefix, limit=limit, cursor=cursor)

    def object_url(self, key: str) -> str | None:
        """Not counted: no call of the store."""
        return self._store.object_url(key)

    def signed_url(self, key: str) -> str | None:
        """Not counted: no call of the store."""
        return self._store.signed_url(key)

    def is_public(self, key: str) -> bool:
        """Not counted: the store asks itself, as a browser would, and seldom."""
        return self._store.is_public(key)

    def _timed(self, call: str) -> Any:
        return timed(self._metrics.store_calls, self._metrics.store_seconds, call)


class _MeteredBody:
    """A body; its failures are counted, its reads are not: there are many, and most wait for nothing."""

    def __init__(self, body: Body, metrics: Metrics) -> None:
        self._body = body
        self._metrics = metrics

    def read(self, size: int = -1, /) -> bytes:
        """As the body does."""
        try:
            return self._body.read(size)
        except AppError as exc:
            self._metrics.store_calls.labels("read", exc.code).inc()
            raise

    def close(self) -> None:
        """As the body does."""
        self._body.close()
