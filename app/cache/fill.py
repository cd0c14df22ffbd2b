"""Bringing objects into the cache: reserve space, write a temporary file, verify it, and publish it."""

import errno
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from io import FileIO

from app.cache.eviction import Reservation, Space
from app.cache.health import CACHE_ERRORS, Health
from app.cache.lookup import CachedObject, CacheStatus, Load, stamped_time
from app.core.errors import StoreError, StoreTimeout
from app.core.object_keys import expected_digest, with_immutability
from app.core.objects import NO_METADATA, Body, ObjectFacts, StoredObject
from app.core.threads import Bulkhead

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024

_COARSE_CLOCK_NS = 20 * 10**6


class Fill:
    """Writes objects into the cache, from the store or from an upload.

    Calls to the store hold a slot of `bulkhead` until the body has been read, or the first piece of a body
    that is not cached. Methods raise `OSError` and `sqlite3.Error` if the cache directory does not work.
    """

    def __init__(self, space: Space, health: Health, bulkhead: Bulkhead, clock: Callable[[], float]) -> None:
        self._space = space
        self._health = health
        self._bulkhead = bulkhead
        self._clock = clock

    def from_store(self, load: Load, etag: str | None, epoch: int) -> CachedObject | None:
        """Return the object that `load` fetches, and cache it; return None if the store still has `etag`.

        It is not cached if its key was changed since `epoch`. If there is no room for it, it is streamed from
        the store.

        If the body has another length than announced, or does not match the digest in its key, it is fetched
        once more. If the same bytes arrive again, they are a foreign object, which is mutable.

        Raises what `load` raises, `StoreBusy`, and `StoreError` if the second body is wrong too.
        """
        with self._bulkhead.calling():
            try:
                return self._attempt(load, etag, epoch)
            except _BadBody as exc:
                _log.warning("Fetching an object once more: %s", exc.cause)
                rejected_digest = exc.digest
            try:
                return self._attempt(load, etag, epoch, rejected_digest)
            except _BadBody as exc:
                raise exc.cause from exc

    def uncached(self, load: Load) -> CachedObject:
        """Return the object from the store without caching it. Raises what `load` raises, and `StoreBusy`."""
        with self._bulkhead.calling():
            stored = load(None)
            assert stored is not None
            try:
                return self._pass_on(stored)
            except _BadBody as exc:
                raise exc.cause from exc

    def from_upload(self, facts: ObjectFacts, data: bytes, epoch: int) -> None:
        """Cache bytes that the store has just acknowledged, if there is room and `facts` are theirs."""
        target = self._open_target(facts) if facts.size == len(data) else None
        if target is not None:
            self._write(*target, facts, [data], epoch, None).body.close()

    def _attempt(
        self, load: Load, etag: str | None, epoch: int, accepted_digest: str = ""
    ) -> CachedObject | None:
        stored = load(etag)
        if stored is None:
            return None
        target = None
        with _closed_on_error(stored.body):
            try:
                target = self._open_target(stored.facts)
            except CACHE_ERRORS as exc:
                self._health.report(exc)
        if target is None:  # no byte has been read yet
            return self._pass_on(stored)
        with closing(stored.body):
            return self._write(*target, stored.facts, self._chunks(stored.body), epoch, accepted_digest)

    def _pass_on(self, stored: StoredObject) -> CachedObject:
        """Return the object uncached, once its first piece has arrived: until then an error can be answered.

        Its bytes are not compared with a digest here, so it is immutable only if the store has done that.
        """
        facts, body = with_immutability(stored.facts, stored.facts.sha256), stored.body
        if not hasattr(body, "fileno"):  # the server sends files without reading them
            with _closed_on_error(body):
                first = self._first_piece(body, min(facts.size, _CHUNK_BYTES))
                body = _StartedBody(first, body, facts.size)
        return CachedObject(facts, body, CacheStatus.BYPASS)

    def _first_piece(self, body: Body, size: int) -> bytes:
        piece = b""
        for chunk in self._chunks(body):
            piece += chunk
            if len(piece) >= size:
                break
        if len(piece) < size:
            raise _BadBody(StoreError(detail=f"a body that ends after {len(piece)} bytes of {size}"))
        return piece

    def _open_target(self, facts: ObjectFacts) -> tuple[Reservation, FileIO] | None:
        """Return reserved space and an empty file for the object; None if the object does not fit."""
        reservation = self._space.reserve(facts.key, facts.size)
        if reservation is None:
            return None
        with ExitStack() as undo:
            undo.callback(self._abandon, reservation)
            file = open(reservation.path, "x+b", buffering=0)  # noqa: SIM115 (the reader closes it)
            undo.callback(file.close)
            _check_free_space(file, facts.size)
            undo.pop_all()
        return reservation, file

    def _write(
        self,
        reservation: Reservation,
        file: FileIO,
        facts: ObjectFacts,
        chunks: Iterable[bytes],
        epoch: int,
        accepted_digest: str | None,
    ) -> CachedObject:
        """Write and verify the file; publish it unless the key was changed since `epoch`.

        Return the object, its file at the first byte. `accepted_digest` is accepted whatever the key says; if
        it is None, any digest is.
        """
        with ExitStack() as undo:
            undo.callback(self._abandon, reservation)
            undo.callback(file.close)
            _copy(chunks, file, facts.size)
            facts = _verified(file, facts, accepted_digest)
            _set_times(file, facts)
            try:
                self._space.publish(reservation, facts, epoch, self._clock())
            except sqlite3.Error as exc:  # the file can be served all the same
                self._health.report(exc)
                self._abandon(reservation)
            else:
                self._health.has_failed = False
            file.seek(0)
            undo.pop_all()
        return CachedObject(facts, file, CacheStatus.MISS)

    def _chunks(self, body: Body) -> Iterator[bytes]:
        try:
            self._bulkhead.note_progress()
            while chunk := body.read(_CHUNK_BYTES):
                self._bulkhead.note_progress()
                yield chunk
        except StoreTimeout:  # another attempt would take as long
            raise
        except StoreError as exc:
            raise _BadBody(exc) from exc

    def _abandon(self, reservation: Reservation) -> None:
        with suppress(OSError, sqlite3.Error):
            self._space.release(reservation)


