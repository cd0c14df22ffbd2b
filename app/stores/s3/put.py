"""PutObject as this bucket and this server take it: what they don't support is learned from their answers."""

import base64
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from app.core.object_metadata import shorten_values
from app.stores.s3.client import RETRY_SECONDS, Connection
from app.stores.s3.errors import MEANINGS, code_of, status_of

_TRIES = 8
"""Enough for every way of putting, and for some conflicts."""

_SHORT_VALUE = 256
"""Bytes of a metadata value that a server with a small bound takes; this is OpenStack Swift's default."""

_SHORTEN_SECONDS = 600.0
"""How long it is remembered that the server takes short values only: an outage may have looked like it."""

_PERHAPS_METADATA = (400, 413, 431, 500, 501)
"""Statuses of answers to metadata over a server's bound: Swift says 500, AWS 400, proxies 413 or 431."""

_PERHAPS_METADATA_CODES = {
    "MetadataTooLarge",
    "RequestHeaderSectionTooLarge",
    "InvalidRequest",
    "InvalidArgument",
}
"""Codes with a meaning that may be about metadata; the others that have one are about something else."""

_log = logging.getLogger(__name__)


class _Way(NamedTuple):
    """Whether the put carries the ACL public-read, and whether S3 itself sees that nothing is replaced."""

    acl: bool
    conditional: bool


class Sent(NamedTuple):
    """What became of a put.

    `answer` is S3's, None if the object was there and must stay. `in_doubt` says that an earlier try of this
    put may have stored that object, and that only its answer was lost. `metadata` is what was stored.
    """

    answer: dict[str, Any] | None
    in_doubt: bool
    metadata: Mapping[str, str]


