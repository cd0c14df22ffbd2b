"""Bringing an object into the cache: reserve, write aside, verify, publish."""

import errno
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from typing import NamedTuple

from app.cache.eviction import Reservation, Space
from app.cache.health import Disorder
from app.cache.lookup import CachedObject, CacheStatus, Load, stamped_time
from app.core.errors import StoreError, StoreTimeout
from app.core.limiters import Bulkhead
from app.core.object_keys import expected_digest, with_immutability
from app.core.objects import Body, ObjectFacts, StoredObject

_log = logging.getLogger(__name__)

_CHUNK = 256 * 1024

_COARSE_CLOCK_NS = 20 * 10**6


class _Place(NamedTuple):
    """Where an object is to be written."""

    reservation: Reservation
    file: FileIO


class Fill:
    """Writes objects into the cache, as they come from the store or as they are uploaded.

    It holds a place of `bulkhead` until the last byte has arrived, or the first piece of a body that is not
    cached. Its methods raise `OSError` and `sqlite3.Error` if the cache is out of order.
    """

    def __init__(
        self, space: Space, disorder: Disorder, bulkhead: Bulkhead, clock: Callable[[], float]
    ) -> None:
        self._space = space
        self._disorder = disorder
        self._bulkhead = bulkhead
        self._clock = clock

    def from_store(self, load: Load, etag: str | None, epoch: int) -> CachedObject | None:
        """The object that `load` gives, kept on the way; None where the store still has `etag`.

        It is not kept where its key was changed since `epoch`.

        What finds no room comes straight from the store. A body that is not as announced is asked for
        once more; bytes that are not those of the key's digest, too. If they come again, they are somebody
        else's object, and mutable.

        Raises what `load` raises, `StoreBusy`, and `StoreError` where the second body is no better.
        """
        with self._bulkhead.calling():
            try:
                return self._once(load, etag, epoch)
            except _BadBody as exc:
                _log.warning("Asking the store once more for a body: %s", exc.cause)
                seen = exc.digest
            try:
                return self._once(load, etag, epoch, seen)
            except _BadBody as exc:
                raise exc.cause from exc

    def straight(self, load: Load) -> CachedObject:
        """Return the object from the store without caching it. Raises what `load` raises, and `StoreBusy`."""
        with self._bulkhead.calling():
            stored = load(None)
            assert stored is not None
            try:
                return self._pass_on(stored)
            except _BadBody as exc:
                raise exc.cause from exc

    def from_upload(self, facts: ObjectFacts, data: bytes, epoch: int) -> None:
        """Keep bytes that the store has just acknowledged, where they find room and are what `facts` say."""
        place = self._make_place(facts) if facts.size == len(data) else None
        if place is not None:
            self._write(place, facts, [data], epoch).body.close()

    def _once(self, load: Load, etag: str | None, epoch: int, seen: str = "") -> CachedObject | None:
        stored = load(etag)
        if stored is None:
            return None
        place = None
        with _closed_on_error(stored.body), self._disorder.survived():
            place = self._make_place(stored.facts)
        if place is None:  # not a byte has been read, so that it can be passed on
            return self._pass_on(stored)
        with stored:
            return self._write(place, stored.facts, self._chunks(stored.body), epoch, seen)

    def _pass_on(self, stored: StoredObject) -> CachedObject:
        """Return the object uncached, once its first piece is here: until then an error can be answered.

        Nobody compares its bytes with a digest here: it is immutable only if the store has done so.
        """
        facts, body = with_immutability(stored.facts, stored.facts.sha256), stored.body
        if not hasattr(body, "fileno"):  # a server sends files without reading them
            with _closed_on_error(body):
                body = _Begun(self._first_piece(body, min(facts.size, _CHUNK)), body, facts.size)
        return CachedObject(facts, body, CacheStatus.BYPASS)

    def _make_place(self, facts: ObjectFacts) -> _Place | None:
        """An empty file for the object, with room on the disk for it; None where the bound has none."""
        reservation = self._space.reserve(facts.key, facts.size)
        if reservation is None:
            return None
        with ExitStack() as undo:
            undo.callback(self._abandon, reservation)
            file = open(reservation.path, "x+b", buffering=0)  # noqa: SIM115 (the reader closes it)
            undo.callback(file.close)
            _check_disk(file, facts.size)
            undo.pop_all()
        return _Place(reservation, file)

    def _write(
        self,
        place: _Place,
        facts: ObjectFacts,
        chunks: Iterable[bytes],
        epoch: int,
        seen: str | None = None,
    ) -> CachedObject:
        """The object, its file open at the first byte, published unless the key was changed since `epoch`.

        A digest that was `seen` before is taken, whatever the key says; where it is None, any is.
        """
        reservation, file = place
        with ExitStack() as undo:
            undo.callback(self._abandon, reservation)
            undo.callback(file.close)
            _copy(chunks, file, facts.size)
            facts = _proven(file, facts, seen)
            _set_times(file, facts)
            try:
                self._space.publish(reservation, facts, epoch, self._clock())
            except sqlite3.Error as exc:  # the bytes are here all the same
                self._disorder.note(exc)
                self._abandon(reservation)
            else:
                self._disorder.over()
            file.seek(0)
            undo.pop_all()
        return CachedObject(facts, file, CacheStatus.MISS)

    def _first_piece(self, body: Body, size: int) -> bytes:
        piece = b""
        for chunk in self._chunks(body):
            piece += chunk
            if len(piece) >= size:
                break
        if len(piece) < size:
            raise _BadBody(
                StoreError(detail=f"a body of {len(piece)} bytes, of which the first {size} were due")
            )
        return piece

    def _chunks(self, body: Body) -> Iterator[bytes]:
        try:
            self._bulkhead.note_progress()
            while chunk := body.read(_CHUNK):
                self._bulkhead.note_progress()
                yield chunk
        except StoreTimeout:  # waiting again would take as long
            raise
        except StoreError as exc:
            raise _BadBody(exc) from exc

    def _abandon(self, reservation: Reservation) -> None:
        with suppress(OSError, sqlite3.Error):
            self._space.release(reservation)


