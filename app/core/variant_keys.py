"""The paths and cache keys of variants, which are images made from other images.

The URL path of a variant is `<key>/<name>.<extension>`, or `<key>/<name>` if the format is negotiated. The
name is a spec (see `app.core.variant_specs`) or the name of a preset. `<key>`, the key of the *source*, ends
in an image extension. No folder of a key that the server creates ends like that, so such a path is no key of
an image of the server.

In the cache, the key of a variant begins with a slash and an *area*. No key of an object begins with a slash,
so the two never collide.

    /variants/<key>/<name>.<extension>      listed variants; a front server such as nginx may serve them
    /guarded/<key>/<name>.<extension>       variants that only the application serves, since the URL needs a
                                            signature
    /guarded/<key>/<name>+first.<extension> the first frame of an animation that is too large to be a variant;
                                            only the application serves it, with an additional header

In the store, the key of a variant is `variants/<key>/<name>.<extension>`. All objects with such keys count as
variants, and never as images. See `app.services.stored_variants`.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from app.core.objects import CONTENT_TYPES, FORMATS, ImageFormat

LISTED = "/variants/"
GUARDED = "/guarded/"
AREAS = (LISTED, GUARDED)

INFO = "info"
"""The name under which the facts about an image are requested and, with the extension `json`, cached."""

MAX_PATH_LENGTH = 2048
"""Maximum length of the paths that are kept in memory. No image or variant has a longer one."""

_EXTENSIONS = "|".join(CONTENT_TYPES)
_SOURCE = rf".*[^/]\.(?i:{_EXTENSIONS})"
_PATH = re.compile(rf"({_SOURCE})/([^/]+)\Z", re.DOTALL)
_IMAGE_NAME = re.compile(rf"(?s:{_SOURCE})\Z")
_STORED_FOLDER = "variants/"
_STORED = re.compile(rf"{_STORED_FOLDER}({_SOURCE})/[a-z0-9_.,-]+\.(?:{_EXTENSIONS})\Z", re.DOTALL)
_FORMATS = {extension: known for known in FORMATS.values() for extension in known.extensions}
_FIRST_FRAME = "+first"
_SOURCE_TAG_DIGITS = 16


@dataclass(frozen=True, slots=True)
class VariantPath:
    """The parts of a variant's path. `extension` is empty if the format is negotiated."""

    source: str
    name: str
    extension: str

    @property
    def format(self) -> ImageFormat | None:
        """The format that the extension stands for, or None if the format is negotiated."""
        return _FORMATS.get(self.extension)

    def __str__(self) -> str:
        """Return the path."""
        return f"{self.source}/{self.name}" + (f".{self.extension}" if self.extension else "")


def split_variant_path(path: str) -> VariantPath | None:
    """Return the parts of a path if it has the shape of a variant's path, else None.

    This does not say whether the name is valid. The extension is in lower case.
    """
    return (_split_cached if len(path) <= MAX_PATH_LENGTH else _split)(path)


def _split(path: str) -> VariantPath | None:
    found = _PATH.match(path)
    if found is None:
        return None
    name, _, extension = found[2].rpartition(".")
    if name and extension.lower() in CONTENT_TYPES:
        return VariantPath(found[1], name, extension.lower())
    return VariantPath(found[1], found[2], "")


_split_cached = lru_cache(maxsize=4096)(_split)


def can_have_variants(key: str) -> bool:
    """Return whether `key` ends in an image extension, so that there are variants of the image."""
    return _IMAGE_NAME.match(key) is not None


def variant_keys(path: VariantPath, *, is_listed: bool) -> tuple[str, str]:
    """Return the two cache keys that a variant may have.

    The second one is for the first frame of an animation that is too large.
    """
    area = LISTED if is_listed else GUARDED
    return f"{area}{path}", f"{GUARDED}{path.source}/{path.name}{_FIRST_FRAME}.{path.extension}"


def is_first_frame(key: str) -> bool:
    """Return whether a cache key is the key of the first frame of an animation that is too large."""
    return is_variant_key(key) and _FIRST_FRAME in key.rpartition("/")[2]


def requested_path(key: str) -> str:
    """Return the path after `/api/images/` with which clients request the object that has this cache key."""
    for area in AREAS if key.startswith("/") else ():
        if key.startswith(area):
            directory, _, name = key[len(area) :].rpartition("/")
            return f"{directory}/{name.replace(_FIRST_FRAME, '')}"
    return key


def is_variant_key(key: str) -> bool:
    """Return whether a cache key is the key of a variant."""
    return key.startswith(AREAS)


def source_of(key: str) -> str:
    """Return the key of the image from which a variant is made, or `key` itself if it is no variant's key."""
    for area in AREAS:
        if key.startswith(area):
            return key[len(area) :].rpartition("/")[0]
    return key


def stored_key(path: VariantPath) -> str:
    """Return the key under which a variant is in the store."""
    return f"{_STORED_FOLDER}{path}"


def stored_prefix(source: str) -> str:
    """Return the prefix of the keys under which the variants of an image are in the store.

    Other keys may have this prefix too. `stored_source_of` distinguishes them.
    """
    return f"{_STORED_FOLDER}{source}/"


def stored_source_of(key: str) -> str | None:
    """Return the key of the image whose variant is in the store under `key`, or None for any other key."""
    found = _STORED.match(key) if key.startswith(_STORED_FOLDER) else None
    return None if found is None else found[1]


def variant_name(key: str) -> str:
    """Return the spec or the name of the preset in the cache key of a variant."""
    name = key.rpartition("/")[2].rpartition(".")[0]
    return name.removesuffix(_FIRST_FRAME)


def variant_etag(source_etag: str, size: int, extension: str = "") -> str:
    """Return the entity tag of a variant of a mutable image. It identifies the version of the image.

    It contains the extension, since variants in different formats are served at the same URL if the format is
    negotiated.
    """
    return f'"{version_digits(source_etag)}-{size:x}{extension}"'


def is_variant_of(etag: str, source_etag: str) -> bool:
    """Return whether a variant with the entity tag `etag` was made from the version `source_etag`."""
    return etag.startswith(f'"{version_digits(source_etag)}-')


def version_digits(source_etag: str) -> str:
    """Return hexadecimal digits that identify the version of a mutable image."""
    return hashlib.sha256(source_etag.encode()).hexdigest()[:_SOURCE_TAG_DIGITS]
