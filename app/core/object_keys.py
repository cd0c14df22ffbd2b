"""Object keys. Only this module creates, checks and URL-encodes keys and decides which objects are immutable.

A *canonical* key is a key that the server could create. It consists of ASCII segments separated by `/` and is
safe as a relative path. Only the last segment ends in an image extension, so the path of a key is never also
the directory of another key.

    images/<2 hex>/<30 hex>.<ext>                    content-addressed: the start of the SHA-256 of the bytes
    generated/<yyyy>/<mm>/<time>_<random>.<ext>      generated: the time, and a random number
    <folder>/<name>.<ext>                            named: mutable, so caches must revalidate the object

A *readable* key is a key that is safe in a URL. Other software may have put the object into the bucket.

An object is *immutable* if its bytes are proven to be those that its key stands for. The shape of the key
proves nothing, since other software may put any object under a key of that shape, and may replace the object.
The proof is the SHA-256 of the bytes. A content-addressed key contains the start of this digest. A generated
key does not, so the server stores the digest as metadata. Without a matching digest, the object is mutable.
Clients can't choose names that look like the keys of immutable objects.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

from slugify import slugify

from app.core.errors import InvalidKey
from app.core.objects import CONTENT_TYPES, NO_METADATA, ImageFormat, ObjectFacts

MAX_KEY_BYTES = 1024
"""S3's limit on the length of a key in UTF-8 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""

MAX_SEGMENT = 200
"""Maximum number of characters in a segment of a key. File systems accept names of up to 255 bytes. The
difference is room for suffixes that stores add to file names."""

UPLOAD_FOLDER = "images"
GENERATED_FOLDER = "generated"

_EXTENSIONS = "|".join(CONTENT_TYPES)
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_FOLDERS = rf"(?:(?![^/]*\.(?i:{_EXTENSIONS})/){_SEGMENT}/)"
_LENGTHS = rf"(?=.{{1,{MAX_KEY_BYTES}}}\Z)(?!.*[^/]{{{MAX_SEGMENT + 1}}})"
_CANONICAL = re.compile(rf"{_LENGTHS}{_FOLDERS}*{_SEGMENT}\.(?:{_EXTENSIONS})\Z")
_FOLDER = re.compile(rf"{_LENGTHS}{_FOLDERS}+\Z")
_CONTENT_ADDRESSED = re.compile(rf".+/([0-9a-f]{{2}})/([0-9a-f]{{30}})\.(?:{_EXTENSIONS})\Z")
_GENERATED = re.compile(rf".+/\d{{4}}/\d{{2}}/\d{{8}}_\d{{6}}_[0-9a-f]{{24}}\.(?:{_EXTENSIONS})\Z")
_PLAIN = re.compile(rf"(?!.*[^/]{{{MAX_SEGMENT + 1}}}){_SEGMENT}(?:/{_SEGMENT})*\Z")

_INVALID_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff\ufffd]|(?:^|/)(?:\.|/|\Z)|[^/]{256}")
"""Matches names that contain control characters, backslashes or invalid Unicode, or a segment that is empty,
starts with a dot or is longer than 255 characters, the limit of file systems. U+FFFD replaces bytes that are
not valid UTF-8. So two different names may become equal, and the second image would replace the first."""

_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|(?:^|/)\.{0,2}(?:/|\Z)")
"""Matches keys that are not safe in a URL. Clients remove dot segments (RFC 3986, 5.2.4) and control
characters from URLs and treat a backslash as a slash, and proxies merge consecutive slashes. So the URL of
such a key may turn into the URL of a different key."""

_INVALID_KEY_MESSAGE = (
    f"That is not a valid image key. A key is a Unicode string of at most {MAX_KEY_BYTES} bytes in UTF-8, "
    "without empty segments, '.' and '..' segments, backslashes or control characters."
)

_NAME_RULE = (
    "Each of its parts, separated by '/', must have 1 to 255 characters and must not start with a dot. "
    "Control characters, backslashes and bytes that are not UTF-8 are not allowed."
)