class _BadBody(Exception):
    """The body broke off, has another length than announced, or another `digest` than its key."""

    def __init__(self, cause: StoreError, digest: str = "") -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.digest = digest


class _Begun:
    """A body whose first piece has been read already; it returns `size` bytes at most."""

    def __init__(self, first: bytes, body: Body, size: int) -> None:
        self._first = first
        self._body = body
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all where negative; raises what the body does."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        wanted = min(size, self._left)
        piece, self._first = self._first[:wanted], self._first[wanted:]
        piece = piece or self._body.read(wanted)
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the body."""
        self._body.close()


@contextmanager
def _closed_on_error(body: Body) -> Iterator[None]:
    try:
        yield
    except BaseException:
        body.close()
        raise


def _check_disk(file: FileIO, size: int) -> None:
    """Raise `OSError` before the body is begun, where its `size` bytes don't fit on the disk."""
    disk = os.fstatvfs(file.fileno())
    if disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _copy(chunks: Iterable[bytes], file: FileIO, size: int) -> None:
    """Write the chunks, and nothing past the bytes reserved."""
    written = 0
    for chunk in chunks:
        written += len(chunk)
        if written > size:
            break
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]
    if written != size:
        raise _BadBody(StoreError(detail=f"a body of {written} bytes or more instead of {size}"))


def _proven(file: FileIO, facts: ObjectFacts, seen: str | None) -> ObjectFacts:
    """Return the object's facts, immutable if the bytes are those that the key stands for.

    Others that come from the store may have been damaged on the way. They were not if they came before
    (`seen`), if the store has the same SHA-256 of them, or if their MD5 is in the key or the entity tag.
    """
    wanted = expected_digest(facts)
    digest = _digest(file, "sha256") if wanted else ""
    proven = with_immutability(facts, digest)
    if not wanted or proven.is_immutable or seen is None or digest in (seen, facts.sha256):
        return proven
    if _digest(file, "md5") not in (wanted, facts.etag.strip('"')):
        raise _BadBody(StoreError(detail="the bytes are not those that the key was made from"), digest)
    return proven


def _digest(file: FileIO, name: str) -> str:
    file.seek(0)
    return hashlib.file_digest(file, name).hexdigest()


def _set_times(file: FileIO, facts: ObjectFacts) -> None:
    """The modification time is the file's version: a stamp, or a random number that tells fills apart."""
    seconds = int(facts.last_modified.timestamp())
    version = stamped_time(facts) if facts.is_immutable else seconds * 10**9 + secrets.randbelow(10**9)
    # Kernels before 6.13 take the change time from a coarser clock, and count no read while it is older.
    os.utime(file.fileno(), ns=(time.time_ns() - _COARSE_CLOCK_NS, version))
