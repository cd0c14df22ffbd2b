"""The settings file, which is `.env` in the directory of `wsgi.py`, or the file named by `ENV_FILE`.

The server loads the file into the environment. `flask bucket setup` and `flask bucket create-user` write
settings into it.

python-dotenv and Flask would also search for `.env` in all parent directories. Everyone who can write to one
of these directories could then choose the server's keys and endpoints, so no other file is read.
"""

import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from tempfile import NamedTemporaryFile

from dotenv import dotenv_values, find_dotenv, load_dotenv, set_key, unset_key

from app.core.errors import ConfigError

PROJECT_ROOT = Path(__file__).parents[2]
"""The directory of `wsgi.py` and `gunicorn.conf.py`."""

_PATH_VARIABLE = "ENV_FILE"

_SET_BY_FILE = "S3_IMAGE_SERVER_SET_BY_FILE"
"""The name of an environment variable that lists the variables that were set from the file.

Child processes inherit the variables from the file, and must not mistake them for variables that the operator
exported."""

_EXPORTED_EMPTY = "S3_IMAGE_SERVER_EXPORTED_EMPTY"
"""The name of an environment variable that lists the `AWS_…` variables that the operator exported with an
empty value.

The listed variables are removed from the environment, since boto3 would use the empty values. The settings
file must not set them again."""

_SEPARATOR = "="
"""Separates the names in these two variables. The name of a variable may contain spaces, but never `=`."""

_INITIAL_ENVIRONMENT = Path("/proc/self/environ")
"""This file contains the environment with which the process was started. Later changes of the environment
don't affect the file (proc_pid_environ(5))."""

_loaded_text: str | None = None


def settings_file() -> Path | None:
    """Return the path of the settings file, or None if there is none or `ENV_FILE` is /dev/null."""
    named = os.environ.get(_PATH_VARIABLE)
    if named:
        return None if named == os.devnull else Path(named)
    own = PROJECT_ROOT / ".env"
    return own if own.is_file() or own.is_fifo() else None


def display_name(path: Path | None) -> str:
    """Return the name of the file at `path` for messages, or "none" if `path` is None.

    If the file is inside the project, the name is relative to the project.
    """
    if path is None:
        return "none"
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


def load_settings_file() -> str:
    """Set the file's settings in the environment and return the file's display name.

    Variables that are already set keep their values. Variables that an earlier call set, in this process or
    in its parent, are removed first, so that every call leads to the same environment.

    Raises `ConfigError` if the file named by `ENV_FILE` is missing, if the file is not text or other users
    can write to it, or if a variable that a library reads has an unusable value.
    """
    path = settings_file()
    text = "" if path is None else _read(path)
    name = display_name(path)
    if _PATH_VARIABLE in dotenv_values(stream=StringIO(text), interpolate=False):
        raise ConfigError(f"{name} must not set {_PATH_VARIABLE}. Set it in the environment instead.")
    unload_settings_file()
    exported = set(os.environ)
    try:
        load_dotenv(stream=StringIO(text))
    except ValueError as exc:  # "=" in a quoted name, or a character that the locale can't encode
        raise ConfigError(
            f"{name} sets a variable whose name or value can't be stored in the environment. Write "
            "NAME=value, with only letters, digits and '_' in the name."
        ) from exc
    finally:
        os.environ[_SET_BY_FILE] = _SEPARATOR.join(set(os.environ) - exported)
    global _loaded_text
    _loaded_text = text
    clean_library_variables()
    os.environ[_EXPORTED_EMPTY] = _SEPARATOR.join(exported - set(os.environ))
    return name


def unload_settings_file() -> None:
    """Undo `load_settings_file`: restore the environment that the operator exported."""
    for name in filter(None, os.environ.pop(_SET_BY_FILE, "").split(_SEPARATOR)):
        os.environ.pop(name, None)
    for name in filter(None, os.environ.pop(_EXPORTED_EMPTY, "").split(_SEPARATOR)):
        os.environ[name] = ""


def is_settings_file_loaded() -> bool:
    """Return whether `load_settings_file` has run in this process, or in its parent before the fork."""
    return _loaded_text is not None


def loaded_text() -> str:
    """Return the text that the settings file had when it was loaded, or "" if there was no file."""
    return _loaded_text or ""


def restart_flask_without_dotenv() -> None:
    """Restart a `flask` command if Flask has loaded a different settings file than the project's `.env`.

    Before Flask loads the application, it reads `.env` and `.flaskenv` in the current directory and its
    parents. The restarted command has the original environment, and does not read these files.

    Raises `ConfigError` if the original environment can't be read.
    """
    is_disabled = os.environ.get("FLASK_SKIP_DOTENV", "").lower() not in ("", "0", "false", "no")
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true" or is_disabled:
        return
    own = PROJECT_ROOT / ".env"
    found = [path for name in (".flaskenv", ".env") if (path := find_dotenv(name, usecwd=True))]
    if _PATH_VARIABLE not in os.environ and all(own.exists() and own.samefile(path) for path in found):
        return
    try:
        initial = _INITIAL_ENVIRONMENT.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"Flask has read {' and '.join(found)}, which are not this server's settings. Start flask with "
            "FLASK_SKIP_DOTENV=1."
        ) from exc
    environ = dict(line.split(b"=", 1) for line in initial.split(b"\0") if b"=" in line)
    os.execve(sys.executable, sys.orig_argv, {**environ, b"FLASK_SKIP_DOTENV": b"1"})


