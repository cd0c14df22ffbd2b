"""Space: every byte is reserved before it is written, and the least recently used make room for it.

Files are moved into place and removed inside the index's transactions. A process killed in one leaves at most
a file without a row, under the key of a reservation of its own; whoever finds its owner dead removes it.
"""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from app.cache.index import Index
from app.cache.layout import Layout, disk_bytes, slot_of
from app.cache.owner import Owner
from app.objects import ObjectFacts

_SLACK = 192 * 1024
"""For the cache's own directories and the index's growth from one reservation to the next."""


_BATCH = 500
"""Entries removed in one transaction: others wait for it."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to write one file: `path` is where, `taken` the bytes on disk set aside for it."""

    number: int
    key: str
    taken: int
    path: str


class Space:
    """Keeps what the cache directory takes within `max_bytes`."""

    def __init__(self, layout: Layout, index: Index, max_bytes: int) -> None:
        self._layout = layout
        self._index = index
        self._max_bytes = max_bytes
        self._owner = Owner(layout.tmp)

    def reserve(self, key: str, size: int) -> Reservation | None:
        """Set space aside for an object of `size` bytes; None where it can't fit."""
        path = self._owner.new_path()
        taken = disk_bytes(size) + self._layout.parents_bytes(self._layout.path(key))
        if taken > self._max_bytes:
            return None
        with self._index.transaction() as db:
            if not self._make_room(db, taken):
                return None
            statement = "INSERT INTO reservation (owner, key, taken) VALUES (?, ?, ?)"
            number = db.execute(statement, (self._owner.token(), key, taken)).lastrowid
            db.execute("UPDATE total SET reserved = reserved + ?", (taken,))
        assert number is not None
        return Reservation(number, key, taken, path)

    def publish(self, reservation: Reservation, facts: ObjectFacts, epoch: int, now: float) -> bool:
        """Move the file written into place and turn its reservation into a row.

        False, and the file is removed, where the key was changed since `epoch` was read.
        """
        with self._index.transaction() as db:
            unchanged = self.epoch(facts.key) == epoch
            if unchanged:
                self._move_in(db, reservation.path, facts, now)
            else:
                os.unlink(reservation.path)
            self._drop_reservation(db, reservation.number)
        return unchanged

    def release(self, reservation: Reservation) -> None:
        """Give back what was not used: remove the file, then the reservation."""
        Path(reservation.path).unlink(missing_ok=True)
        with self._index.transaction() as db:
            self._drop_reservation(db, reservation.number)

    def forget(self, key: str) -> None:
        """Remove the entry, and keep fills under way from bringing it back."""
        with self._index.transaction() as db:
            self.drop_entry(db, key)
            self._next_epoch(db, key)

    def change(self, key: str, since: int, *, drop: bool) -> int:
        """Note that the store's object was changed; the new epoch, or -1 where others changed it since, too.

        With `drop` the entry goes: its bytes are not the store's any more.
        """
        with self._index.transaction() as db:
            if drop:
                self.drop_entry(db, key)
            epoch = self._next_epoch(db, key)
        return epoch if epoch == since + 1 else -1

    def renew(self, key: str, now: float) -> None:
        """Note that the store has just confirmed the entry."""
        with self._index.transaction() as db:
            db.execute("UPDATE entry SET validated_at = ? WHERE key = ?", (now, key))

    def epoch(self, key: str) -> int:
        """To be read before the store is asked, and given to `publish`."""
        return self._index.epoch(slot_of(key))

    def clear(self) -> int:
        """Remove every entry, a few in each transaction; how many there were."""
        removed = 0
        while True:
            with self._index.transaction() as db:
                keys = db.execute("SELECT key FROM entry LIMIT ?", (_BATCH,)).fetchall()
                for (key,) in keys:
                    self.drop_entry(db, key)
            if not keys:
                return removed
            removed += len(keys)

    def drop_entry(self, db: sqlite3.Connection, key: str) -> int:
        """Remove file and row, inside a transaction of the index; the bytes that they took."""
        parents = self._layout.remove(self._layout.path(key))
        db.execute("UPDATE total SET directories = directories - ?", (parents,))
        return parents + self._drop_row(db, key)

    def trim(self) -> None:
        """Evict until the bound holds."""
        with self._index.transaction() as db:
            self._make_room(db, 0)

    def bury_dead_owners(self) -> None:
        """Give back what killed processes had reserved, and remove what they left half done."""
        self._owner.bury(self._settle)

    def close(self) -> None:
        """Let go of this process's claims."""
        self._owner.close()

    def _next_epoch(self, db: sqlite3.Connection, key: str) -> int:
        count_on = "ON CONFLICT (slot) DO UPDATE SET number = number + 1 RETURNING number"
        return int(db.execute(f"INSERT INTO epoch VALUES (?, 1) {count_on}", (slot_of(key),)).fetchone()[0])

    def _settle(self, owner: str) -> None:
        with self._index.transaction() as db:
            rows = db.execute("SELECT id, key FROM reservation WHERE owner = ?", (owner,)).fetchall()
            for number, key in rows:
                self._drop_reservation(db, number)
                self._remove_stray(db, key)
            # Rows and their sum change in one transaction; directories are made and removed beside it.
            db.execute("UPDATE total SET directories = ?", (self._layout.directories_bytes(),))

    def _remove_stray(self, db: sqlite3.Connection, key: str) -> None:
        """The file of `key` goes unless it is the one that the index knows."""
        path = self._layout.path(key)
        known = db.execute("SELECT version FROM entry WHERE key = ?", (key,)).fetchone()
        try:
            version = os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return
        if known is None:
            self._layout.remove(path)
        elif known[0] != version:
            self.drop_entry(db, key)

    def _make_room(self, db: sqlite3.Connection, wanted: int) -> bool:
        totals = "SELECT taken + directories, reserved, rebuilding FROM total"
        taken, reserved, rebuilding = db.execute(totals).fetchone()
        budget = self._max_bytes - self._layout.index_bytes() - _SLACK - wanted
        if reserved > budget or rebuilding:
            return False
        while taken + reserved > budget:
            freed = self._evict_oldest(db)
            if freed is None:
                return False
            taken -= freed
        return True

    def _evict_oldest(self, db: sqlite3.Connection) -> int | None:
        """The bytes freed, 0 where the file was used since its access was recorded; None: no entry left."""
        oldest = db.execute("SELECT key, accessed_at FROM entry ORDER BY accessed_at LIMIT 1").fetchone()
        if oldest is None:
            return None
        key, accessed_at = oldest
        path = self._layout.path(key)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return self.drop_entry(db, key)
        if stat.st_atime_ns <= accessed_at:
            return self.drop_entry(db, key)
        db.execute("UPDATE entry SET accessed_at = ? WHERE key = ?", (stat.st_atime_ns, key))
        # The kernel moves an access time that is not newer than the change time (relatime): renew the latter.
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return 0

    def _move_in(self, db: sqlite3.Connection, written: str, facts: ObjectFacts, now: float) -> None:
        path = self._layout.path(facts.key)
        stat = os.stat(written)
        self._drop_row(db, facts.key)
        taken = disk_bytes(facts.size)
        parents = self._layout.make_parents(path)
        os.replace(written, path)
        modified = int(facts.last_modified.timestamp())
        row = (facts.key, facts.size, taken, facts.etag, facts.content_type, modified)
        db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, stat.st_mtime_ns, now, stat.st_atime_ns),
        )
        db.execute(
            "UPDATE total SET entries = entries + 1, taken = taken + ?, directories = directories + ?",
            (taken, parents),
        )

    def _drop_row(self, db: sqlite3.Connection, key: str) -> int:
        row = db.execute("DELETE FROM entry WHERE key = ? RETURNING taken", (key,)).fetchone()
        if row is None:
            return 0
        db.execute("UPDATE total SET entries = entries - 1, taken = taken - ?", row)
        return int(row[0])

    def _drop_reservation(self, db: sqlite3.Connection, number: int) -> None:
        row = db.execute("DELETE FROM reservation WHERE id = ? RETURNING taken", (number,)).fetchone()
        if row:
            db.execute("UPDATE total SET reserved = reserved - ?", row)
