"""Objects as they pass between store, cache and HTTP: their facts, their bodies, and the image formats."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from app.core.errors import StoreError

NO_METADATA: Mapping[str, str] = MappingProxyType({})

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
"""RFC 9110, 8.8.3, without bytes above ASCII, which clients decode in different ways."""

_MIN_TIME, _MAX_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, tzinfo=UTC)
"""The range of an unsigned 32-bit count of seconds; some file systems can't store later times."""

_CODINGS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, (?!\Z)|\Z))*", re.ASCII)
_MAX_CODINGS_CHARS = 200


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a store knows about an object.

    - `size`: bytes.
    - `etag`: an entity tag in quotes (RFC 9110, 8.8.3) that changes whenever the bytes do.
    - `last_modified`: a time in UTC.
    - `metadata`: what was stored with the object; empty in listings and in the cache.
    - `content_encoding`: the codings that clients must undo to see the image (RFC 9110, 8.4), as
      `content_codings` returns them; empty if there are none.
    - `sha256`: the hexadecimal digest that the store itself has computed; empty if it gives none.
    - `is_immutable`: whether the key is proven to always mean these bytes. Stores leave it False;
      `app.core.object_keys.with_immutability` sets it.

    Raises `StoreError` for a size, entity tag, time or codings that no object and no file can have.
    """

    key: str
    size: int
    content_type: str
    etag: str
    last_modified: datetime
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)
    content_encoding: str = ""
    sha256: str = field(default="", compare=False)
    is_immutable: bool = False

    def __post_init__(self) -> None:
        """Raise `StoreError` for values that the cache, file times or response headers can't hold."""
        if not (isinstance(self.size, int) and 0 <= self.size < 2**63):
            raise StoreError(detail=f"an object of {self.size!r:.50} bytes")
        if not _ETAG.fullmatch(self.etag):
            raise StoreError(detail=f"an object with the ETag {self.etag!r:.200}")
        if not _MIN_TIME <= self.last_modified < _MAX_TIME:
            raise StoreError(detail=f"an object last modified at {self.last_modified}")
        codings = self.content_encoding
        if codings and (len(codings) > _MAX_CODINGS_CHARS or not _CODINGS.fullmatch(codings)):
            raise StoreError(detail=f"an object with the Content-Encoding {codings!r:.200}")


class Body(Protocol):
    """Bytes that are being read, from a file or a network stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, all that are left if it is negative, and none at the end."""

    def close(self) -> None:
        """Release what reading holds, such as a file descriptor or a connection."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is being read: its facts, and its body at the first byte. The reader closes it."""

    facts: ObjectFacts
    body: Body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.body.close()


@dataclass(frozen=True, slots=True)
class PutResult:
    """The result of a put: the facts as stored, and whether it created the object or found it there."""

    facts: ObjectFacts
    created: bool


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """A page of a listing in the order of keys, and the cursor of the next page; None for the last."""

    objects: tuple[ObjectFacts, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """An image format; `name` is its name in settings and requests, `pillow` its name in Pillow."""

    name: str
    pillow: str
    content_type: str
    extensions: tuple[str, ...]

    @property
    def extension(self) -> str:
        """The extension of new keys, without the dot."""
        return self.extensions[0]


FORMATS = {
    known.name: known
    for known in (
        ImageFormat("png", "PNG", "image/png", ("png",)),
        ImageFormat("jpeg", "JPEG", "image/jpeg", ("jpg", "jpeg")),
        ImageFormat("gif", "GIF", "image/gif", ("gif",)),
        ImageFormat("webp", "WEBP", "image/webp", ("webp",)),
        ImageFormat("avif", "AVIF", "image/avif", ("avif",)),
    )
}
"""The formats that the server accepts and serves, by name."""

CONTENT_TYPES = {extension: f.content_type for f in FORMATS.values() for extension in f.extensions}
"""Media type by file extension (IANA media types)."""


def content_codings(header: str) -> str:
    """Return the codings of a Content-Encoding header in lower case, separated by ", ".

    Leave out `identity`, which is no coding, and `aws-chunked`, which describes how an upload was sent: some
    servers keep them. Return an empty string if none is left.
    """
    codings = (coding.strip().lower() for coding in header.split(","))
    return ", ".join(coding for coding in codings if coding not in ("", "identity", "aws-chunked"))


def version_tag(last_modified: datetime, size: int) -> str:
    """Return the entity tag that nginx makes for a file of this time and size.

    For files whose bytes never change it is a strong validator.
    """
    return f'"{int(last_modified.timestamp()):x}-{size:x}"'
