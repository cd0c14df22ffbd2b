"""Adding objects to the cache: reserve space, write a temporary file, verify it, and publish it."""

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
from io import BytesIO, FileIO

from app.cache.eviction import Reservation, Space
from app.cache.health import CACHE_ERRORS, Health
from app.cache.lookup import CachedObject, CacheStatus, Load, stamped_mtime
from app.core.errors import StoreError, StoreTimeout
from app.core.object_keys import expected_digest, with_immutability
from app.core.objects import NO_METADATA, Body, ObjectFacts, StoredObject
from app.core.threads import Bulkhead

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024

_COARSE_CLOCK_NS = 20 * 10**6


class Fill:
    """Adds objects to the cache, either from the store or from an upload.

    A call to the store holds a slot of `bulkhead` until the body has been read. If the body won't be cached,
    the call holds the slot only until the first bytes have arrived. Methods raise `OSError` and
    `sqlite3.Error` if the cache directory can't be used.
    """

    def __init__(self, space: Space, health: Health, bulkhead: Bulkhead, clock: Callable[[], float]) -> None:
        self._space = space
        self._health = health
        self._bulkhead = bulkhead
        self._clock = clock

    def from_store(self, load: Load, etag: str | None, epoch: int) -> CachedObject | None:
        """Fetch the object with `load`, cache it, and return it.

        Return None if the entity tag of the object in the store still equals `etag`. The object is not cached
        if its key has been changed since `epoch` was read. If the cache has no room for the object, the
        object is streamed from the store.

        If the body does not have the stated length, or does not match the digest in the key, the object is
        fetched once more. If the same bytes arrive again, the object was not written by this server, so it
        is treated as mutable.

        Raises what `load` raises, `StoreBusy`, and `StoreError` if the second body is invalid as well.
        """
        with self._bulkhead.calling():
            try:
                return self._attempt(load, etag, epoch)
            except _BadBody as exc:
                _log.warning("Fetching an object again: %s", exc.cause)
                rejected_digest = exc.digest
            try:
                return self._attempt(load, etag, epoch, rejected_digest)
            except _BadBody as exc:
                raise exc.cause from exc

    def fetch_uncached(self, load: Load) -> CachedObject:
        """Return the object from the store without caching it. Raises what `load` raises, and `StoreBusy`."""
        with self._bulkhead.calling():
            stored = load(None)
            assert stored is not None
            try:
                return self._pass_on(stored)
            except _BadBody as exc:
                raise exc.cause from exc

    def from_upload(self, facts: ObjectFacts, data: bytes, epoch: int, digest: str) -> None:
        """Cache an object that was just put into the store, if it fits and `facts.size` matches `data`.

        `digest` is the hexadecimal SHA-256 of `data`. If it is empty, it is computed if necessary.
        """
        target = self._open_target(facts) if facts.size == len(data) else None
        if target is not None:
            if not digest and expected_digest(facts):
                digest = hashlib.sha256(data).hexdigest()
            facts = with_immutability(facts, digest)
            self._write(*target, facts, [data], epoch, None).body.close()

    def from_variant(self, facts: ObjectFacts, data: bytes, epoch: int, validated_at: float) -> CachedObject:
        """Cache a variant that was just made, and return it. If it can't be cached, return its bytes.

        `validated_at` is the Unix time when the store last confirmed the version of the variant's source. The
        variant is not cached if the source has been changed since `epoch` was read.
        """
        try:
            target = self._open_target(facts)
            if target is not None:
                return self._write(*target, facts, [data], epoch, None, validated_at)
        except CACHE_ERRORS as exc:
            self._health.report(exc)
        return CachedObject(facts, BytesIO(data), CacheStatus.BYPASS)

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
        if target is None:  # the body has not been read yet, so it can be passed on
            return self._pass_on(stored)
        with closing(stored.body):
            return self._write(*target, stored.facts, self._chunks(stored.body), epoch, accepted_digest)

    def _pass_on(self, stored: StoredObject) -> CachedObject:
        """Return the object without caching it, once the first bytes of the body have arrived.

        Until they arrive, the client can still get an error status if the store fails. The bytes are
        not compared with a digest here, so the object is immutable only if the store reports a matching
        SHA-256.
        """
        facts, body = with_immutability(stored.facts, stored.facts.sha256), stored.body
        if not hasattr(body, "fileno"):  # files are sent without being read in Python
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
            raise _BadBody(StoreError(detail=f"a body that ended after {len(piece)} of {size} bytes"))
        return piece

    def _open_target(self, facts: ObjectFacts) -> tuple[Reservation, FileIO] | None:
        """Reserve space for the object and create an empty file. Return None if the object does not fit."""
        reservation = self._space.reserve(facts.key, facts.size)
        if reservation is None:
            return None
        with ExitStack() as undo:
            undo.callback(self._abandon, reservation)
            file = open(  # noqa: SIM115 (the reader closes it)
                reservation.path, "x+b", buffering=0, opener=_open_without_atime
            )
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
        validated_at: float | None = None,
    ) -> CachedObject:
        """Write and verify the file, and publish it unless the key has been changed since `epoch` was read.

        Return the object with its file positioned at the first byte. Bytes whose SHA-256 is `accepted_digest`
        are accepted even if they don't match the key. If `accepted_digest` is None, the bytes are not read
        again, since `facts` already say whether the object is immutable.
        """
        with ExitStack() as undo:
            undo.callback(self._abandon, reservation)
            undo.callback(file.close)
            _copy(chunks, file, facts.size)
            if accepted_digest is not None:
                facts = _verified(file, facts, accepted_digest)
            _set_times(file, facts)
            try:
                now = self._clock() if validated_at is None else validated_at
                self._space.publish(reservation, facts, epoch, now)
            except sqlite3.Error as exc:  # the open file can still be served
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
        except StoreTimeout:  # another attempt would take just as long
            raise
        except StoreError as exc:
            raise _BadBody(exc) from exc

    def _abandon(self, reservation: Reservation) -> None:
        with suppress(OSError, sqlite3.Error):
            self._space.release(reservation)


