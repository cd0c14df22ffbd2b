"""Removing an object: its file first, whatever becomes of its row, since only a file makes a hit."""

import os

from app.cache.disorder import Disorder
from app.cache.layout import Layout
from app.cache.space import Space
from app.errors import CacheStuck


class Removal:
    """Removes files, and the rows that tell of them; who is killed between the two leaves word of it."""

    def __init__(self, layout: Layout, space: Space, disorder: Disorder) -> None:
        self._layout = layout
        self._space = space
        self._disorder = disorder

    def has_mutable(self, key: str) -> bool:
        """Return whether there is a file of `key` that is not proven to be immutable."""
        return os.path.lexists(self._layout.mutable_path(key))

    def remove(self, key: str) -> bool:
        """Remove the object, whatever is wrong with the index; whether it was here. Raises `CacheStuck`."""
        number = -1
        with self._disorder.survived():
            number = self._space.announce(key)
        try:
            was_here = self._unlink(key)
        except CacheStuck:
            with self._disorder.survived():
                self._space.withdraw(number)
            raise
        with self._disorder.survived():
            self._space.drop(key, number)
        return was_here

    def _unlink(self, key: str) -> bool:
        was_here = False
        for path in self._layout.paths(key):
            try:
                os.unlink(path)
            except OSError as exc:
                if os.path.lexists(path):
                    raise CacheStuck(detail=str(exc)) from exc
            else:
                was_here = True
        return was_here
