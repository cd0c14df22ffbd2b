"""Made-up objects, and a store's answers for them without a store."""

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

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

    stored = replace(facts, etag=_etag_of(data))

    def load(etag: str | None) -> StoredObject | None:
        return StoredObject(stored, io.BytesIO(data))

    return load


@lru_cache(maxsize=100)
def _etag_of(data: bytes) -> str:
    """The MD5, as S3 mostly gives it: the keys here are not made from the bytes, as ours are."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
