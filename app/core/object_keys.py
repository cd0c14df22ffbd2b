"""Which objects are immutable: those whose bytes are proven to be the ones that their key stands for.

A key's shape proves nothing, since others may put anything into the bucket under such a key, and replace it.
A content-addressed key contains the beginning of the SHA-256 of its bytes. A generated one does not, so the
digest is stored with the image, as metadata. If it is missing or another one, the object is mutable.

Object keys: made, checked and URL-encoded here and nowhere else.

A *canonical* key is one that we make: ASCII segments set apart by `/`, the last one ending in an image
extension, none of the others doing so (hence no key is both a file and a directory), safe as a relative
path. A *readable* key is any key that may lie in somebody's bucket and can be asked for.

    images/<2 hex>/<30 hex>.<ext>            the SHA-256 of the bytes: content-addressed
    generated/<yyyy>/<mm>/<time>_<random>.<ext>
    <folder>/<name>.<ext>                    named: mutable, caches must revalidate

What this server stores under the first two shapes never changes, so a name of such a shape is refused. Others
may have put something else under such a key: whether it is immutable is for `app.core.object_keys` to say.
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
"""S3's bound on a key in UTF-8 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""

MAX_SEGMENT = 200
"""File systems take names of 255 bytes; the rest is room for suffixes that stores add."""

UPLOAD_FOLDER = "images"
GENERATED_FOLDER = "generated"

_EXTENSIONS = "|".join(CONTENT_TYPES)
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PARENTS = rf"(?:(?![^/]*\.(?i:{_EXTENSIONS})/){_NAME}/)"
_BOUNDS = rf"(?=.{{1,{MAX_KEY_BYTES}}}\Z)(?!.*[^/]{{{MAX_SEGMENT + 1}}})"
_CANONICAL = re.compile(rf"{_BOUNDS}{_PARENTS}*{_NAME}\.(?:{_EXTENSIONS})\Z")
_FOLDER = re.compile(rf"{_BOUNDS}{_PARENTS}+\Z")
_CONTENT_ADDRESSED = re.compile(rf".+/([0-9a-f]{{2}})/([0-9a-f]{{30}})\.(?:{_EXTENSIONS})\Z")
_GENERATED = re.compile(rf".+/\d{{4}}/\d{{2}}/\d{{8}}_\d{{6}}_[0-9a-f]{{24}}\.(?:{_EXTENSIONS})\Z")
_PLAIN = re.compile(rf"(?!.*[^/]{{{MAX_SEGMENT + 1}}}){_NAME}(?:/{_NAME})*\Z")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff\ufffd]|(?:^|/)(?:\.|/|\Z)|[^/]{256}")
"""What is refused in names: control characters, backslashes, segments that are empty, begin with a dot or
have more than 255 characters, the most that file systems allow. U+FFFD stands for bytes that are not UTF-8:
with it different names would be one, and the second image would replace the first."""

_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|(?:^|/)\.{0,2}(?:/|\Z)")
"""Clients remove dot segments (RFC 3986, 5.2.4) and control characters from URLs and take a backslash for a
slash, and proxies merge slashes: the URL of such a key may mean another one."""

_ALLOWED = (
    "Use ASCII letters, digits, '.', '_' and '-' in parts set apart by '/', each at most "
    f"{MAX_SEGMENT} characters long and beginning with a letter, a digit or '_'; "
    "no folder may end like an image file."
)

_NAMES = (
    "Each of its parts, set apart by '/', may have 1 to 255 characters, and none may begin with a dot. "
    "Control characters, backslashes and bytes that are not UTF-8 are refused."
)

_UNSAFE = (
    "That is not a valid image key. It has an empty or dot segment, a backslash or a control character, is "
    f"not Unicode, or is longer than {MAX_KEY_BYTES} bytes."
)


def is_canonical(key: str) -> bool:
    """Whether `key` is one that we could have made, and so is safe as a relative path."""
    return _CANONICAL.match(key) is not None


@lru_cache(maxsize=4096)
def looks_immutable(key: str) -> bool:
    """Return whether `key` looks content-addressed or generated. Somebody else's may look so by chance."""
    return is_canonical(key) and bool(_CONTENT_ADDRESSED.match(key) or _GENERATED.match(key))


def looks_generated(key: str) -> bool:
    """Return whether `key` has the shape of those that `generated` makes."""
    return is_canonical(key) and _GENERATED.match(key) is not None


def digest_in(key: str) -> str | None:
    """The 32 hex digits that a key of the content-addressed shape has of a digest; None for other keys."""
    found = _CONTENT_ADDRESSED.match(key)
    return found[1] + found[2] if found and is_canonical(key) else None


