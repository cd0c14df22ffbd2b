"""What stores keep with an image besides its bytes, in files beside exported images.

    .metadata/<path of the image>.json    {"sha256": digest of the image's file, "metadata": names and values}

An import uses one only if the image's file still has the digest.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from app.objects import NO_METADATA

DIRECTORY = ".metadata"

_LARGEST = 64 * 1024
"""Bytes of a sidecar that are read."""

_MOST_METADATA = 2048
"""Bytes of names and values that S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html)."""

_NAME = re.compile(r"[a-z0-9-]+\Z")
_VALUE = re.compile(r"(?! )[\x20-\x7e]*(?<! )\Z")


class UnusableMetadata(ValueError):
    """A sidecar that belongs to other bytes, or holds what no store keeps."""


def sidecar_path(root: Path, name: str) -> Path:
    """Return where the metadata of the image at `name` below `root` is kept."""
    return root / DIRECTORY / f"{name}.json"


def dump(data_digest: str, metadata: Mapping[str, str]) -> bytes:
    """Return a sidecar's content for an image whose bytes have this SHA-256, in hex digits."""
    return json.dumps({"sha256": data_digest, "metadata": dict(metadata)}, indent=1).encode()


def load(root: Path, name: str, data: bytes) -> Mapping[str, str]:
    """Return the metadata kept for the image at `name` below `root`, whose bytes are `data`; maybe none.

    Raises `UnusableMetadata`.
    """
    try:
        with sidecar_path(root, name).open("rb") as file:
            loaded = json.loads(file.read(_LARGEST))
    except FileNotFoundError:
        return NO_METADATA
    except (OSError, ValueError, RecursionError) as exc:
        raise UnusableMetadata(f"can't be read: {type(exc).__name__}") from exc
    metadata = loaded.get("metadata") if isinstance(loaded, dict) else None
    if not isinstance(metadata, dict) or loaded.get("sha256") != hashlib.sha256(data).hexdigest():
        raise UnusableMetadata("belongs to other bytes")
    if not _can_be_kept(metadata):
        raise UnusableMetadata("has names or values that stores don't keep")
    return metadata


def _can_be_kept(metadata: Mapping[str, object]) -> bool:
    """Return whether `BaseStore.put` takes it."""
    fits = sum(len(name) + len(str(value)) for name, value in metadata.items()) <= _MOST_METADATA
    return fits and all(
        _NAME.match(name) and isinstance(value, str) and _VALUE.match(value)
        for name, value in metadata.items()
    )
