"""Made-up objects, and a store's answers for them without a store."""

import hashlib
import io
from datetime import UTC, datetime

from app.cache.answers import Load
from app.objects import ObjectFacts, StoredObject


def key_of(number: int) -> str:
    """A key of the content-addressed shape."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"images/{digest[:2]}/{digest[2:32]}.png"


def facts_of(key: str, size: int) -> ObjectFacts:
    """What a store would say of `key`."""
    etag = f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"'
    return ObjectFacts(key, size, "image/png", etag, datetime(2026, 11, 1, tzinfo=UTC))


def loading(facts: ObjectFacts, data: bytes) -> Load:
    """A store's GetObject that has `data` at once."""

    def load(etag: str | None) -> StoredObject | None:
        return StoredObject(facts, io.BytesIO(data))

    return load