_KEY_RULE = (
    "Use ASCII letters, digits, '.', '_' and '-' in parts separated by '/', each at most "
    f"{MAX_SEGMENT} characters long and starting with a letter, a digit or '_'. "
    "A folder must not end in an image extension."
)

_DIGEST_NAME = "sha256"
_DIGEST_DIGITS = 64


def content_addressed_key(data: bytes, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return the key derived from the SHA-256 of `data`, so that identical images are stored only once.

    Raises `InvalidKey` for an invalid folder.
    """
    return key_of_digest(hashlib.sha256(data).hexdigest(), image_format, folder)


def key_of_digest(digest: str, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return the content-addressed key of bytes whose hexadecimal SHA-256 is `digest`.

    Raises `InvalidKey` for an invalid folder.
    """
    return _in_folder(folder or UPLOAD_FOLDER, f"{digest[:2]}/{digest[2:32]}.{image_format.extension}")


def generated_key(now: datetime, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return a new, unguessable key for an image generated at `now`.

    Raises `InvalidKey` for an invalid folder.
    """
    name = f"{now:%Y/%m/%Y%m%d_%H%M%S}_{secrets.token_hex(12)}.{image_format.extension}"
    return _in_folder(folder or GENERATED_FOLDER, name)


def named_key(name: str, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return the key `<folder>/<name>`, or just `<name>`, with the extension of `image_format`.

    A name that can't be used as a key, such as "Müller 1.jpg", is transliterated: "Muller-1.jpg". The same
    name always results in the same key, but two different names may also result in the same key.

    Raises `InvalidKey` if the folder or the name is invalid, or if the key would look like the key of an
    immutable object.
    """
    key = _named_key(name, image_format, folder)
    if looks_immutable(key):
        raise InvalidKey("The name looks like one that the server generates. Choose another name.")
    return key


def imported_key(path: str, data: bytes, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return the key `<folder>/<path>` for an image that is imported from a directory.

    `path` is relative to that directory, and is transliterated as in `named_key`. The directory may be the
    export of a store, so the key is allowed to look like the key of an immutable object. Raises `InvalidKey`
    if the folder or the path is invalid, or if the key is content-addressed and does not match `data`.
    """
    key = _named_key(path, image_format, folder)
    if digest_in(key) and key != content_addressed_key(data, image_format, key.rsplit("/", 2)[0]):
        raise InvalidKey("The name is the digest of a different image. Rename the file.")
    return key


def is_plain_name(name: str) -> bool:
    """Return whether `name`, apart from its extension, can be used as a key unchanged."""
    return _PLAIN.match(name) is not None


def is_canonical(key: str) -> bool:
    """Return whether the server could have created `key`, which makes it safe as a relative path."""
    return _CANONICAL.match(key) is not None


def is_readable(key: str) -> bool:
    """Return whether `key` is safe in a URL.

    Such a key is not empty, does not exceed S3's limit on its length, and contains no empty segments, dot
    segments, control characters or backslashes.
    """
    try:
        length = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 1 <= length <= MAX_KEY_BYTES and not _UNREADABLE.search(key)


def check_readable(key: str) -> None:
    """Raise `InvalidKey` if `key` is not safe in a URL (see `is_readable`)."""
    if not is_readable(key):
        raise InvalidKey(_INVALID_KEY_MESSAGE)


def url_path(key: str) -> str:
    """Return `key` percent-encoded for the path of a URL (RFC 3986, 2.3)."""
    return quote(key, safe="/-._~")


def cache_control(*, immutable: bool) -> str:
    """Return the Cache-Control header for an object (RFC 9111, 5.2; RFC 8246)."""
    return "public, max-age=31536000, immutable" if immutable else "public, no-cache"


@lru_cache(maxsize=4096)
def looks_immutable(key: str) -> bool:
    """Return whether `key` has the shape of a content-addressed or generated key.

    This does not prove that the object is immutable.
    """
    return is_canonical(key) and bool(_CONTENT_ADDRESSED.match(key) or _GENERATED.match(key))


def looks_generated(key: str) -> bool:
    """Return whether `key` has the shape of a generated key."""
    return is_canonical(key) and _GENERATED.match(key) is not None


def digest_in(key: str) -> str | None:
    """Return the 32 hexadecimal digits that a content-addressed key contains, or None for any other key."""
    found = _CONTENT_ADDRESSED.match(key)
    return found[1] + found[2] if found and is_canonical(key) else None


def digest_metadata(key: str, data: bytes) -> Mapping[str, str]:
    """Return the metadata to store with `data`. For a generated key, it contains the SHA-256 of `data`."""
    return {_DIGEST_NAME: hashlib.sha256(data).hexdigest()} if looks_generated(key) else NO_METADATA


def expected_digest(facts: ObjectFacts) -> str:
    """Return the digits with which the SHA-256 of the bytes must start for the object to be immutable.

    Return an empty string if the object can't be immutable. A front server such as nginx sends the file of an
    immutable object and knows only its key. So the content type must be the one for the extension, and there
    must be no Content-Encoding.
    """
    if facts.content_encoding or facts.content_type != CONTENT_TYPES.get(facts.key.rpartition(".")[2]):
        return ""
    if looks_generated(facts.key):
        digest = facts.metadata.get(_DIGEST_NAME, "")
        return digest if len(digest) == _DIGEST_DIGITS else ""
    return digest_in(facts.key) or ""


def with_immutability(facts: ObjectFacts, sha256: str) -> ObjectFacts:
    """Return a copy of the facts that says whether the object is immutable, and that has no metadata.

    `sha256` is the hexadecimal digest of the object's bytes. If it is empty, the object counts as mutable.
    """
    expected = expected_digest(facts)
    is_immutable = bool(expected) and sha256.startswith(expected)
    return replace(facts, metadata=NO_METADATA, is_immutable=is_immutable)


def _named_key(name: str, image_format: ImageFormat, folder: str | None) -> str:
    if not is_plain_name(name):
        if _INVALID_NAME.search(name):
            raise InvalidKey(f"The name can't be used. {_NAME_RULE}")
        name = "/".join(map(_plain_segment, name.split("/")))
    key = _with_extension(name, image_format)
    key = _in_folder(folder, key) if folder else key
    if not is_canonical(key):
        raise InvalidKey(f"The name can't be used. {_rule_for(key)}")
    return key


def _plain_segment(segment: str) -> str:
    """Return the segment in ASCII. If it is too long, or nothing of it is left, append a digest."""
    stem, dot, extension = segment.rpartition(".")
    if not (stem and extension.lower() in CONTENT_TYPES):
        stem, dot, extension = segment, "", ""
    plain: str = slugify(
        stem,
        entities=False,
        decimal=False,
        hexadecimal=False,
        lowercase=False,
        regex_pattern=r"[^A-Za-z0-9_.-]+",
        backend="text-unidecode",
        algorithm="modern",
    ).strip("-.")
    room = MAX_SEGMENT - len("_12345678.jpeg")
    if not plain or len(plain) > room:
        plain = f"{plain[:room] or 'unnamed'}_{hashlib.sha256(segment.encode()).hexdigest()[:8]}"
    return f"{plain}{dot}{extension}"


def _with_extension(name: str, image_format: ImageFormat) -> str:
    stem, dot, extension = name.rpartition(".")
    if dot and extension in image_format.extensions:
        return name
    if dot and extension.lower() in CONTENT_TYPES:
        return f"{stem}.{image_format.extension}"
    return f"{name}.{image_format.extension}"


def _in_folder(folder: str, rest: str) -> str:
    key = f"{folder.strip('/')}/{rest}"
    if not _FOLDER.match(f"{folder.strip('/')}/") or len(key) > MAX_KEY_BYTES:
        raise InvalidKey(f"The folder can't be used. {_rule_for(key)}")
    return key


def _rule_for(key: str) -> str:
    """Return the rule that `key` violates: either the limit on its length, or the rule for its parts."""
    length = len(key.encode("utf-8", "surrogatepass"))
    if length > MAX_KEY_BYTES:
        return f"The whole key would be {length} bytes long, but S3 allows at most {MAX_KEY_BYTES}."
    return _KEY_RULE
