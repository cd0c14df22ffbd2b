"""Made-up objects, and a store's answers for them without a store."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

from app.cache.lookup import Load
from app.core.object_keys import proof_for
from app.core.objects import ObjectFacts, StoredObject


def key_of(number: int) -> str:
    """A key of the generated shape, in one of 100 folders: any bytes can be proven to belong to it."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"images/2026/{int(digest[:8], 16) % 100:02}/20261101_000000_{digest[8:32]}.png"


def facts_of(key: str, size: int) -> ObjectFacts:
    """What a store would say of `key`."""
    etag = f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"'
    return ObjectFacts(key, size, "image/png", etag, datetime(2026, 11, 1, tzinfo=UTC))


def proven(facts: ObjectFacts, data: bytes) -> ObjectFacts:
    """What a store would say of an object that this server has put there."""
    return replace(facts, metadata=_proof_of(data))


def loading(facts: ObjectFacts, data: bytes) -> Load:
    """A store's GetObject that has `data` at once."""

    stored = proven(facts, data)

    def load(etag: str | None) -> StoredObject | None:
        return StoredObject(stored, io.BytesIO(data))

    return load


@lru_cache(maxsize=100)
def _proof_of(data: bytes) -> Mapping[str, str]:
    return proof_for(key_of(0), data)
