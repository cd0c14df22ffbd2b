"""Fictitious objects, and the responses of a store for them."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

from app.cache.lookup import Load
from app.core.object_keys import digest_metadata
from app.core.objects import ObjectFacts, StoredObject


def key_of(number: int) -> str:
    """Return a key of a generated image in one of 100 folders. Such a key is valid for any bytes."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"images/2026/{int(digest[:8], 16) % 100:02}/20261101_000000_{digest[8:32]}.png"


def facts_of(key: str, size: int) -> ObjectFacts:
    """Return the facts that a store would return for `key`."""
    etag = f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"'
    return ObjectFacts(key, size, "image/png", etag, datetime(2026, 11, 1, tzinfo=UTC))


def proven(facts: ObjectFacts, data: bytes) -> ObjectFacts:
    """Return the facts with the digest metadata with which this server stores generated images."""
    return replace(facts, metadata=_proof_of(data))


def loading(facts: ObjectFacts, data: bytes) -> Load:
    """Return a load function that immediately returns `data`."""

    stored = proven(facts, data)

    def load(etag: str | None) -> StoredObject | None:
        return StoredObject(stored, io.BytesIO(data))

    return load


@lru_cache(maxsize=100)
def _proof_of(data: bytes) -> Mapping[str, str]:
    return digest_metadata(key_of(0), data)
