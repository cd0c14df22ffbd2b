"""Writing settings into `.env`: all or none, the other lines as they were, readable by its owner alone."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

from dotenv import dotenv_values, set_key, unset_key

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
