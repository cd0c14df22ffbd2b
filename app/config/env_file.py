"""Writing settings into `.env`: all or none, the other lines as they were, readable by its owner alone.

Environment variables that libraries read by themselves: keys, tokens, proxies, endpoints.

A line break at the end of a secret, as many shells and secret stores leave it, makes an HTTP client refuse
the header and quote it in an exception.

The file that settings are read from: `.env` beside `wsgi.py`, or the one that `ENV_FILE` names.

python-dotenv and Flask also look for `.env` in all directories above. Anybody who can write to one of those
could choose keys and endpoints, so only the file described here is read.
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

_THEIRS = re.compile(r"(AWS|OPENAI)_\w+|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)", re.IGNORECASE)

_IN_HEADERS = re.compile(
    r"AWS_(ACCESS_KEY_ID|SESSION_TOKEN|SECURITY_TOKEN|CONTAINER_AUTHORIZATION_TOKEN|BEARER_TOKEN_\w+)|"
    r"OPENAI_(API_KEY|ADMIN_KEY|ORG_ID|PROJECT_ID)"
)
"""Sent as headers or in them, which HTTP clients encode as ASCII."""

_LINES = {"OPENAI_CUSTOM_HEADERS"}
"""A header in each line."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def clean_library_variables() -> None:
    """Take surrounding white space from such variables; an empty one of AWS's counts as not set.

    Raises `ConfigError` that names those with characters that can't be used, and no value.
    """
    wrong = []
    for name, value in os.environ.items():
        if not _THEIRS.fullmatch(name):
            continue
        bare = value.strip()
        if bare != value:
            os.environ[name] = bare
        if not bare and name.startswith("AWS_"):
            del os.environ[name]
        if name not in _LINES and _is_wrong(name, bare):
            wrong.append(name)
    if wrong:
        raise ConfigError(
            f"{', '.join(sorted(wrong))}: the value holds a line break, a control character or another that "
            "can't be sent. Copy it anew, in one line and without quotes around it."
        )


def _is_wrong(name: str, value: str) -> bool:
    if _CONTROL.search(value):
        return True
    return bool(_IN_HEADERS.fullmatch(name)) and not value.isascii()


PROJECT_ROOT = Path(__file__).parents[2]
"""The working tree: the directory of `wsgi.py` and `gunicorn.conf.py`."""

_NAMED = "ENV_FILE"
_SET_BY_FILE = "S3_IMAGE_SERVER_SET_BY_FILE"
"""The environment variable that names those the file has set. Processes started by this one inherit their
values, and must not mistake them for what the operator exported."""

_EXPORTED_EMPTY = "S3_IMAGE_SERVER_EXPORTED_EMPTY"
"""The environment variable that names those that the operator exported empty, so that the file can't set
them, and that were removed, since libraries use an empty value as if it were one."""

_BETWEEN = "="
"""Between the names in both: no name of a variable has it, and a name in the file may have spaces."""

_text_loaded: str | None = None

_INITIAL_ENVIRONMENT = Path("/proc/self/environ")
"""The environment that the process was started with, before it changed it (Linux, proc_pid_environ(5))."""


def settings_file() -> Path | None:
    """Return the path of the file, or None if there is none. With `ENV_FILE=/dev/null` no file is read."""
    named = os.environ.get(_NAMED)
    if named:
        return None if named == os.devnull else Path(named)
    own = PROJECT_ROOT / ".env"
    return own if own.is_file() or own.is_fifo() else None


def display_name(path: Path | None) -> str:
    """Return the file's name for messages: its path, relative inside the working tree, or "none"."""
    if path is None:
        return "none"
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


def load_settings_file() -> str:
    """Set the file's settings in the environment; return the file's name for messages.

    Variables that the operator exported win. What an earlier call has set is removed, in this process or
    the one that started it, so that a second call reads the file as the first did.

    Raises `ConfigError` if the file that `ENV_FILE` names is missing, if a file is not text, if others may
    write to it, or if a variable that libraries read by themselves can't be used.
    """
    path = settings_file()
    text = "" if path is None else _read(path)
    if _NAMED in dotenv_values(stream=StringIO(text), interpolate=False):
        raise ConfigError(f"{display_name(path)} must not set {_NAMED}. Set it in the environment instead.")
    unload_settings_file()
    exported = set(os.environ)
    try:
        load_dotenv(stream=StringIO(text))
    except ValueError as exc:  # a "=" in a name in quotes, or a character that the locale lacks
        raise ConfigError(
            f"{display_name(path)} sets a variable whose name or value the system can't keep. Write NAME=value, "
            "with nothing but letters, digits and '_' in the name."
        ) from exc
    finally:
        os.environ[_SET_BY_FILE] = _BETWEEN.join(set(os.environ) - exported)
    global _text_loaded
    _text_loaded = text
    clean_library_variables()
    os.environ[_EXPORTED_EMPTY] = _BETWEEN.join(exported - set(os.environ))
    return display_name(path)


