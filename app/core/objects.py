"""What passes between store, cache and HTTP: an object's facts, and an object with its bytes.

The image formats that the service takes and serves: name, media type and file extensions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from app.core.errors import StoreError


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """One format; `name` is what settings and clients say, `pillow` what Pillow calls it."""

    name: str
    pillow: str
    content_type: str
    extensions: tuple[str, ...]

    @property
    def extension(self) -> str:
        """The extension that new keys get, without the dot."""
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

CONTENT_TYPES = {extension: f.content_type for f in FORMATS.values() for extension in f.extensions}
"""Media type by file extension (IANA media types)."""


_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
"""RFC 9110, 8.8.3, without bytes above ASCII, which clients decode in different ways."""

_FIRST_TIME, _LAST_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, tzinfo=UTC)
"""The range of an unsigned 32-bit count of seconds; some file systems have no later times."""

_CODINGS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, (?!\Z)|\Z))*", re.ASCII)

_MOST_CODINGS = 200
"""Characters."""

NO_METADATA: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a store knows of an object.

    `size` is in bytes; `etag` is an entity tag in quotes (RFC 9110, 8.8.3) that changes whenever the bytes
    do; `last_modified` is in UTC; `metadata` is what the put gave along, empty where nobody asked the store
    for the object itself (a listing, the cache). `content_encoding` lists the codings that clients have to
    undo to see the image (RFC 9110, 8.4), as `content_codings` returns them; empty if there are none.
    `sha256` is the hexadecimal digest that the store itself has made of the bytes, empty if it says none.
    `is_immutable` says that the key is proven to always mean these bytes; stores leave that to
    `app.core.object_keys`.

    Raises `StoreError` for a size, an entity tag, a time or codings that no object and no file can have.
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
        """Raise StoreError for values that the cache, file times or answer headers can't hold."""
        if not (isinstance(self.size, int) and 0 <= self.size < 2**63):
            raise StoreError(detail=f"an object of {self.size!r:.50} bytes")
        if not _ETAG.fullmatch(self.etag):
            raise StoreError(detail=f"an object with the ETag {self.etag!r:.200}")
        if not _FIRST_TIME <= self.last_modified < _LAST_TIME:
            raise StoreError(detail=f"an object of {self.last_modified}")
        codings = self.content_encoding
        if codings and (len(codings) > _MOST_CODINGS or not _CODINGS.fullmatch(codings)):
            raise StoreError(detail=f"an object with the Content-Encoding {codings!r:.200}")


def content_codings(header: str) -> str:
    """Return the codings in a Content-Encoding header as one list, in lower case; empty if there are none.

    `aws-chunked` is how an upload was sent, and `identity` is no coding: some servers keep them, though.
    """
    codings = (coding.strip().lower() for coding in header.split(","))
    return ", ".join(coding for coding in codings if coding not in ("", "identity", "aws-chunked"))


def version_tag(last_modified: datetime, size: int) -> str:
    """The entity tag that nginx makes for a file of this time and size; strong where bytes never change."""
    return f'"{int(last_modified.timestamp()):x}-{size:x}"'


class Body(Protocol):
    """Bytes being read; files and network streams alike."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes (all that is left where negative); empty at the end."""

    def close(self) -> None:
        """Give back what the reading holds: a file descriptor, a connection."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object being read: its facts and its body, open at the first byte. The reader closes it."""

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
    """What a put did: the facts as stored, and whether it made the object (False: it was there already)."""

    facts: ObjectFacts
    created: bool


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Some objects in the order of their keys, and the cursor for the next page (None: there is none)."""

    objects: tuple[ObjectFacts, ...]
    cursor: str | None