class Putting:
    """Puts objects, in the way that was found out to work.

    `acl` is `public-read`, `none`, or `auto`: public-read as long as the bucket takes it.

    `encryption` are further parameters for each put.
    """

    def __init__(self, connection: Connection, acl: str, encryption: dict[str, Any]) -> None:
        self._connection = connection
        self._acl_may_go = acl == "auto"
        self._acl = acl != "none"
        self._conditional: bool | None = None
        """None until the first put has shown whether the server minds conditions; AWS is known to."""
        self._encryption = encryption
        self._short_until = 0.0

    def put(
        self,
        request: dict[str, Any],
        metadata: Mapping[str, str],
        *,
        overwrite: bool,
        exists: Callable[[str], bool],
    ) -> Sent:
        """Put the object. If S3 refuses its metadata, shorten them, then leave them out.

        Raises botocore's errors.
        """
        started = time.monotonic()
        refused: ClientError | None = None
        in_doubt = False
        for simpler in self._metadata_to_try(metadata):
            named = {**request, "Metadata": dict(simpler)} if simpler else request
            try:
                answer, again = self._put(named, overwrite=overwrite, exists=exists)
            except ClientError as exc:
                refused = refused or exc
                late = time.monotonic() - started > RETRY_SECONDS
                if late or not simpler or not _is_perhaps_of_metadata(exc):
                    raise refused from None
                in_doubt = in_doubt or _may_have_stored(exc)
            else:
                if answer and refused:
                    self._note_simpler(simpler, refused)
                return Sent(answer, in_doubt or again, simpler)
        raise AssertionError

    def _metadata_to_try(self, metadata: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        short = shorten_values(metadata, _SHORT_VALUE)
        if short == metadata or time.monotonic() >= self._short_until:
            yield metadata
        if short != metadata:
            yield short
        if metadata:
            yield {}

    def _note_simpler(self, stored: Mapping[str, str], refused: ClientError) -> None:
        if stored:
            self._short_until = time.monotonic() + _SHORTEN_SECONDS
        _log.warning(
            "S3 refused an image with its metadata (%s %s): it was stored with %s. If the server's bound for "
            "metadata is below S3's 2 KB, raise it, or set KEEP_PROMPTS=false.",
            status_of(refused),
            code_of(refused),
            f"values of at most {_SHORT_VALUE} bytes" if stored else "none",
        )

    def _put(
        self, request: dict[str, Any], *, overwrite: bool, exists: Callable[[str], bool]
    ) -> tuple[dict[str, Any] | None, bool]:
        """Return S3's answer, None if the object was there and must stay, and whether it may be ours."""
        if self._conditional is None and self._connection.is_aws:
            self._conditional = True
        if not (overwrite or self._conditional) and exists(request["Key"]):
            return None, False
        way = _Way(self._acl, not overwrite and self._conditional is not False)
        in_doubt = False
        for tries_left in reversed(range(_TRIES)):
            try:
                answer = self._send(request, way)
            except ClientError as exc:
                in_doubt = in_doubt or _may_have_stored(exc)
                if code_of(exc) == "PreconditionFailed" and way.conditional:
                    return None, in_doubt
                other = self._way_after(code_of(exc), way, overwrite)
                if other is None or not tries_left:
                    raise
                way = other
            else:
                self._remember(request, way, overwrite)
                return answer, in_doubt
        raise AssertionError

    def _send(self, request: dict[str, Any], way: _Way) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "Bucket": self._connection.bucket,
            **request,
            **self._checksum(request["Body"]),
            **self._encryption,
            **({"ACL": "public-read"} if way.acl else {}),
            **({"IfNoneMatch": "*"} if way.conditional else {}),
        }
        return dict(self._connection.client().put_object(**parameters))

    def _checksum(self, data: bytes) -> dict[str, str]:
        """SHA-256 where AWS checks it; MD5 elsewhere, which every compatible server knows."""
        if self._connection.is_aws:
            return {"ChecksumSHA256": _base64(hashlib.sha256(data).digest())}
        return {"ContentMD5": _base64(hashlib.md5(data, usedforsecurity=False).digest())}

    def _way_after(self, code: str, way: _Way, overwrite: bool) -> _Way | None:
        """The way to try next; None where no other way would do.

        A missing `s3:PutObjectAcl` and Block Public Access say 403, as a missing `s3:PutObject` does: whether
        it was the ACL shows when the put goes through without.
        """
        if code == "ConditionalRequestConflict":
            return way
        if code in ("AccessControlListNotSupported", "AccessDenied"):
            return way._replace(acl=False) if way.acl and self._acl_may_go else None
        if code == "NotImplemented":
            return self._simpler(way, overwrite)
        return None

    def _simpler(self, way: _Way, overwrite: bool) -> _Way | None:
        """501 names no cause: try without the ACL, then without the condition, then without either."""
        ways = [_Way(acl, condition) for condition in (True, False) for acl in (True, False)]
        left = ways[ways.index(way) + 1 :]
        return next((other for other in left if self._is_possible(other, overwrite)), None)

    def _is_possible(self, way: _Way, overwrite: bool) -> bool:
        acl_fits = way.acl == self._acl or (self._acl_may_go and not way.acl)
        if overwrite or way.conditional:
            return acl_fits and not (overwrite and way.conditional)
        return acl_fits and self._conditional is not True

    def _remember(self, request: dict[str, Any], way: _Way, overwrite: bool) -> None:
        if self._acl and not way.acl:
            self._acl = False
            _log.warning(
                "S3 takes no ACL public-read: images are stored without one from now on. Where the bucket "
                "has ACLs disabled or is private, say so: S3_ACL=none. Otherwise allow s3:PutObjectAcl and "
                "turn off BlockPublicAcls, for the bucket and for the account."
            )
        if self._conditional is None and not overwrite:
            self._conditional = self._minds_conditions(request, way) if way.conditional else False
            if self._conditional is False:
                _log.warning(
                    "The server has no conditional puts: of two uploads of one name at once the last wins."
                )

    def _minds_conditions(self, request: dict[str, Any], way: _Way) -> bool | None:
        """Return whether the server refuses the put that it has just done; some ignore the condition.

        None if that could not be found out. The object is stored either way, so this fails no upload.
        """
        try:
            self._send(request, way)
        except ClientError as exc:
            if code_of(exc) == "PreconditionFailed":
                return True
            return None if status_of(exc) >= 500 or status_of(exc) == 429 else False
        except BotoCoreError:
            return None
        return False


def _may_have_stored(exc: ClientError) -> bool:
    """Return whether the object may be stored in spite of the error: it was not the first try, or a 5xx."""
    retries = exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    return retries > 0 or status_of(exc) >= 500


def _is_perhaps_of_metadata(exc: ClientError) -> bool:
    status, code = status_of(exc), code_of(exc)
    about_others = code in MEANINGS and code not in _PERHAPS_METADATA_CODES
    return status in _PERHAPS_METADATA and (status == 500 or not about_others)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
