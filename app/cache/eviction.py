"""Removing an object: its file first, whatever becomes of its row, since only a file makes a hit.

Which process a temporary file or a reservation belongs to, and whether that process still lives.

A process holds a lock on a file of its own for as long as it lives: the kernel lets go of it however the
process ends, so a lock that can be taken is that of a dead owner. Process ids would be used again.

Space: every byte is reserved before it is written, and the least recently used make room for it.

Files are moved into place and removed inside the index's transactions. What a process killed in one leaves
is under the key of a reservation of its own; whoever finds its owner dead settles that, and counts the
directories anew.
"""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.cache.health import Disorder
from app.cache.index import Index
from app.cache.invalidation import Epochs
from app.cache.layout import Layout, disk_bytes
from app.core.errors import CacheStuck
from app.core.objects import ObjectFacts
from app.core.system import lock, try_lock


class Owner:
    """This process, as the owner of a directory below `tmp`."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._pid = 0
        self._descriptor = -1
        self._token = ""

    def token(self) -> str:
        """This process's name; new after a fork."""
        if self._pid != os.getpid():
            self._claim()
        return self._token

    def new_path(self) -> str:
        """A path for a file to write, in this process's directory."""
        return f"{self._tmp}/{self.token()}/{secrets.token_hex(8)}"

    def reclaim(self, before: Callable[[str], None]) -> None:
        """Remove what dead owners left, calling `before` with each one's token first."""
        self.token()
        for path in self._tmp.glob("*.lock"):
            if path.stem != self._token:
                self._reclaim_if_dead(path, before)

    def close(self) -> None:
        """Give up the claim."""
        if self._pid == os.getpid():
            shutil.rmtree(self._tmp / self._token, ignore_errors=True)
            (self._tmp / f"{self._token}.lock").unlink(missing_ok=True)
            os.close(self._descriptor)
            self._pid = 0

    def _claim(self) -> None:
        while True:
            token = secrets.token_hex(8)
            path = self._tmp / f"{token}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lock(descriptor)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
            if os.fstat(descriptor).st_nlink:
                break
            # Another process took it for a dead owner's between open and flock.
            os.close(descriptor)
        (self._tmp / token).mkdir()
        self._token, self._descriptor, self._pid = token, descriptor, os.getpid()

    def _reclaim_if_dead(self, path: Path, before: Callable[[str], None]) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if try_lock(descriptor):
                before(path.stem)
                shutil.rmtree(self._tmp / path.stem, ignore_errors=True)
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


_SLACK = 144 * 1024
"""For the cache's own directories and counters, and the index's growth from one reservation to the next."""

