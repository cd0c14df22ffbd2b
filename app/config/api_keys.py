"""API keys. This module parses `API_KEYS`, checks the keys that clients send, and generates keys."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SCOPES = ("upload", "generate", "delete", "list", "metrics")
"""The permissions that a key can have. An entry without scopes gives its key all of them."""

HASH_PREFIX = "sha256:"

_NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)

_ENTRY = re.compile(rf"(?:(?P<name>{_NAME.pattern})(?::(?P<scopes>[^=]*))?=)?(?P<key>[^=].*)", re.ASCII)
"""`KEY`, `NAME=KEY` or `NAME:SCOPE+SCOPE=KEY`. A `=` at the end of a key belongs to the key."""

_NO_KEY = re.compile(r"[^=]*=+")
"""What a shell turns `NAME=$KEY` into if the variable KEY is not set. A key in Base64 can look the same."""

_BASE64 = re.compile(
    r"(?=.{12})(?=.*[a-z])(?=.*[A-Z])"
    r"(?:(?:[\w+/-]{4})*[\w+/-][AQgw]=="
    r"|(?=.*[\d+/].*[A-Za-z]|.{24})(?:[\w+/-]{4})*[\w+/-]{2}[AEIMQUYcgkosw048]=)",
    re.ASCII,
)
"""A random key in Base64 with padding (RFC 4648, 4 and 5).

The key must mix characters in a way that names don't. Otherwise `PublicSites=`, which is probably a name
without a key, would match."""

_KEY_WITHOUT_NAME = re.compile(r"[!-<>-~]+=*")
"""Visible ASCII characters, with `=` at the end only. Any other entry is probably a mistyped `NAME=KEY`."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters that are not allowed in headers (RFC 9110, 5.5)."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that the server accepts.

    `digest` is the SHA-256 of the key's bytes; the key itself is not kept. `length` is the length of the key
    in characters, or None if the setting contains only the hash.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    length: int | None = field(default=None, repr=False)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Return the keys in a comma-separated list.

    Raises `ValueError` if an entry is invalid. The message contains the number of the entry, but not its
    text.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return tuple(_parse_entry(entry, number) for number, entry in enumerate(entries, 1))


def find_key(keys: Iterable[ApiKey], given: bytes) -> ApiKey | None:
    """Return the key whose bytes are `given`, or None.

    All keys are compared, each in constant time, so that the duration reveals nothing about the keys.
    """
    digest = hashlib.sha256(given).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = found or key
    return found


def new_key(name: str, scopes: Sequence[str] = SCOPES) -> tuple[str, str]:
    """Return a random key and its entry for `API_KEYS`. The entry contains only the hash of the key.

    Raises `ValueError` if the name or a scope is not allowed in `API_KEYS`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a key name. Start with a letter, then use letters, digits, '.', '_' or '-', "
            "64 characters at most."
        )
    if not {scope.lower() for scope in scopes} <= set(SCOPES):
        raise ValueError(f"Unknown scope. Join some of {', '.join(SCOPES)} with +.")
    key = secrets.token_urlsafe(32)
    limited = "" if set(scopes) == set(SCOPES) else f":{'+'.join(scopes)}"
    return key, f"{name}{limited}={HASH_PREFIX}{hashlib.sha256(key.encode()).hexdigest()}"


def _parse_entry(entry: str, number: int) -> ApiKey:
    if _NO_KEY.fullmatch(entry) and not _BASE64.fullmatch(entry):
        raise ValueError(f"entry {number} has no key after the =. If the key ends in =, write NAME=KEY.")
    match = _ENTRY.fullmatch(entry)
    if match is None or (match["name"] is None and _starts_with_scopes(entry)):
        raise ValueError(f"entry {number} is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY.")
    if match["name"] is None and not _KEY_WITHOUT_NAME.fullmatch(entry):
        raise ValueError(
            f"entry {number} is neither NAME=KEY nor KEY. A name starts with a letter and contains no "
            "spaces. A key without a name is visible ASCII, with = only at its end."
        )
    name = match["name"] or f"key-{number}"
    key = match["key"].strip()  # in HTTP, white space around a header value is removed too
    if _CONTROL.search(key):
        raise ValueError(f"entry {number} contains a line break or another control character. Remove it.")
    scopes = SCOPES if match["scopes"] is None else match["scopes"].lower().split("+")
    if not set(scopes) <= set(SCOPES):
        raise ValueError(f"entry {number} has an unknown scope. Join some of {', '.join(SCOPES)} with +.")
    if not key.lower().startswith(HASH_PREFIX):
        return ApiKey(name, frozenset(scopes), hashlib.sha256(key.encode()).digest(), len(key))
    digest = key[len(HASH_PREFIX) :]
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"entry {number} has {HASH_PREFIX} without the 64 hex digits of a SHA-256.")
    return ApiKey(name, frozenset(scopes), bytes.fromhex(digest))


def _starts_with_scopes(entry: str) -> bool:
    """Return whether the entry starts like `NAME:SCOPE+SCOPE`.

    If such an entry were accepted as a key without a name, the key would be easy to guess and would have all
    scopes.
    """
    name, colon, scopes = entry.partition("=")[0].partition(":")
    is_named = bool(_NAME.fullmatch(name)) and "=" in entry
    return bool(colon) and (is_named or not set(SCOPES).isdisjoint(scopes.lower().split("+")))
