"""Disk space: reserving it before a file is written, and evicting the least recently used objects.

Files are moved into place inside the index's transactions. If a process is killed during a transaction,
SQLite rolls the transaction back, but the file stays moved. The index then still contains the process's
reservation for the key. The next process to start finds the reservation. It removes the file and the row of
the key unless they match, and measures the directories again.

Removing a file takes longer than a transaction, so the files of evicted objects are removed after it. In the
transaction, the rows of a batch of objects are replaced by reservations of the same size. These are deleted
when the files are gone, so the space counts as taken until then. If the process is killed in between, the
next process to start finds the reservations and removes the files.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.cache.health import Health
from app.cache.index import Index
from app.cache.invalidation import Epochs
from app.cache.layout import Layout
from app.cache.owner import Owner
from app.core.errors import CacheStuck
from app.core.objects import ObjectFacts
from app.core.variant_keys import AREAS, can_have_variants, is_variant_key, is_variant_of, source_of

_BLOCK_BYTES = 4096
"""Block size of most file systems. A directory takes at least one block as well."""

_SLACK_BYTES = 144 * 1024
"""Space set aside for the cache's own directories and counters, and for the growth of the index between two
reservations."""

_BATCH = 64
"""Maximum number of entries to read or remove in one transaction. Other writers wait until the transaction
ends, and its log counts toward the size limit of the cache."""

_MAX_VICTIMS = 16
"""Maximum number of entries to evict in one transaction. Their files are still on disk when its log has
grown, which `_SLACK_BYTES` must cover."""

_NEVER = float("inf")

_AHEAD = 128
"""When the cache is full, evict until a 128th of `max_bytes` is free. So most fills evict nothing, and the
hit ratio does not suffer."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Permission to write one file at `path`, for which `taken` bytes on disk are reserved."""

    id: int
    owner: str
    key: str
    taken: int
    path: str


@dataclass(frozen=True, slots=True)
class _Victim:
    """An evicted object whose file remains to be removed, and its reservation in the index."""

    reservation: int
    owner: str
    path: str
    inode: int