def _read(path: Path) -> str:
    """Return the file's text. Raises `ConfigError` if it can't be read or trusted, or is not UTF-8."""
    name = display_name(path)
    try:
        _check_owner(name, path.lstat())  # also check a link: anyone can create one in /tmp
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            _check_owner(name, facts)
            if facts.st_mode & stat.S_IWOTH:
                raise ConfigError(f"Every user can write to {name}, so it is not read. Run: chmod o-w {name}")
            _check_directories(path)
            return _decode(name, file.read())
    except OSError as exc:
        raise ConfigError(f"The settings file {name} can't be read: {exc.strerror}.") from exc


def _check_owner(name: str, facts: os.stat_result) -> None:
    """Raise `ConfigError` unless the file belongs to root, this process's user, or this code's owner."""
    if facts.st_uid not in (0, os.geteuid(), Path(__file__).stat().st_uid):
        raise ConfigError(
            f"{name} belongs to another user (uid {facts.st_uid}), so it is not read. Make root or the "
            "server's user its owner."
        )


def _check_directories(path: Path) -> None:
    """Raise `ConfigError` if every user can replace the file.

    If the path is a symbolic link, both the directory of the link and that of its target are checked.
    """
    for directory in {path.absolute().parent, path.resolve().parent}:
        mode = directory.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigError(
                f"Every user can replace files in {directory}, so {display_name(path)} is not read. "
                f"Run: chmod o-w {directory}"
            )


def _decode(name: str, data: bytes) -> str:
    """Return `data` as text. Raises `ConfigError` with the number of the line that is not UTF-8 text."""
    try:
        text = data.decode()
        bad = data.find(b"\0")  # NUL occurs in UTF-16, and is not allowed in the environment
    except UnicodeDecodeError as exc:
        bad = exc.start
    if bad < 0:
        return text.removeprefix("\ufeff")  # the byte order mark that Windows editors write
    line = data.count(b"\n", 0, bad) + 1
    raise ConfigError(f"Line {line} of the settings file {name} is not UTF-8 text. Save the file as UTF-8.")


_LIBRARY_VARIABLES = re.compile(r"(AWS|OPENAI)_\w+|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)", re.IGNORECASE)
"""Variables that libraries read, such as keys, tokens, proxies and endpoints."""

_HEADER_VARIABLES = re.compile(
    r"AWS_(ACCESS_KEY_ID|SESSION_TOKEN|SECURITY_TOKEN|CONTAINER_AUTHORIZATION_TOKEN|BEARER_TOKEN_\w+)|"
    r"OPENAI_(API_KEY|ADMIN_KEY|ORG_ID|PROJECT_ID)"
)
"""Variables whose values are sent in headers. HTTP clients encode headers as ASCII."""

_MULTILINE_VARIABLES = {"OPENAI_CUSTOM_HEADERS"}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def clean_library_variables() -> None:
    """Strip white space from the variables that libraries read, and remove empty `AWS_…` variables.

    Many shells and secret stores add a line break after a secret. HTTP clients reject a header with a line
    break, and their exceptions quote the secret in it.

    Raises `ConfigError` if the value of a variable can't be sent. The message contains names but no values.
    """
    wrong = []
    for name, value in os.environ.items():
        if not _LIBRARY_VARIABLES.fullmatch(name):
            continue
        bare = value.strip()
        if bare != value:
            os.environ[name] = bare
        if not bare and name.startswith("AWS_"):
            del os.environ[name]
        has_control = name not in _MULTILINE_VARIABLES and _CONTROL.search(bare)
        if has_control or (_HEADER_VARIABLES.fullmatch(name) and not bare.isascii()):
            wrong.append(name)
    if wrong:
        raise ConfigError(
            f"{', '.join(sorted(wrong))}: the value contains a line break or another character that can't be "
            "sent. Copy it again, on one line and without quotes."
        )


_UNQUOTED_VALUE = re.compile(r"[\w./:@%+=,-]+")
"""Values that are written without quotes. `docker run --env-file` treats quotes as part of the value."""


def read_settings(path: Path) -> dict[str, str]:
    """Return a dict of the settings in the file that have a value. It is empty if the file is missing."""
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def write_settings(path: Path, settings: Mapping[str, str], without: Iterable[str] = ()) -> None:
    """Set `settings` in the file, and remove the settings named in `without`.

    Other lines are not changed. Afterwards only the owner can read the file.

    Raises `OSError` if the file can't be written. In this case, the file is unchanged.
    """
    path = path.resolve()  # so that a symbolic link is not replaced
    before = path.read_bytes() if path.exists() else b""
    with NamedTemporaryFile(dir=path.parent, prefix=".env-", delete=False) as file:  # created with mode 600
        copy = Path(file.name)
        file.write(before)
    try:
        for name, value in settings.items():
            set_key(copy, name, value, quote_mode="never" if _UNQUOTED_VALUE.fullmatch(value) else "always")
        for name in set(without) & read_settings(copy).keys():
            unset_key(copy, name)
        copy.replace(path)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