class _BadBody(Exception):
    """The body broke off, does not have the stated length, or does not match the digest in the key.

    `cause` is the error to raise if the object is not fetched again. If the digest did not match, `digest` is
    the SHA-256 of the bytes that arrived.
    """

    def __init__(self, cause: StoreError, digest: str = "") -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.digest = digest


class _StartedBody:
    """A body whose first bytes, `first`, have already been read. It contains at most `size` bytes."""

    def __init__(self, first: bytes, body: Body, size: int) -> None:
        self._first = first
        self._body = body
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or all remaining bytes if `size` is negative.

        Raises what the underlying body raises.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK_BYTES), b""))
        wanted = min(size, self._left)
        piece, self._first = self._first[:wanted], self._first[wanted:]
        piece = piece or self._body.read(wanted)
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the underlying body."""
        self._body.close()


@contextmanager
def _closed_on_error(body: Body) -> Iterator[None]:
    try:
        yield
    except BaseException:
        body.close()
        raise


def _check_free_space(file: FileIO, size: int) -> None:
    """Raise `OSError` if the disk has no room for `size` bytes. Call this before reading the body."""
    disk = os.fstatvfs(file.fileno())
    if disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open_without_atime(path: str, flags: int) -> int:
    """Open a file so that reading it does not update its atime.

    With relatime, the kernel updates the atime of a new file only at the first read. That has to be the first
    read by a front server, not by the request that filled the cache.
    """
    return os.open(path, flags | getattr(os, "O_NOATIME", 0), 0o666)


def _copy(chunks: Iterable[bytes], file: FileIO, size: int) -> None:
    """Write at most `size` bytes of the chunks to the file. Raise `_BadBody` if there are more or fewer."""
    written = 0
    for chunk in chunks:
        written += len(chunk)
        if written > size:
            break
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]
    if written != size:
        raise _BadBody(StoreError(detail=f"a body of {size} bytes was announced, but {written} arrived"))


def _verified(file: FileIO, facts: ObjectFacts, accepted_digest: str) -> ObjectFacts:
    """Return the facts to cache. They say that the object is immutable if its bytes match the digest.

    Bytes from the store that don't match may have been damaged in transit. They are accepted if two downloads
    returned the same bytes (`accepted_digest`), if the store reports the same SHA-256, or if their MD5 is in
    the key or in the ETag. Otherwise this raises `_BadBody`.
    """
    expected = expected_digest(facts)
    digest = _digest(file, "sha256") if expected else ""
    is_immutable = bool(expected) and digest.startswith(expected)
    if (
        expected
        and not is_immutable
        and digest not in (accepted_digest, facts.sha256)
        and _digest(file, "md5") not in (expected, facts.etag.strip('"'))
    ):
        raise _BadBody(StoreError(detail="the bytes do not match the digest for the key"), digest)
    return replace(facts, metadata=NO_METADATA, is_immutable=is_immutable)


def _digest(file: FileIO, algorithm: str) -> str:
    file.seek(0)
    return hashlib.file_digest(file, algorithm).hexdigest()


def _set_times(file: FileIO, facts: ObjectFacts) -> None:
    """Set the file's mtime, which is its version.

    The mtime of an immutable object contains its stamp (see `app.cache.lookup`). The mtime of a mutable
    object has random nanoseconds, so that each file that is written has a different version.
    """
    seconds = int(facts.last_modified.timestamp())
    version = stamped_mtime(facts) if facts.is_immutable else seconds * 10**9 + secrets.randbelow(10**9)
    # Kernels before 6.13 take ctime from a coarser clock. With relatime, they record the first read only if
    # atime is not newer than ctime. So atime is set to a time slightly before now.
    os.utime(file.fileno(), ns=(time.time_ns() - _COARSE_CLOCK_NS, version))
