"""Sources of credentials that fail, each in another way: files, processes, profiles, roles."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Break = Callable[[pytest.MonkeyPatch, Path], None]

TELLTALE = "tell-tale-of-a-secret"
"""Part of the secrets of these sources. No log and no response may show it."""

ROLE = "arn:aws:iam::123456789012:role/images"
KEYS = f"aws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {TELLTALE}\n"
NOWHERE = "http://127.0.0.1:9/role"


def _variables(**values: str) -> Break:
    def apply(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value.replace("HOME", str(home)))

    return apply


def _config(text: str, profile: str = "default") -> Break:
    def apply(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        (home / "config").write_text(text.replace("HOME", str(home)), encoding="utf-8")
        monkeypatch.setenv("AWS_PROFILE", profile)

    return apply


def _shared(text: str) -> Break:
    def apply(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        (home / "credentials").write_text(text, encoding="utf-8")

    return apply


def _process(printed: str, status: int = 0) -> Break:
    """Configure a `credential_process` that prints this text to both of its outputs."""

    def apply(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        code = f"import sys\nprint({printed!r})\nprint({printed!r}, file=sys.stderr)\nsys.exit({status})\n"
        (home / "process.py").write_text(code, encoding="utf-8")
        command = f"[default]\ncredential_process = {sys.executable} {home}/process.py\n"
        (home / "config").write_text(command, encoding="utf-8")

    return apply


def _token_file(text: str) -> Break:
    """Configure a container's token in a file with this text."""

    def apply(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        (home / "token").write_text(text, encoding="utf-8")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", NOWHERE)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(home / "token"))

    return apply


def process_output(**changes: object) -> str:
    """Return the output of a `credential_process` with these changes; "missing" omits a value."""
    whole = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": TELLTALE}
    return json.dumps({name: value for name, value in {**whole, **changes}.items() if value != "missing"})


_ASSUMED = f"[profile images]\nrole_arn = {ROLE}\n"

SOURCES: dict[str, Break] = {
    "none": _variables(),
    "half": _variables(AWS_ACCESS_KEY_ID=TELLTALE),
    "profile-missing": _variables(AWS_PROFILE="no-such-profile"),
    "token-file-missing": _variables(AWS_WEB_IDENTITY_TOKEN_FILE="HOME/none", AWS_ROLE_ARN=ROLE),
    "token-file-is-a-directory": _variables(AWS_WEB_IDENTITY_TOKEN_FILE="HOME", AWS_ROLE_ARN=ROLE),
    "token-without-a-role": _variables(AWS_WEB_IDENTITY_TOKEN_FILE="HOME/none"),
    "container-token-file-missing": _variables(
        AWS_CONTAINER_CREDENTIALS_FULL_URI=NOWHERE, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="HOME/none"
    ),
    "container-token-in-two-lines": _variables(
        AWS_CONTAINER_CREDENTIALS_FULL_URI=NOWHERE, AWS_CONTAINER_AUTHORIZATION_TOKEN=f"{TELLTALE}\nx"
    ),
    "container-token-with-a-control": _variables(
        AWS_CONTAINER_CREDENTIALS_FULL_URI=NOWHERE, AWS_CONTAINER_AUTHORIZATION_TOKEN=f"{TELLTALE}\x01"
    ),
    "container-token-file-of-two-lines": _token_file(f"{TELLTALE}\nx"),
    "container-elsewhere": _variables(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://example.org/role"),
    "container-url-that-is-invalid": _variables(AWS_CONTAINER_CREDENTIALS_FULL_URI="role"),
    "container-unreachable": _variables(AWS_CONTAINER_CREDENTIALS_FULL_URI=NOWHERE),
    "process-missing": _config("[default]\ncredential_process = HOME/none\n"),
    "process-not-executable": _config("[default]\ncredential_process = HOME\n"),
    "process-quoted-wrongly": _config('[default]\ncredential_process = /bin/echo "x\n'),
    "process-without-json": _process(f"{TELLTALE}: not JSON"),
    "process-with-a-list": _process("[1]"),
    "process-without-utf-8": _process("\udcff"),
    "process-that-fails": _process(process_output(), status=1),
    "process-of-another-version": _process(process_output(Version=2)),
    "process-without-a-key": _process(process_output(AccessKeyId="missing")),
    "process-with-null": _process(process_output(AccessKeyId=None)),
    "process-with-a-number": _process(process_output(SecretAccessKey=5)),
    "process-with-no-date": _process(process_output(Expiration="soon")),
    "process-with-a-line-break": _process(process_output(SessionToken=f"{TELLTALE}\nx")),
    "process-with-non-ascii": _process(process_output(SessionToken=f"{TELLTALE}…")),
    "mfa": _config(
        f"{_ASSUMED}source_profile = base\nmfa_serial = arn:aws:iam::1:mfa/x\n[profile base]\n{KEYS}",
        "images",
    ),
    "role-of-itself": _config(
        f"{_ASSUMED}source_profile = other\n[profile other]\nrole_arn = {ROLE}\nsource_profile = images\n",
        "images",
    ),
    "role-of-a-missing-profile": _config(f"{_ASSUMED}source_profile = none\n", "images"),
    "role-of-an-unknown-source": _config(f"{_ASSUMED}credential_source = Nothing\n", "images"),
    "role-of-a-failing-process": _config(
        f"{_ASSUMED}source_profile = base\n[profile base]\ncredential_process = HOME/none\n", "images"
    ),
    "sso-without-a-token": _config(
        "[profile images]\nsso_start_url = https://example.awsapps.com/start\nsso_region = us-east-1\n"
        "sso_account_id = 1\nsso_role_name = r\n",
        "images",
    ),
    "sso-session-missing": _config("[profile images]\nsso_session = none\nsso_account_id = 1\n", "images"),
    "config-that-is-invalid": _config(f"{TELLTALE} without a section\n"),
    "credentials-that-are-invalid": _shared(f"[default]\n{TELLTALE} without an equals sign\n"),
    "token-in-two-lines": _shared(f"[default]\n{KEYS}aws_session_token = {TELLTALE}\n  x\n"),
    "key-in-two-lines": _shared(
        f"[default]\naws_access_key_id = A\n  B\naws_secret_access_key = {TELLTALE}\n"
    ),
    "machine-elsewhere": _variables(
        AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT="not a URL"
    ),
    "machine-with-a-wrong-timeout": _variables(AWS_METADATA_SERVICE_TIMEOUT="soon"),
    "login-without-a-token": _config("[profile images]\nlogin_session = arn:aws:iam::1:user/x\n", "images"),
}
"""Each function breaks one source. There are no other credentials."""


def remove_all(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Remove all sources of credentials except those below `home`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
