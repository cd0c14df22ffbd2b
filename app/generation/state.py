"""STATE_DIR, where the worker processes agree on slots and outcomes: what it means that it can't be used."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import StateUnavailable


@contextmanager
def state_errors_mapped() -> Iterator[None]:
    """Raises `StateUnavailable` for errors of the file system and of SQLite."""
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise StateUnavailable(detail=f"STATE_DIR: {exc}") from exc
