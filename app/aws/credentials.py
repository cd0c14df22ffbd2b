"""Limits on boto3's credential providers. Without them, providers may hang or prompt for input."""

import getpass
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from botocore.exceptions import CredentialRetrievalError
from botocore.utils import FileWebIdentityTokenLoader

PROCESS_TIMEOUT_SECONDS = 15
"""Timeout of a profile's `credential_process`."""


def limit_providers(providers: Iterable[Any], *, interactive: bool) -> None:
    """Apply the limits to credential providers, and to the providers that they create for source profiles.

    If `interactive` is True, a provider that needs an MFA code asks for it at the terminal. Otherwise, it
    raises `CredentialRetrievalError`.
    """
    for provider in providers:
        if hasattr(provider, "_popen"):
            provider._popen = _CredentialProcess
        if hasattr(provider, "_prompter"):
            provider._prompter = getpass.getpass if interactive else _refuse_prompt
        if hasattr(provider, "_token_loader_cls"):
            provider._token_loader_cls = _WebIdentityToken
        if hasattr(provider, "_validate_auth_token"):  # the container provider
            # botocore rejects a token with a line break, but the token's file may end in one. So we strip the
            # token instead. If it contains other invalid characters, it is rejected when it is sent.
            provider._validate_auth_token = lambda token: None
            provider._build_headers = partial(_stripped_headers, provider._build_headers)
        builder = getattr(provider, "_profile_provider_builder", None)
        if builder is not None:
            builder.providers = _limited(builder.providers, interactive)


def _limited(create: Callable[..., list[Any]], interactive: bool) -> Callable[..., list[Any]]:
    def providers(*args: Any, **more: Any) -> list[Any]:
        created = create(*args, **more)
        limit_providers(created, interactive=interactive)
        return created

    return providers


def _stripped_headers(build: Callable[[], dict[str, str] | None]) -> dict[str, str]:
    return {name: value.strip() for name, value in (build() or {}).items()}


def _refuse_prompt(prompt: str) -> str:
    raise CredentialRetrievalError(
        provider="assume-role",
        error_msg="the profile requires an MFA code, but a server can't prompt for one: use a role or a key "
        "without MFA, or temporary credentials",
    )


class _WebIdentityToken(FileWebIdentityTokenLoader):
    """Loads a web identity token from a file, and removes the line break at the end."""

    def __call__(self) -> str:
        return str(super().__call__()).strip()


class _CredentialProcess(subprocess.Popen[bytes]):
    """A `credential_process` with a timeout.

    If a process fails, botocore quotes the process's standard error output in an exception. This output may
    contain credentials, so this class replaces the output with the exit status.
    """

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Return the output, and a message with the exit status in place of the standard error output.

        Raises `CredentialRetrievalError` if the process does not end before the timeout.
        """
        try:
            output, _ = super().communicate(input, timeout or PROCESS_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as exc:
            self.kill()
            self.wait()
            for pipe in (self.stdout, self.stderr):
                if pipe is not None:
                    pipe.close()
            raise CredentialRetrievalError(
                provider="custom-process",
                error_msg=f"it did not end within {PROCESS_TIMEOUT_SECONDS} seconds",
            ) from exc
        return output, f"exit status {self.returncode}; run it by hand to see why".encode()
