"""API keys: what one may do, how `API_KEYS` spells them, and how a new one is made."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SCOPES = ("upload", "generate", "delete", "list", "metrics")
"""What a key may be good for."""

HASH_PREFIX = "sha256:"

_NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)

_ENTRY = re.compile(rf"(?:(?P<name>{_NAME.pattern})(?::(?P<scopes>[^=]*))?=)?(?P<key>[^=].*)", re.ASCII)
"""`KEY`, `NAME=KEY` or `NAME:SCOPE+SCOPE=KEY`; the `=` that end some keys are part of them."""

_NOTHING_BEHIND = re.compile(r"[^=]*=+")
"""What `NAME=$KEY` becomes where KEY is not set; a key in base64 may end so, too."""

_BASE64 = re.compile(
    r"(?=.{12})(?=.*[a-z])(?=.*[A-Z])"
    r"(?:(?:[\w+/-]{4})*[\w+/-][AQgw]=="
    r"|(?=.*[\d+/].*[A-Za-z]|.{24})(?:[\w+/-]{4})*[\w+/-]{2}[AEIMQUYcgkosw048]=)",
    re.ASCII,
)
"""Padded as encoders do it (RFC 4648, 4 and 5) and mixed as no name is: `PublicSites=` could be either."""

_ALONE = re.compile(r"[!-<>-~]+=*")
"""A key without a name: visible ASCII, with `=` at the end only. Anything else is a name mistyped."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""What no header can carry (RFC 9110, 5.5)."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is accepted: `digest` is the SHA-256 of its bytes; the key itself is not kept.

    `length` is its number of characters, None where only the hash was given.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    length: int | None = field(default=None, repr=False)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of the setting, which commas set apart.

    Raises `ValueError`, whose message numbers the entry and shows nothing of it.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return tuple(_parse_entry(entry, number) for number, entry in enumerate(entries, 1))


def find_key(keys: Iterable[ApiKey], given: bytes) -> ApiKey | None:
    """The key that `given` is. All are compared, each in constant time, so that the time tells nothing."""
    digest = hashlib.sha256(given).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = found or key
    return found


def new_key(name: str, scopes: Sequence[str] = SCOPES) -> tuple[str, str]:
    """A random key, and the entry for `API_KEYS` that accepts it without containing it.

    Raises `ValueError` where the setting can't hold the name or the scopes.
    """
    key = secrets.token_urlsafe(32)
    limited = "" if set(scopes) == set(SCOPES) else f":{'+'.join(scopes)}"
    entry = f"{name}{limited}={HASH_PREFIX}{hashlib.sha256(key.encode()).hexdigest()}"
    if not _NAME.fullmatch(name):
        raise ValueError("a name begins with a letter and goes on with letters, digits, '.', '_' or '-'")
    _parse_entry(entry, 1)
    return key, entry


def _parse_entry(entry: str, number: int) -> ApiKey:
    if _NOTHING_BEHIND.fullmatch(entry) and not _BASE64.fullmatch(entry):
        raise ValueError(f"entry {number} has no key behind the =; one that ends in = itself needs a NAME=")
    match = _ENTRY.fullmatch(entry)
    if match is None or (match["name"] is None and _has_scopes(entry)):
        raise ValueError(f"entry {number} is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY")
    if match["name"] is None and not _ALONE.fullmatch(entry):
        raise ValueError(
            f"entry {number} is neither NAME=KEY, where the NAME begins with a letter and has no spaces, "
            "nor a KEY alone, which is of visible ASCII characters without = between them"
        )
    name = match["name"] or f"key-{number}"
    key = match["key"].strip()  # HTTP takes white space from around a header's value, too
    if _CONTROL.search(key):
        raise ValueError(f"entry {number} holds a line break or another control character")
    length = None if _is_hash(key) else len(key)
    return ApiKey(name, _scopes(match["scopes"], number), _digest(key, number), length)


def _has_scopes(entry: str) -> bool:
    """Whether it begins like `NAME:SCOPE+SCOPE`: taken for a key, it could be guessed, and would do all."""
    name, colon, scopes = entry.partition("=")[0].partition(":")
    is_named = bool(_NAME.fullmatch(name)) and "=" in entry
    return bool(colon) and (is_named or not set(SCOPES).isdisjoint(scopes.lower().split("+")))


def _scopes(text: str | None, number: int) -> frozenset[str]:
    scopes = SCOPES if text is None else text.lower().split("+")
    if not set(scopes) <= set(SCOPES):
        raise ValueError(f"entry {number} has an unknown scope; join some of {', '.join(SCOPES)} with +")
    return frozenset(scopes)


def _digest(key: str, number: int) -> bytes:
    if not _is_hash(key):
        return hashlib.sha256(key.encode()).digest()
    digest = key[len(HASH_PREFIX) :]
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"entry {number} has {HASH_PREFIX} without the 64 hex digits of a SHA-256")
    return bytes.fromhex(digest)


def _is_hash(key: str) -> bool:
    return key.lower().startswith(HASH_PREFIX)