def is_settings_file_loaded() -> bool:
    """Return whether this process, or the one that it was forked from, has loaded the file."""
    return _text_loaded is not None


def unload_settings_file() -> None:
    """Restore the environment that the operator exported: remove from it what the file has set."""
    for name in filter(None, os.environ.pop(_SET_BY_FILE, "").split(_BETWEEN)):
        os.environ.pop(name, None)
    for name in filter(None, os.environ.pop(_EXPORTED_EMPTY, "").split(_BETWEEN)):
        os.environ[name] = ""


def loaded_text() -> str:
    """Return the text of the file as it was loaded, "" if there is none."""
    return _text_loaded or ""


def restart_flask_without_dotenv() -> None:
    """Start the `flask` command again without settings that it has read from any file but our `.env`.

    Before it loads the application it reads `.env` and `.flaskenv` of the current directory and all above.
    Raises `ConfigError` if the system can't say which environment the command was started with.
    """
    skipped = os.environ.get("FLASK_SKIP_DOTENV", "").lower() not in ("", "0", "false", "no")
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true" or skipped:
        return
    own = PROJECT_ROOT / ".env"
    found = [path for name in (".flaskenv", ".env") if (path := find_dotenv(name, usecwd=True))]
    if _NAMED not in os.environ and all(own.exists() and own.samefile(path) for path in found):
        return
    try:
        given = _INITIAL_ENVIRONMENT.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"flask has read {' and '.join(found)} by itself. Start it with FLASK_SKIP_DOTENV=1."
        ) from exc
    environ = dict(line.split(b"=", 1) for line in given.split(b"\0") if b"=" in line)
    os.execve(sys.executable, sys.orig_argv, {**environ, b"FLASK_SKIP_DOTENV": b"1"})


def _read(path: Path) -> str:
    """Return the file's text. Raises `ConfigError` if it can't be read, or if others may write to it."""
    name = display_name(path)
    try:
        _check_owner(name, path.lstat())  # also of a link, which anybody may put into a directory like /tmp
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            _check_owner(name, facts)
            if facts.st_mode & stat.S_IWOTH:
                raise ConfigError(f"Everybody may write to {name}, so it is not read. Run: chmod o-w {name}")
            _check_directories(path)
            return _decoded(name, file.read())
    except OSError as exc:
        raise ConfigError(f"The settings file {name} can't be read: {exc.strerror}.") from exc


def _decoded(name: str, data: bytes) -> str:
    """Return the text of the file called `name`. Raises `ConfigError` with the line that is not text."""
    try:
        text = data.decode()
        bad = data.find(b"\0")  # as in UTF-16, and impossible in an environment variable
    except UnicodeDecodeError as exc:
        bad = exc.start
    if bad < 0:
        return text.removeprefix("\ufeff")  # the byte order mark with which editors on Windows begin a file
    line = data.count(b"\n", 0, bad) + 1
    raise ConfigError(f"Line {line} of the settings file {name} is not UTF-8 text. Save the file as UTF-8.")


def _check_owner(name: str, facts: os.stat_result) -> None:
    """Raise `ConfigError` unless it is owned by root, by this user, or by who owns the code anyway."""
    trusted = {0, os.geteuid(), Path(__file__).stat().st_uid}
    if facts.st_uid not in trusted:
        raise ConfigError(
            f"{name} belongs to another user (uid {facts.st_uid}), so it is not read. Give it to root or to "
            "the user that the server runs as."
        )


def _check_directories(path: Path) -> None:
    """Raise `ConfigError` if everybody may replace it: may write to its directory, which is not sticky."""
    for directory in {path.absolute().parent, path.resolve().parent}:
        mode = directory.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigError(
                f"Everybody may exchange files in {directory}, so {display_name(path)} is not read. "
                f"Run: chmod o-w {directory}"
            )


_PLAIN = re.compile(r"[\w./:@%+=,-]+")
"""Values that need no quotes, which not every reader of such files takes off (`docker run --env-file`)."""


def read_settings(path: Path) -> dict[str, str]:
    """The settings in the file, those without a value left out; empty where there is no file."""
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def write_settings(path: Path, settings: Mapping[str, str], without: Iterable[str] = ()) -> None:
    """Set some lines and remove those named in `without`, in a copy that then takes the file's place.

    Raises `OSError`, after which the file is as it was.
    """
    path = path.resolve()  # a symbolic link stays one
    before = path.read_bytes() if path.exists() else b""
    with NamedTemporaryFile(dir=path.parent, prefix=".env-", delete=False) as file:  # made with mode 600
        copy = Path(file.name)
        file.write(before)
    try:
        for name, value in settings.items():
            set_key(copy, name, value, quote_mode="never" if _PLAIN.fullmatch(value) else "always")
        for name in set(without) & read_settings(copy).keys():
            unset_key(copy, name)
        copy.replace(path)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