_BATCH = 64
"""Entries looked at in one transaction: others wait for it, and its log counts against the bound."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most bytes of the whole directory, and of one object."""

    total: int
    of_one: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to write one file: `path` is where, `taken` the bytes on disk set aside for it."""

    number: int
    owner: str
    key: str
    taken: int
    path: str


class Space:
    """Keeps what the cache directory takes within `max_bytes`; `evicted` is told of each eviction."""

    def __init__(
        self, layout: Layout, index: Index, epochs: Epochs, bounds: Bounds, evicted: Callable[[], None]
    ) -> None:
        self._layout = layout
        self._index = index
        self._epochs = epochs
        self._bounds = bounds
        self._evicted = evicted
        self._owner = Owner(layout.tmp)
        self._released: set[tuple[int, str]] = set()  # those that the index was not told of yet

    def reserve(self, key: str, size: int) -> Reservation | None:
        """Set space aside for an object of `size` bytes; None where it can't fit."""
        path = self._owner.new_path()
        taken = disk_bytes(size) + self._layout.parents_bytes(self._layout.paths(key)[0])
        if self._released:
            self._drop_released()
        fits: bool | None = None if taken < self._bounds.total and size <= self._bounds.of_one else False
        while fits is None:
            with self._index.transaction() as db:
                fits = self._make_room(db, taken)
                if fits:
                    return Reservation(self._book(db, key, taken), self._owner.token(), key, taken, path)
        return None

    def publish(self, reservation: Reservation, facts: ObjectFacts, epoch: int, now: float) -> bool:
        """Move the file written into place and turn its reservation into a row.

        False, and the file is removed, where the key was changed since `epoch` was read.
        """
        with self._epochs.held(facts.key, epoch) as unchanged:
            try:
                with self._index.transaction() as db:
                    if unchanged:
                        self._move_in(db, reservation.path, facts, now)
                    else:
                        os.unlink(reservation.path)
                    self._drop_reservation(db, reservation.number, reservation.owner)
            except BaseException:
                if unchanged:  # without its row nobody would ever count the file
                    self._layout.remove(self._layout.path_of(facts))
                raise
        return unchanged

    def release(self, reservation: Reservation) -> None:
        """Give back what was not used: remove the file, then the reservation."""
        Path(reservation.path).unlink(missing_ok=True)
        self._released.add((reservation.number, reservation.owner))
        self._drop_released()

    def announce(self, key: str) -> int:
        """Note that the file of `key` is about to go: who finds us dead then settles the row. A number."""
        with self._index.transaction() as db:
            return self._book(db, key, 0)

    def withdraw(self, number: int) -> None:
        """The file could not be removed after all."""
        with self._index.transaction() as db:
            self._drop_reservation(db, number, self._owner.token())

    def drop(self, key: str, number: int) -> None:
        """Remove the entry of `key`, whose file has gone under this number."""
        with self._index.transaction() as db:
            self.drop_entry(db, key)
            self._drop_reservation(db, number, self._owner.token())

    def renew(self, key: str, now: float) -> None:
        """Note that the store has just confirmed the entry."""
        with self._index.transaction() as db:
            db.execute("UPDATE entry SET validated_at = ? WHERE key = ?", (now, key))

    def clear(self, progress: Callable[[int], None]) -> int:
        """Remove every entry, a few in each transaction; how many there were, which `progress` is told."""
        removed = 0
        while True:
            with self._index.transaction() as db:
                keys = db.execute("SELECT key FROM entry LIMIT ?", (_BATCH,)).fetchall()
                for (key,) in keys:
                    self.drop_entry(db, key)
            if not keys:
                return removed
            removed += len(keys)
            progress(removed)

    def drop_entry(self, db: sqlite3.Connection, key: str) -> int:
        """Remove file and row, inside a transaction of the index; the bytes that they took."""
        parents = sum(map(self._layout.remove, self._layout.paths(key)))
        db.execute("UPDATE total SET directories = directories - ?", (parents,))
        return parents + self._drop_row(db, key)

    def is_over(self) -> bool:
        """Whether the bound does not hold: it was lowered, or files were found that nobody knew of."""
        totals = self._index.totals()
        return totals.taken + totals.reserved + self._layout.index_bytes() + _SLACK > self._bounds.total

    def trim(self) -> bool:
        """Evict some where the bound does not hold; whether there is more to do."""
        with self._index.transaction() as db:
            more = self._shrink(db)
        if not more:
            self._index.shrink()
        return more

    def reclaim(self) -> None:
        """Give back what killed processes had reserved, and remove what they left half done."""
        self._owner.reclaim(self._settle)

    def close(self) -> None:
        """Let go of this process's claims."""
        self._owner.close()

    def _book(self, db: sqlite3.Connection, key: str, taken: int) -> int:
        statement = "INSERT INTO reservation (owner, key, taken) VALUES (?, ?, ?)"
        number = db.execute(statement, (self._owner.token(), key, taken)).lastrowid
        db.execute("UPDATE total SET reserved = reserved + ?", (taken,))
        assert number is not None
        return number

    def _settle(self, owner: str) -> None:
        with self._index.transaction() as db:
            rows = db.execute("SELECT id, key FROM reservation WHERE owner = ?", (owner,)).fetchall()
            for number, key in rows:
                self._drop_reservation(db, number, owner)
                self._settle_key(db, key)
            for key, _ in _oldest(db):  # it may have been about to evict them
                self._settle_key(db, key)
            # Rows and their sum change in one transaction; directories are made and removed beside it.
            db.execute("UPDATE total SET directories = ?", (self._layout.directories_bytes(),))

    def _settle_key(self, db: sqlite3.Connection, key: str) -> None:
        """File and row of `key` go unless they belong together."""
        row = db.execute("SELECT immutable, version FROM entry WHERE key = ?", (key,)).fetchone()
        known = {} if row is None else {bool(row[0]): row[1]}
        there = {self._layout.is_immutable_path(path): stat.st_mtime_ns for path, stat in self._stats(key)}
        if known != there:
            self.drop_entry(db, key)

    def _shrink(self, db: sqlite3.Connection) -> bool:
        """Evict some; the index counts without its free pages, which it can be rid of afterwards."""
        taken, rebuilding = db.execute(
            "SELECT taken + directories + reserved, rebuilding FROM total"
        ).fetchone()
        excess = taken + self._index.used_bytes() + _SLACK - self._bounds.total
        return excess > 0 and not rebuilding and self._evict(db, excess) is None

    def _make_room(self, db: sqlite3.Connection, wanted: int) -> bool | None:
        """Whether `wanted` bytes fit now; None: not yet, and the evictions go on in the next transaction."""
        totals = "SELECT taken + directories, reserved, rebuilding FROM total"
        taken, reserved, rebuilding = db.execute(totals).fetchone()
        budget = self._bounds.total - self._layout.index_bytes() - _SLACK - wanted
        if reserved > budget or rebuilding:
            return False
        excess = taken + reserved - budget
        return True if excess <= 0 else self._evict(db, excess)

    def _evict(self, db: sqlite3.Connection, excess: int) -> bool | None:
        """Evict the least recently used of the oldest on record, as far as one transaction goes.

        An entry used since its access was recorded is put in its place instead. Where that is all of them,
        the one that was used the longest ago goes, so that each transaction frees something.
        """
        candidates = _oldest(db)
        used: list[tuple[int, str]] = []
        freed = 0
        for key, accessed_at in candidates:
            now_accessed = self._accessed_at(key)
            if now_accessed > accessed_at:
                used.append((now_accessed, key))
                self._record_access(db, key, now_accessed)
                continue
            freed += self._make_way(db, key)
            if freed >= excess:
                return True
        if freed == 0 and used:
            freed = self._make_way(db, min(used)[1])
        return freed >= excess or (None if candidates else False)

    def _make_way(self, db: sqlite3.Connection, key: str) -> int:
        self._evicted()
        return self.drop_entry(db, key)

    def _stats(self, key: str) -> Iterator[tuple[str, os.stat_result]]:
        """Path and state of the file of `key`, if it is there."""
        for path in self._layout.paths(key):
            with suppress(FileNotFoundError):
                yield path, os.stat(path)

    def _accessed_at(self, key: str) -> int:
        return next((stat.st_atime_ns for _, stat in self._stats(key)), 0)

    def _record_access(self, db: sqlite3.Connection, key: str, accessed_at: int) -> None:
        """Renew the change time, too: the kernel only moves an access time that is older (relatime)."""
        db.execute("UPDATE entry SET accessed_at = ? WHERE key = ?", (accessed_at, key))
        with suppress(OSError):
            for path, stat in self._stats(key):
                os.utime(path, ns=(accessed_at, stat.st_mtime_ns))

    def _move_in(self, db: sqlite3.Connection, written: str, facts: ObjectFacts, now: float) -> None:
        """Rows first: the move is the last thing before the commit."""
        path = self._layout.path_of(facts)
        stat = os.stat(written)
        self._drop_row(db, facts.key)
        taken = insert_entry(db, facts, stat, now)
        db.execute("UPDATE total SET entries = entries + 1, taken = taken + ?", (taken,))
        grown = -sum(self._layout.remove(other) for other in self._layout.paths(facts.key) if other != path)
        grown += self._layout.move_in(written, path)
        db.execute("UPDATE total SET directories = directories + ?", (grown,))

    def _drop_row(self, db: sqlite3.Connection, key: str) -> int:
        row = db.execute("DELETE FROM entry WHERE key = ? RETURNING taken", (key,)).fetchone()
        if row is None:
            return 0
        db.execute("UPDATE total SET entries = entries - 1, taken = taken - ?", row)
        return int(row[0])

    def _drop_released(self) -> None:
        released = tuple(self._released)
        with self._index.transaction() as db:
            for number, owner in released:
                self._drop_reservation(db, number, owner)
        self._released.difference_update(released)

    def _drop_reservation(self, db: sqlite3.Connection, number: int, owner: str) -> None:
        """In an index that was begun anew the number may be somebody else's."""
        statement = "DELETE FROM reservation WHERE id = ? AND owner = ? RETURNING taken"
        row = db.execute(statement, (number, owner)).fetchone()
        if row:
            db.execute("UPDATE total SET reserved = reserved - ?", row)


def insert_entry(db: sqlite3.Connection, facts: ObjectFacts, stat: os.stat_result, validated: float) -> int:
    """Make the row of an object and its file, unless there is one; return the bytes that the file takes."""
    taken, modified = disk_bytes(facts.size), int(facts.last_modified.timestamp())
    content = (facts.etag, facts.content_type, facts.content_encoding, facts.is_immutable, modified)
    db.execute(
        "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (facts.key, facts.size, taken, *content, stat.st_mtime_ns, validated, stat.st_atime_ns),
    )
    return taken


def _oldest(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Key and recorded access of those used the longest ago, as many as one transaction looks at."""
    statement = "SELECT key, accessed_at FROM entry ORDER BY accessed_at LIMIT ?"
    return db.execute(statement, (_BATCH,)).fetchall()


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
