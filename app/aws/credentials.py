"""What boto3's sources of credentials may do: end in time, ask nobody, and give what a request can carry."""

import getpass
import re
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError
from botocore.utils import FileWebIdentityTokenLoader

PROCESS_SECONDS = 15
"""How long a profile's `credential_process` may take."""

_NAMES = {"access_key": "access key", "secret_key": "secret key", "token": "session token"}

_SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\xff]*", re.DOTALL)
"""What a header's value may hold (RFC 9110, 5.5), in the characters of Latin-1."""

_IN_HEADERS = re.compile(r"[\x21-\x7e]*")
_WITHOUT_CONTROLS = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")


class UnusableCredentials(CredentialRetrievalError):
    """A source gave credentials with characters that no request can carry."""


class CheckedCredentials:
    """Credentials as `source` gives them, without surrounding white space. Raises `UnusableCredentials`."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the present credentials, renewed if it is time."""
        frozen = self._source.get_frozen_credentials()
        checked = {name: self._checked(name, getattr(frozen, name)) for name in _NAMES}
        return ReadOnlyCredentials(**{**frozen._asdict(), **checked})

    def _checked(self, name: str, value: object) -> str | None:
        if value is None and name == "token":
            return None
        text = value.strip() if isinstance(value, str) else ""
        allowed = _WITHOUT_CONTROLS if name == "secret_key" else _IN_HEADERS
        if not allowed.fullmatch(text) or (not isinstance(value, str)):
            raise UnusableCredentials(
                provider=self._source.method,
                error_msg=f"the {_NAMES[name]} is not text that a request can carry: copy it anew",
            )
        return text


def find_unsendable(headers: Iterable[tuple[str, Any]]) -> str:
    """Return the name of a header whose value HTTP can't carry, or an empty string."""
    for name, value in headers:
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        if not _SENDABLE.fullmatch(text):
            return name
    return ""


def bind_providers(providers: Iterable[Any], *, may_ask: bool) -> None:
    """Hold providers of credentials, and those that they make for source profiles, to this module's rules."""
    for provider in providers:
        if hasattr(provider, "_popen"):
            provider._popen = _Process
        if hasattr(provider, "_prompter"):
            provider._prompter = getpass.getpass if may_ask else _ask_nobody
        if hasattr(provider, "_token_loader_cls"):
            provider._token_loader_cls = _TokenFile
        if hasattr(
            provider, "_validate_auth_token"
        ):  # of containers; what else is wrong shows when it is sent
            provider._validate_auth_token = lambda token: None
            provider._build_headers = partial(_bare_headers, provider._build_headers)
        builder = getattr(provider, "_profile_provider_builder", None)
        if builder is not None:
            builder.providers = _bound(builder.providers, may_ask)


def _bound(make: Callable[..., list[Any]], may_ask: bool) -> Callable[..., list[Any]]:
    def providers(*args: Any, **more: Any) -> list[Any]:
        made = make(*args, **more)
        bind_providers(made, may_ask=may_ask)
        return made

    return providers


def _bare_headers(build: Callable[[], dict[str, str] | None]) -> dict[str, str]:
    """Return headers without the line break in which the file of a container's token may end."""
    return {name: value.strip() for name, value in (build() or {}).items()}


def _ask_nobody(prompt: str) -> str:
    raise CredentialRetrievalError(
        provider="assume-role",
        error_msg="the profile wants an MFA code, which nobody can type for a server: use a role or a key "
        "without MFA, or temporary credentials",
    )


class _TokenFile(FileWebIdentityTokenLoader):
    """A web identity token, whose file may end in a line break."""

    def __call__(self) -> str:
        return str(super().__call__()).strip()


class _Process(subprocess.Popen[bytes]):
    """A `credential_process`. What it prints if it fails is not passed on: it may hold credentials."""

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Return its output. Raises `CredentialRetrievalError` if it does not end in time."""
        try:
            output, _ = super().communicate(input, timeout or PROCESS_SECONDS)
        except subprocess.TimeoutExpired as exc:
            self.kill()
            self.wait()
            for pipe in (self.stdout, self.stderr):
                if pipe is not None:
                    pipe.close()
            raise CredentialRetrievalError(
                provider="custom-process", error_msg=f"it did not end within {PROCESS_SECONDS} seconds"
            ) from exc
        return output, f"exit status {self.returncode}; run it by hand to see why".encode()
