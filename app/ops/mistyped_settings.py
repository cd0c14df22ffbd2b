"""Names that are probably mistyped settings: those would do nothing, and nobody would notice."""

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
"""Settings that boto3 reads itself."""

_OURS = {field.name.upper() for field in fields(Config)} | CREDENTIALS | {"ENV_FILE"}

_BOTO3 = {
    name
    for _, names, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values()
    for name in ([names] if isinstance(names, str) else names or [])
}

_LIBRARIES = re.compile(
    r"AWS_(?:ACCOUNT_ID|ROLE_ARN|ROLE_SESSION_NAME|WEB_IDENTITY_TOKEN_FILE|SECURITY_TOKEN|CREDENTIAL_\w+"
    r"|CONTAINER_\w+|EC2_\w+|ENDPOINT_URL(?:_\w+)?|EXECUTION_ENV|BEARER_TOKEN_\w+)"
    r"|OPENAI_(?:ORG_ID|PROJECT_ID|LOG)|PROMETHEUS_\w+|PYTHON\w+|MALLOC_\w+|LC_\w+"
    r"|(?:HTTP|HTTPS|NO|ALL)_PROXY|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|TZ|LANG|TMPDIR|PATH|HOME"
)
"""Variables that a library or the system reads."""

_CLOSE, _SIMILAR = 0.8, 0.6
"""How alike names must be (difflib) in the environment, where others have theirs, and in the file."""

_SHORT = 5
"""Names of so many letters, such as HOST, are like many others."""

_NAME = re.compile(r"[A-Z][A-Z0-9_]{2,40}")
_USED = re.compile(r"\$\{([^}:]+)")


def log_mistyped_settings(file: str) -> None:
    """Warn of each in the environment and in the settings file that was loaded, which is called `file`."""
    for sentence in mistyped_settings(os.environ, loaded_text(), file):
        _log.warning(sentence)


def mistyped_settings(environ: Mapping[str, str], text: str, file: str) -> list[str]:
    """Return a sentence for each variable that looks like a setting of ours and is none.

    `text` is that of the settings file called `file`, where every variable that nothing is known to read
    counts. No values are quoted, nor names that may be pieces of one.
    """
    bindings = [binding for binding in parse_stream(StringIO(text)) if binding.key or binding.error]
    in_file = {binding.key for binding in bindings}
    names = [name for name in environ if name not in in_file]
    return [*_in_file(bindings, text, file, _reads_more(environ)), *_in_environment(names)]


def _in_environment(names: Sequence[str]) -> Iterator[str]:
    candidates = [name for name in _OURS if len(name) > _SHORT]
    for name in sorted(names):
        if name in _OURS or _is_anothers(name.upper()):
            continue
        if meant := _meant(name.upper(), candidates):
            yield f"The environment variable {name} is not a setting. Did you mean {meant}?"


def _meant(name: str, candidates: Sequence[str]) -> str:
    """Return which of the settings a variable of the environment was probably meant to be, or ""."""
    for setting in candidates:
        if name == f"AWS_{setting}" or ("_" in setting and name.startswith(f"{setting}_")):  # S3_BUCKET_NAME
            return setting
    close = get_close_matches(name, candidates, 1, _CLOSE)
    return close[0] if close and not name.endswith(f"_{close[0]}") else ""  # PIP_CACHE_DIR is pip's


def _in_file(bindings: Sequence[Binding], text: str, file: str, reads_more: bool) -> Iterator[str]:
    used = set(_USED.findall(text))
    lines: dict[str, int] = {}
    for binding in bindings:
        name, line = binding.key or "", _line(binding)
        if binding.error or binding.value is None:
            yield f"Line {line} of {file} is ignored: it is not NAME=value."
            continue
        if name in lines:
            yield f"{name} is set twice in {file}, in lines {lines[name]} and {line}. The last one counts."
        lines[name] = line
        if name not in _OURS and name not in used and not _is_anothers(name.upper()):
            close = get_close_matches(name.upper(), _OURS, 1, _SIMILAR)
            if close or not reads_more:
                shown = name if close or _NAME.fullmatch(name) else "what is set there"
                hint = f" Did you mean {close[0]}?" if close else ""
                yield f"Line {line} of {file}: {shown} is not a setting.{hint}"


def _line(binding: Binding) -> int:
    """Return the line on which the name stands: a binding begins with the empty lines above it."""
    string = binding.original.string
    return binding.original.line + string[: len(string) - len(string.lstrip())].count("\n")


def _is_anothers(name: str) -> bool:
    return name in _BOTO3 or _LIBRARIES.fullmatch(name) is not None


def _reads_more(environ: Mapping[str, str]) -> bool:
    """Return whether a custom class may read variables that we don't know."""
    return any(":" in environ.get(name, "") for name in ("STORE", "GENERATOR"))
