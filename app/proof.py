"""Which objects are immutable: those whose bytes are proven to be the ones that their key stands for.

A key's shape proves nothing, since others may put anything into the bucket under such a key, and replace it.
A content-addressed key contains the beginning of the SHA-256 of its bytes. A generated one does not, so the
digest is stored with the image, as metadata. If it is missing or another one, the object is mutable.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from app.formats import CONTENT_TYPES
from app.keys import digest_in, looks_generated
from app.objects import NO_METADATA, ObjectFacts

_DIGEST = "sha256"
"""The name in the metadata."""

_DIGITS = 64


def proof_for(key: str, data: bytes) -> Mapping[str, str]:
    """Return the metadata to store with `data` under `key`, so that it can be proven immutable later."""
    return {_DIGEST: hashlib.sha256(data).hexdigest()} if looks_generated(key) else NO_METADATA


def digest_wanted(facts: ObjectFacts) -> str:
    """Return what the SHA-256 of the bytes has to begin with; empty if the object is mutable in any case.

    What an immutable object's file does not say has to follow from its key, so that front servers can send it
    as it is. So the type must be that of the extension, and there must be no Content-Encoding.
    """
    if facts.content_encoding or facts.content_type != CONTENT_TYPES.get(facts.key.rpartition(".")[2]):
        return ""
    if looks_generated(facts.key):
        digest = facts.metadata.get(_DIGEST, "")
        return digest if len(digest) == _DIGITS else ""
    return digest_in(facts.key) or ""


def with_proof(facts: ObjectFacts, sha256: str) -> ObjectFacts:
    """Return the facts of an object whose bytes have this digest (empty: unknown), without their metadata."""
    wanted = digest_wanted(facts)
    proven = bool(wanted) and sha256.startswith(wanted)
    return replace(facts, metadata=NO_METADATA, is_immutable=proven)
