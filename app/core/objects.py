"""Objects, as passed between the store, the cache and the HTTP layer, and the supported image formats.

An object consists of its metadata (`ObjectFacts`) and its body.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from app.core.errors import StoreError

NO_METADATA: Mapping[str, str] = MappingProxyType({})

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
"""Matches an entity tag (RFC 9110, 8.8.3) in ASCII. Clients decode other bytes in different ways."""

_MIN_TIME, _MAX_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, tzinfo=UTC)
"""Range of times that are accepted. Some file systems store times as an unsigned 32-bit number of seconds,
so they can't store later times."""

_CODINGS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, (?!\Z)|\Z))*", re.ASCII)
_MAX_CODINGS_CHARS = 200


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The facts about an object: everything that is known about it except its bytes.

    - `size`: number of bytes.
    - `etag`: an entity tag in quotes (RFC 9110, 8.8.3) that changes whenever the bytes change.
    - `last_modified`: when the object was last changed, in UTC.
    - `metadata`: user-defined metadata stored with the object; empty in listings and in the cache.
    - `content_encoding`: the codings that clients must undo to see the image (RFC 9110, 8.4), as
      `content_codings` returns them; empty if there are none.
    - `sha256`: the hexadecimal digest that the store itself computed; empty if the store reports none.
    - `is_immutable`: whether the bytes are proven to be those that the key stands for, so that they never
      change. Stores set this to False; `app.core.object_keys.with_immutability` determines it.

    Raises `StoreError` if the size, the entity tag, the time or the codings are invalid or out of range.
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
        """Raise `StoreError` for values that the index, file timestamps or response headers can't hold."""
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
    """The bytes of an object, which are read from a file or from a network stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or all remaining bytes if `size` is negative.

        Return `b""` at the end of the body.
        """

    def close(self) -> None:
        """Release the resources of the body, such as a file descriptor or a connection."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is open for reading. `body` is at the first byte, and the caller must close it."""

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
    """The result of a put: the facts of the stored object, and whether the put created this object."""

    facts: ObjectFacts
    created: bool


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """A page of a listing, sorted by key. `cursor` leads to the next page; it is None on the last page."""

    objects: tuple[ObjectFacts, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """An image format. `name` is its name in settings and requests, and `pillow` is its name in Pillow."""

    name: str
    pillow: str
    content_type: str
    extensions: tuple[str, ...]

    @property
    def extension(self) -> str:
        """The file extension for new keys, without the dot."""
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
"""Media types (as registered with IANA) by file extension."""


def content_codings(header: str) -> str:
    """Return the codings of a Content-Encoding header in lower case, separated by ", ".

    This omits `identity`, which means that there is no coding, and `aws-chunked`, which only describes how an
    upload was sent. Some S3 servers include these two in the header of a stored object. Return an empty
    string if no coding is left.
    """
    codings = (coding.strip().lower() for coding in header.split(","))
    return ", ".join(coding for coding in codings if coding not in ("", "identity", "aws-chunked"))


def version_tag(last_modified: datetime, size: int) -> str:
    """Return the entity tag that nginx generates for a file with this mtime and size.

    The tag is a strong validator for files whose bytes never change.
    """
    return f'"{int(last_modified.timestamp()):x}-{size:x}"'
