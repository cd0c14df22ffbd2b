"""Warnings about names that are probably mistyped settings. A mistyped setting silently has no effect."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from io import StringIO

from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from dotenv.parser import Binding, parse_stream

from app.config.env_file import loaded_text
from app.config.settings import Config

_log = logging.getLogger(__name__)

CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"}
"""Settings that boto3 reads directly."""

_SETTINGS = {field.name.upper() for field in fields(Config)} | CREDENTIALS | {"ENV_FILE"}

_BOTO3_VARIABLES = {
    name
    for _, names, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values()
    for name in ([names] if isinstance(names, str) else names or [])
}

_LIBRARY_VARIABLES = re.compile(
    r"AWS_(?:ACCOUNT_ID|ROLE_ARN|ROLE_SESSION_NAME|WEB_IDENTITY_TOKEN_FILE|SECURITY_TOKEN|CREDENTIAL_\w+"
    r"|CONTAINER_\w+|EC2_\w+|ENDPOINT_URL(?:_\w+)?|EXECUTION_ENV|BEARER_TOKEN_\w+)"
    r"|OPENAI_(?:ORG_ID|PROJECT_ID|LOG)|PROMETHEUS_\w+|PYTHON\w+|MALLOC_\w+|LC_\w+"
    r"|(?:HTTP|HTTPS|NO|ALL)_PROXY|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|TZ|LANG|TMPDIR|PATH|HOME"
)
"""The names of variables that a library or the operating system reads."""

_ENVIRONMENT_SIMILARITY, _FILE_SIMILARITY = 0.8, 0.6
"""How similar a name must be to that of a setting to count as mistyped (difflib's ratio).

The minimum is higher for names in the environment than for names in the settings file, because the
environment also contains the variables of other programs.
"""

_SHORT_NAME_LETTERS = 5
"""Maximum length of the names that are never suggested for environment variables.

Short names, such as HOST, resemble too many variables of other programs.
"""

_PLAUSIBLE_NAME = re.compile(r"[A-Z][A-Z0-9_]{2,40}")
_EXPANSION = re.compile(r"\$\{([^}:]+)")


def log_mistyped_settings(file: str) -> None:
    """Log a warning for each probable mistake in the environment and in the loaded settings file.

    `file` is the name by which the warnings refer to the settings file.
    """
    for warning in mistyped_settings(os.environ, loaded_text(), file):
        _log.warning(warning)


def mistyped_settings(environ: Mapping[str, str], text: str, file: str) -> list[str]:
    """Return a list of sentences, one for each probable mistake.

    In the environment, a variable is probably a mistake if its name resembles that of a setting. In the
    settings file, every variable that no known program reads is probably a mistake. So are settings that are
    set twice, and lines that are not of the form NAME=value.

    `text` is the content of the settings file, and `file` is its name. The sentences quote no values, and no
    names that may be part of a value.
    """
    bindings = [binding for binding in parse_stream(StringIO(text)) if binding.key or binding.error]
    in_file = {binding.key for binding in bindings}
    names = [name for name in environ if name not in in_file]
    # A custom store or generator may read its own variables. Then only names that resemble a setting count.
    has_custom_class = any(":" in environ.get(name, "") for name in ("STORE", "GENERATOR"))
    return [*_in_file(bindings, text, file, has_custom_class), *_in_environment(names)]


def _in_environment(names: Sequence[str]) -> Iterator[str]:
    candidates = [name for name in _SETTINGS if len(name) > _SHORT_NAME_LETTERS]
    for name in sorted(names):
        if name in _SETTINGS or _is_read_by_others(name.upper()):
            continue
        if setting := _similar_setting(name.upper(), candidates):
            yield f"The environment variable {name} is not a setting. Did you mean {setting}?"


def _similar_setting(name: str, candidates: Sequence[str]) -> str:
    """Return the setting that an environment variable was probably meant to be, or an empty string."""
    for setting in candidates:
        # For example, S3_BUCKET_NAME is probably meant to be S3_BUCKET.
        if name == f"AWS_{setting}" or ("_" in setting and name.startswith(f"{setting}_")):
            return setting
    close = get_close_matches(name, candidates, 1, _ENVIRONMENT_SIMILARITY)
    return close[0] if close and not name.endswith(f"_{close[0]}") else ""  # PIP_CACHE_DIR belongs to pip


def _in_file(bindings: Sequence[Binding], text: str, file: str, has_custom_class: bool) -> Iterator[str]:
    expanded = set(_EXPANSION.findall(text))
    lines: dict[str, int] = {}
    for binding in bindings:
        name, line = binding.key or "", _line_number(binding)
        if binding.error or binding.value is None:
            yield f"Line {line} of {file} is ignored because it is not of the form NAME=value."
            continue
        if name in lines:
            yield f"{name} is set twice in {file}, in lines {lines[name]} and {line}. The last value is used."
        lines[name] = line
        if name not in _SETTINGS and name not in expanded and not _is_read_by_others(name.upper()):
            close = get_close_matches(name.upper(), _SETTINGS, 1, _FILE_SIMILARITY)
            if close or not has_custom_class:
                shown = name if close or _PLAUSIBLE_NAME.fullmatch(name) else "the name there"
                hint = f" Did you mean {close[0]}?" if close else ""
                yield f"Line {line} of {file}: {shown} is not a setting.{hint}"


def _line_number(binding: Binding) -> int:
    """Return the number of the line that contains the name.

    dotenv returns a lower number if there are empty lines above the name, since the binding includes them.
    """
    string = binding.original.string
    return binding.original.line + string[: len(string) - len(string.lstrip())].count("\n")


def _is_read_by_others(name: str) -> bool:
    return name in _BOTO3_VARIABLES or _LIBRARY_VARIABLES.fullmatch(name) is not None