class Space:
    """Keeps the cache directory within `max_bytes`. Rejects objects larger than `max_object_bytes`.

    `on_eviction` is called for each object that is evicted. Methods raise `OSError` and `sqlite3.Error` if
    the cache directory can't be used.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        epochs: Epochs,
        health: Health,
        *,
        max_bytes: int,
        max_object_bytes: int,
        on_eviction: Callable[[], None],
    ) -> None:
        self._layout = layout
        self._index = index
        self._epochs = epochs
        self._health = health
        self._max_bytes = max_bytes
        self._max_object_bytes = max_object_bytes
        self._on_eviction = on_eviction
        self._owner = Owner(layout.tmp)
        self._released: set[tuple[int, str]] = set()  # released, but still in the index
        self._evicting = threading.Lock()  # so that not each of the waiting threads evicts a batch
        self._victims: list[_Victim] = []  # still in the index; only the thread that evicts uses the list

    def reserve(self, key: str, size: int) -> Reservation | None:
        """Reserve space for an object of `size` bytes, evicting other objects if necessary.

        Return None if the object does not fit.
        """
        path = self._owner.new_path()
        directories = _BLOCK_BYTES * (max(key.count("/"), 1) + 1)  # the most they can grow
        taken = _disk_bytes(size) + directories
        if self._released:
            self._delete_released()
        if taken >= self._max_bytes or size > self._max_object_bytes:
            return None
        with self._index.transaction() as db:
            excess = self._excess(db, taken)
            if excess <= 0:
                return self._reserved(db, key, taken, path)
        with self._evicting:
            while True:
                with self._settled_victims() as db:
                    excess = self._excess(db, taken)
                    if excess <= 0:
                        return self._reserved(db, key, taken, path)
                    victims = [] if excess == _NEVER else self._evict(db, excess + self._max_bytes // _AHEAD)
                self._victims = victims
                if not victims:
                    return None

    def publish(self, reservation: Reservation, facts: ObjectFacts, epoch: int, now: float) -> bool:
        """Move the written file into place, replace the reservation with a row in the index, and return True.

        `now` is the Unix time when the store confirmed the facts. If the key has been changed since `epoch`
        was read, remove the file instead and return False. If the object is a new version of a mutable
        object, its variants are removed.
        """
        with self._epochs.held(facts.key, epoch) as is_current:
            try:
                with self._index.transaction() as db:
                    if is_current:
                        self._install(db, reservation.path, facts, now)
                    else:
                        os.unlink(reservation.path)
                    _delete_reservation(db, reservation.id, reservation.owner)
            except BaseException:
                if is_current:  # a file without a row would never be counted
                    self._layout.remove(self._layout.path_of(facts))
                raise
        return is_current

    def release(self, reservation: Reservation) -> None:
        """Cancel a reservation: remove its file, then its row in the index."""
        Path(reservation.path).unlink(missing_ok=True)
        self._released.add((reservation.id, reservation.owner))
        self._delete_released()

    def renew(self, key: str, now: float) -> None:
        """Record that the store confirmed at the Unix time `now` that the entry is up to date."""
        with self._index.transaction() as db:
            db.execute("UPDATE entry SET validated_at = ? WHERE key = ?", (now, key))

    def remove(self, key: str) -> bool:
        """Remove the object and all its variants, and return whether anything was cached.

        This works even if the index does not.

        The file is removed before the row, since without the file there is no hit. A reservation is written
        first, to record the pending removal. If this process is killed between the two steps, the next
        process to start finds the reservation and removes the row. Raises `CacheStuck` if the file can't be
        removed.
        """
        announced = -1
        with self._health.tolerated():
            announced = self._announce_removal(key)
        try:
            was_there = self._unlink(key)
        except CacheStuck:
            with self._health.tolerated(), self._index.transaction() as db:
                _delete_reservation(db, announced, self._owner.token())
            raise
        with self._health.tolerated(), self._index.transaction() as db:
            for member in (key, *_variants(db, key)):
                self.drop_entry(db, member)
            _delete_reservation(db, announced, self._owner.token())
        return was_there

    def remove_variants(self, matching: Callable[[str], bool]) -> int:
        """Remove the variants whose cache keys match, of all images, and return how many there were.

        The rows are removed first. If this process is killed in between, `check` finds files without a row.
        """
        removed = 0
        for key in self._index.all_keys():
            if is_variant_key(key) and matching(key):
                with self._index.transaction() as db:
                    self.drop_entry(db, key)
                removed += 1
        return removed

    def clear(self, progress: Callable[[int], None]) -> int:
        """Remove all entries, and return how many there were.

        Calls `progress` with the number of entries removed so far.
        """
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
        """Remove the file and the row of `key`, and return how many bytes this frees.

        `db` must be in a transaction of the index.
        """
        directories = self._layout.remove_files(key)
        db.execute("UPDATE total SET directories = directories - ?", (directories,))
        return directories + _delete_row(db, key)

    def is_exceeded(self) -> bool:
        """Return whether the cache exceeds its size limit, for example because the limit was lowered."""
        totals = self._index.totals()
        used = totals.taken + totals.reserved + self._index.bytes_on_disk() + _SLACK_BYTES
        return used > self._max_bytes

    def trim(self) -> bool:
        """Evict a batch of objects if the cache is over its limit. Return whether more must be evicted.

        The free pages of the index don't count, since they are returned to the file system at the end.
        """
        with self._evicting:
            with self._settled_victims() as db:
                totals = "SELECT taken + directories + reserved, rebuilding FROM total"
                taken, rebuilding = db.execute(totals).fetchone()
                excess = taken + self._index.used_bytes() + _SLACK_BYTES - self._max_bytes
                victims = self._evict(db, excess) if excess > 0 and not rebuilding else []
            self._victims = victims
        if not victims:
            self._index.shrink()
        return bool(victims)

    def reclaim(self) -> None:
        """Cancel the reservations of dead processes, and repair the entries that they were changing."""
        self._owner.reclaim(self._settle_owner)

    def close(self) -> None:
        """Remove this process's lock file and its directory for temporary files."""
        self._owner.close()

    def _excess(self, db: sqlite3.Connection, wanted: int) -> float:
        """Return how many bytes must be evicted before `wanted` bytes fit. It is `_NEVER` if they can't."""
        totals = "SELECT taken + directories, reserved, rebuilding FROM total"
        taken, reserved, rebuilding = db.execute(totals).fetchone()
        budget = self._max_bytes - self._index.bytes_on_disk() - _SLACK_BYTES - wanted
        return _NEVER if reserved > budget or rebuilding else taken + reserved - budget

    def _evict(self, db: sqlite3.Connection, wanted: float) -> list[_Victim]:
        """Delete the rows of the least recently used entries until `wanted` bytes have been freed.

        Return a batch of victims, or no victims if there are no entries. Each has a reservation until its
        file has been removed. An entry that was used after its recorded access is kept, and the new access is
        recorded. If that applies to the whole batch, the entry with the oldest access is evicted, so that
        each transaction frees something.
        """
        victims: list[_Victim] = []
        used: list[tuple[int, str]] = []
        freed = 0
        for key, recorded in _least_recently_used(db):
            accessed_at = next((stat.st_atime_ns for _, stat in self._stats(key)), 0)
            if accessed_at > recorded:
                used.append((accessed_at, key))
                self._record_access(db, key, accessed_at)
                continue
            freed += self._evict_entry(db, key, victims)
            if freed >= wanted or len(victims) >= _MAX_VICTIMS:
                return victims
        if not victims and used:
            self._evict_entry(db, min(used)[1], victims)
        return victims

    def _evict_entry(self, db: sqlite3.Connection, key: str, victims: list[_Victim]) -> int:
        """Replace the row of `key` by a reservation, add the victim, and return its size on disk."""
        self._on_eviction()
        taken = _delete_row(db, key)
        reservation = self._insert_reservation(db, key, taken)
        path, inode = next(((path, stat.st_ino) for path, stat in self._stats(key)), ("", 0))
        victims.append(_Victim(reservation, self._owner.token(), path, inode))
        return taken

    @contextmanager
    def _settled_victims(self) -> Iterator[sqlite3.Connection]:
        """Remove the files of the victims. In a transaction, delete their reservations and run the block.

        Raises `OSError` if a file can't be removed. The next call tries again.
        """
        for victim in self._victims:
            _remove_file(victim)
        with self._index.transaction() as db:
            for victim in self._victims:
                _delete_reservation(db, victim.reservation, victim.owner)
            paths = (victim.path for victim in self._victims if victim.path)
            freed = sum(map(self._layout.remove_empty_directories, paths))
            if freed:
                db.execute("UPDATE total SET directories = directories - ?", (freed,))
            yield db
        self._victims = []

    def _reserved(self, db: sqlite3.Connection, key: str, taken: int, path: str) -> Reservation:
        reservation_id = self._insert_reservation(db, key, taken)
        return Reservation(reservation_id, self._owner.token(), key, taken, path)

    def _record_access(self, db: sqlite3.Connection, key: str, accessed_at: int) -> None:
        """Record the access in the index and on the file.

        Setting the times also renews ctime, so the kernel records the next read: with relatime, it updates
        atime only if atime is older than mtime or ctime.
        """
        db.execute("UPDATE entry SET accessed_at = ? WHERE key = ?", (accessed_at, key))
        with suppress(OSError):
            for path, stat in self._stats(key):
                os.utime(path, ns=(accessed_at, stat.st_mtime_ns))

    def _stats(self, key: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the path and the `os.stat` result of the file of `key`, if there is one."""
        for path in self._layout.paths(key):
            with suppress(FileNotFoundError):
                yield path, os.stat(path)

    def _install(self, db: sqlite3.Connection, written: str, facts: ObjectFacts, now: float) -> None:
        """Insert the row, then move the file into place. A rollback would undo only the row."""
        stat = os.stat(written)
        if not (facts.is_immutable or is_variant_key(facts.key)):
            for key, etag in _variants(db, facts.key).items():
                if not is_variant_of(etag, facts.etag):
                    self.drop_entry(db, key)
        _delete_row(db, facts.key)
        taken = insert_row(db, facts, stat, now)
        db.execute("UPDATE total SET entries = entries + 1, taken = taken + ?", (taken,))
        grown = self._layout.install(written, facts)
        db.execute("UPDATE total SET directories = directories + ?", (grown,))

    def _announce_removal(self, key: str) -> int:
        with self._index.transaction() as db:
            return self._insert_reservation(db, key, 0)

    def _unlink(self, key: str) -> bool:
        was_there = False
        for path in (*self._layout.paths(key), *self._layout.variant_paths(key)):
            try:
                os.unlink(path)
            except OSError as exc:
                if os.path.lexists(path):
                    raise CacheStuck(detail=str(exc)) from exc
            else:
                was_there = True
        return was_there

    def _insert_reservation(self, db: sqlite3.Connection, key: str, taken: int) -> int:
        statement = "INSERT INTO reservation (owner, key, taken) VALUES (?, ?, ?)"
        reservation_id = db.execute(statement, (self._owner.token(), key, taken)).lastrowid
        db.execute("UPDATE total SET reserved = reserved + ?", (taken,))
        assert reservation_id is not None
        return reservation_id

    def _delete_released(self) -> None:
        released = tuple(self._released)
        with self._index.transaction() as db:
            for reservation_id, owner in released:
                _delete_reservation(db, reservation_id, owner)
        self._released.difference_update(released)

    def _settle_owner(self, owner: str) -> None:
        with self._index.transaction() as db:
            rows = db.execute("SELECT id, key FROM reservation WHERE owner = ?", (owner,)).fetchall()
            for reservation_id, key in rows:
                _delete_reservation(db, reservation_id, owner)
                for member in (key, *_variants(db, key)):
                    self._settle_key(db, member)
            # A rollback restores the rows and their sums, but it does not undo changes to directories.
            db.execute("UPDATE total SET directories = ?", (self._layout.directories_bytes(),))

    def _settle_key(self, db: sqlite3.Connection, key: str) -> None:
        """Remove the file and the row of `key` unless they match."""
        row = db.execute("SELECT immutable, version FROM entry WHERE key = ?", (key,)).fetchone()
        recorded = {} if row is None else {bool(row[0]): row[1]}
        found = {self._layout.is_immutable_path(path): stat.st_mtime_ns for path, stat in self._stats(key)}
        if recorded != found:
            self.drop_entry(db, key)


def insert_row(db: sqlite3.Connection, facts: ObjectFacts, stat: os.stat_result, validated_at: float) -> int:
    """Insert the row of an object unless it already exists. Return the size on disk of the object's file."""
    taken, modified = _disk_bytes(facts.size), int(facts.last_modified.timestamp())
    content = (facts.etag, facts.content_type, facts.content_encoding, facts.is_immutable, modified)
    db.execute(
        "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (facts.key, facts.size, taken, *content, stat.st_mtime_ns, validated_at, stat.st_atime_ns),
    )
    return taken


def _variants(db: sqlite3.Connection, key: str) -> dict[str, str]:
    """Return the cache keys and the entity tags of the variants of the image `key`."""
    if not can_have_variants(key):
        return {}
    found: dict[str, str] = {}
    for area in AREAS:
        first, last = f"{area}{key}/", f"{area}{key}0"  # "0" follows "/"
        rows = db.execute("SELECT key, etag FROM entry WHERE key > ? AND key < ?", (first, last))
        found.update((name, etag) for name, etag in rows if source_of(name) == key)
    return found


def _remove_file(victim: _Victim) -> None:
    """Remove the victim's file, unless a new file was moved to its path in the meantime."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if victim.path and os.stat(victim.path).st_ino == victim.inode:
            os.unlink(victim.path)


def _delete_row(db: sqlite3.Connection, key: str) -> int:
    """Delete the row of `key`. Return the size on disk of its file, or 0 if there is no row."""
    row = db.execute("DELETE FROM entry WHERE key = ? RETURNING taken", (key,)).fetchone()
    if row is None:
        return 0
    db.execute("UPDATE total SET entries = entries - 1, taken = taken - ?", row)
    return int(row[0])


def _delete_reservation(db: sqlite3.Connection, reservation_id: int, owner: str) -> None:
    """Delete the reservation if it belongs to `owner`. In a rebuilt index, its ID may have been reused."""
    statement = "DELETE FROM reservation WHERE id = ? AND owner = ? RETURNING taken"
    row = db.execute(statement, (reservation_id, owner)).fetchone()
    if row:
        db.execute("UPDATE total SET reserved = reserved - ?", row)


def _least_recently_used(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return a batch of entries as pairs of key and recorded atime, starting with the oldest atime."""
    statement = "SELECT key, accessed_at FROM entry ORDER BY accessed_at LIMIT ?"
    return db.execute(statement, (_BATCH,)).fetchall()


def _disk_bytes(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