class _BadBody(Exception):
    """The body broke off, or does not have the announced length or the `digest` in its key."""

    def __init__(self, cause: StoreError, digest: str = "") -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.digest = digest


class _StartedBody:
    """A body whose `first` piece has been read already; it has `size` bytes at most."""

    def __init__(self, first: bytes, body: Body, size: int) -> None:
        self._first = first
        self._body = body
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or all if it is negative. Raises what the body raises."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK_BYTES), b""))
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


def _check_free_space(file: FileIO, size: int) -> None:
    """Raise `OSError` if the disk has no room for `size` bytes, before the body is read."""
    disk = os.fstatvfs(file.fileno())
    if disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _copy(chunks: Iterable[bytes], file: FileIO, size: int) -> None:
    """Write the chunks, but never more than the `size` bytes that are reserved."""
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


def _verified(file: FileIO, facts: ObjectFacts, accepted_digest: str | None) -> ObjectFacts:
    """Return the facts to cache: immutable if the bytes are those that the key stands for.

    Other bytes from the store may have been damaged on the way. They were not if they came twice
    (`accepted_digest`), if the store has the same SHA-256 of them, or if their MD5 is in the key or the ETag.
    """
    expected = expected_digest(facts)
    digest = _digest(file, "sha256") if expected else ""
    is_immutable = bool(expected) and digest.startswith(expected)
    must_match = bool(expected) and not is_immutable and accepted_digest is not None
    if (
        must_match
        and digest not in (accepted_digest, facts.sha256)
        and _digest(file, "md5") not in (expected, facts.etag.strip('"'))
    ):
        raise _BadBody(StoreError(detail="the bytes are not those that the key was made from"), digest)
    return replace(facts, metadata=NO_METADATA, is_immutable=is_immutable)


def _digest(file: FileIO, algorithm: str) -> str:
    file.seek(0)
    return hashlib.file_digest(file, algorithm).hexdigest()


def _set_times(file: FileIO, facts: ObjectFacts) -> None:
    """Set the modification time, the file's version: a stamp, or random so that fills differ."""
    seconds = int(facts.last_modified.timestamp())
    version = stamped_time(facts) if facts.is_immutable else seconds * 10**9 + secrets.randbelow(10**9)
    # Kernels before 6.13 take the change time from a coarser clock, and update no access time that is newer.
    os.utime(file.fileno(), ns=(time.time_ns() - _COARSE_CLOCK_NS, version))
