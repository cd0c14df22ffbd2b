"""Signatures of URLs. A signature permits the variant that is at this URL, optionally until a certain time.

    sig = base64url(HMAC-SHA-256(key, path))                without `=` at the end: 43 characters
    sig = base64url(HMAC-SHA-256(key, path + "?exp=" + N))  valid until N, in seconds since the epoch

`path` is the path in the URL of the variant, percent-encoded, without the mount point of the server. It
begins with `/api/images/`. docs/signed-urls.md describes how to sign URLs in other programs.
"""

import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from itsdangerous import Signer
from itsdangerous.signer import HMACAlgorithm

from app.config.settings import Config
from app.config.variant_fields import is_signing_key
from app.core.errors import ConfigError, SignatureRefused, StateUnavailable
from app.core.system import REFUSED, sync

KEY_FILE = "signing-key"
"""The name of the file in `STATE_DIR` that contains the key if `SIGNING_KEYS` is not set."""

_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)
"""Matches 256 bits in base64url. The last character has two unused bits, which must be 0."""

_TIME = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


class UrlSigner:
    """Signs URLs with the first of `keys`, and verifies signatures that were made with any of them.

    So you can replace a key: put a new key in front, and remove the old one when its URLs are not used any
    more.

    Without `keys`, the key is in `key_file`. The first process that signs a URL creates the file. Before
    that, there are no valid signatures.
    """

    def __init__(self, keys: Sequence[str], key_file: Path | None = None) -> None:
        self._signer = _signer_with(keys) if keys else None
        self._key_file = key_file

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return a signer with `SIGNING_KEYS` or, if these are not set, with the key in `STATE_DIR`.

        Raises `ConfigError` if the file of the key exists, but is unusable.
        """
        if config.signing_keys or config.variants == "off":
            return cls(config.signing_keys)
        path = config.state_dir / KEY_FILE
        key = _read_key(path)
        return cls([key] if key else (), path)

    def sign(self, path: str, expires_at: int | None = None) -> str:
        """Return the query that permits the URL path: `sig=…`, or `exp=…&sig=…` if it expires.

        `expires_at` is in seconds since the epoch. Raises `StateUnavailable` if no key can be created.
        """
        signer = self._load(create=True)
        if signer is None:
            raise _unavailable("there is neither a key nor a file for it")
        expiry = "" if expires_at is None else f"exp={expires_at:d}"
        signature = signer.get_signature(_message(path, expiry)).decode()
        return f"{expiry}&sig={signature}" if expiry else f"sig={signature}"

    def verify(self, path: str, sig: str, exp: str | None = None) -> None:
        """Raise `SignatureRefused` if `sig` is not a signature of the path, or if it has expired.

        `sig` and `exp` are the values in the query; `exp` is None if the query does not contain it. Raises
        `StateUnavailable` if the key can't be read.
        """
        if not _SIGNATURE.fullmatch(sig) or (exp is not None and not _TIME.fullmatch(exp)):
            raise SignatureRefused("The signature of this URL is malformed.")
        expiry = "" if exp is None else f"exp={exp}"
        signer = self._load(create=False)
        if signer is None or not signer.verify_signature(_message(path, expiry), sig):
            raise SignatureRefused("The signature does not match this URL.")
        if exp is not None and int(exp) <= time.time():
            raise SignatureRefused("The signature of this URL has expired.")

    def _load(self, *, create: bool) -> Signer | None:
        """Return the signer, or None if there is no key yet. With `create`, create the key if necessary."""
        if self._signer is None and self._key_file is not None:
            try:
                key = _read_key(self._key_file)
                if key is None and create:
                    _create_key(self._key_file)
                    key = _read_key(self._key_file)
            except (OSError, ConfigError) as exc:
                raise _unavailable(str(exc)) from exc
            self._signer = _signer_with([key]) if key else None
        return self._signer


def _signer_with(keys: Sequence[str]) -> Signer:
    newest_last = [key.encode() for key in reversed(keys)]
    return Signer(newest_last, key_derivation="none", algorithm=HMACAlgorithm(hashlib.sha256))


def _unavailable(detail: str) -> StateUnavailable:
    message = "The key that signs URLs is not available. The server's log has the reason."
    return StateUnavailable(message, detail=detail)


def _message(path: str, expiry: str) -> str:
    """Return the text that is signed. A path contains no `?`, so no two URLs have the same text."""
    return f"{path}?{expiry}" if expiry else path


def _read_key(path: Path) -> str | None:
    """Return the key in the file, or None if there is no file.

    Raises `ConfigError` if the file can't be read or does not contain a key.
    """
    hint = f"Restore the file, remove it to get a new key, or set SIGNING_KEYS: {path}"
    try:
        key = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ConfigError(f"The key that signs URLs can't be read ({exc.strerror}). {hint}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"The key that signs URLs is damaged. {hint}") from exc
    if not is_signing_key(key):
        raise ConfigError(f"The key that signs URLs is {'damaged' if key else 'empty'}. {hint}")
    return key


def _create_key(path: Path) -> None:
    """Create the file with a random key, unless another process creates it first.

    No process sees an incomplete file. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{KEY_FILE}-")  # with mode 600
    try:
        os.write(descriptor, secrets.token_urlsafe(32).encode())
        _give_to_owner_of(path.parent, descriptor)
        sync(descriptor)
        _link(Path(temporary), path)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


def _give_to_owner_of(directory: Path, descriptor: int) -> None:
    """Give the file to the owner of the directory if root runs the command that creates it.

    Otherwise, the server could not read the file.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        with suppress(OSError):  # refused in some containers
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _link(temporary: Path, path: Path) -> None:
    """Let the file appear at `path`, unless there is one already. Raises `OSError`."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError as exc:
        if exc.errno not in REFUSED:
            raise
        if not path.exists():  # the file system has no hard links
            temporary.rename(path)