def is_readable(key: str) -> bool:
    """Return whether a URL can name `key` safely: no empty or dot segment, control character or backslash."""
    try:
        length = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 1 <= length <= MAX_KEY_BYTES and not _UNREADABLE.search(key)


def check_readable(key: str) -> None:
    """Raise `InvalidKey` unless `is_readable`."""
    if not is_readable(key):
        raise InvalidKey(_UNSAFE)


def cache_control(*, immutable: bool) -> str:
    """What browsers and proxies may do with an object (RFC 9111, 5.2; RFC 8246)."""
    return "public, max-age=31536000, immutable" if immutable else "public, no-cache"


def url_path(key: str) -> str:
    """`key` percent-encoded for the path of a URL (RFC 3986, 2.3)."""
    return quote(key, safe="/-._~")


def content_addressed_key(data: bytes, image_format: ImageFormat, folder: str | None = None) -> str:
    """The key under which these very bytes are stored once.

    Raises `InvalidKey` for a folder outside the grammar.
    """
    digest = hashlib.sha256(data).hexdigest()
    return _in_folder(folder or UPLOAD_FOLDER, f"{digest[:2]}/{digest[2:32]}.{image_format.extension}")


def generated_key(now: datetime, image_format: ImageFormat, folder: str | None = None) -> str:
    """A new, unguessable key for an image generated at `now`.

    Raises `InvalidKey` for a folder outside the grammar.
    """
    name = f"{now:%Y/%m/%Y%m%d_%H%M%S}_{secrets.token_hex(12)}.{image_format.extension}"
    return _in_folder(folder or GENERATED_FOLDER, name)


def is_plain_name(name: str) -> bool:
    """Return whether keys can hold `name` as it is, apart from its extension."""
    return _PLAIN.match(name) is not None


def named_key(name: str, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return the key `<folder>/<name>`, or `name` alone, with the extension of the decoded format.

    A name that is not plain, such as "Müller 1.jpg", is spelled with the characters that keys have:
    "Muller-1.jpg". The same name always gives the same key, but two names may give one key.

    Raises `InvalidKey` for a folder outside the grammar, for a name that no file can have, and for one that
    would look like an immutable key.
    """
    key = _placed(name, image_format, folder)
    if looks_immutable(key):
        raise InvalidKey("The name looks like one that the server gives by itself. Please choose another.")
    return key


def kept(path: str, data: bytes, image_format: ImageFormat, folder: str | None = None) -> str:
    """Return the key `<folder>/<path>` for an image from a directory, spelled as `named` spells it.

    The directory may have been exported from a store, so the key may be immutable, but not one that is made
    from other bytes.

    Raises `InvalidKey` for such a key, and as `named` does.
    """
    key = _placed(path, image_format, folder)
    if digest_in(key) and key != content_addressed_key(data, image_format, key.rsplit("/", 2)[0]):
        raise InvalidKey("The name is made from the bytes of another image. Please rename the file.")
    return key


def _placed(name: str, image_format: ImageFormat, folder: str | None) -> str:
    if not is_plain_name(name):
        if _NO_NAME.search(name):
            raise InvalidKey(f"The name can't be used. {_NAMES}")
        name = "/".join(map(_plain_segment, name.split("/")))
    key = _with_extension(name, image_format)
    key = _in_folder(folder, key) if folder else key
    if not is_canonical(key):
        raise InvalidKey(f"The name can't be used. {_reason(key)}")
    return key


def _plain_segment(segment: str) -> str:
    """Return a file's name in ASCII. What can't be spelled or is too long is told apart by a digest."""
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


def _in_folder(folder: str, rest: str) -> str:
    key = f"{folder.strip('/')}/{rest}"
    if not _FOLDER.match(f"{folder.strip('/')}/") or len(key) > MAX_KEY_BYTES:
        raise InvalidKey(f"The folder can't be used. {_reason(key)}")
    return key


def _reason(key: str) -> str:
    """Why it is refused: each of its parts may be as short as it should be."""
    length = len(key.encode("utf-8", "surrogatepass"))
    if length <= MAX_KEY_BYTES:
        return _ALLOWED
    return f"The whole key would be {length} bytes long, and S3 takes {MAX_KEY_BYTES} at most."


def _with_extension(name: str, image_format: ImageFormat) -> str:
    stem, dot, extension = name.rpartition(".")
    if dot and extension in image_format.extensions:
        return name
    if dot and extension.lower() in CONTENT_TYPES:
        return f"{stem}.{image_format.extension}"
    return f"{name}.{image_format.extension}"


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
