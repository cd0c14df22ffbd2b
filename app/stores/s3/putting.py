"""PutObject as this bucket and this server take it: what they don't support is learned from their answers."""

import base64
import hashlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from app.stores.s3.connection import Connection
from app.stores.s3.errors import code_of

_TRIES = 8
"""Enough for every way of putting, and for some conflicts."""

_log = logging.getLogger(__name__)


class _Way(NamedTuple):
    """Whether the put carries the ACL public-read, and whether S3 itself sees that nothing is replaced."""

    acl: bool
    conditional: bool


class Putting:
    """`acl` is `public-read`, `none`, or `auto`: public-read as long as the bucket takes it.

    `encryption` are further parameters for each put.
    """

    def __init__(self, connection: Connection, acl: str, encryption: dict[str, Any]) -> None:
        self._connection = connection
        self._acl_may_go = acl == "auto"
        self._acl = acl != "none"
        self._conditional: bool | None = None
        """None until the first put has shown whether the server minds conditions; AWS is known to."""
        self._encryption = encryption

    def put(
        self, request: dict[str, Any], *, overwrite: bool, exists: Callable[[str], bool]
    ) -> dict[str, Any] | None:
        """S3's answer; None where the object was there and must stay. Raises botocore's errors."""
        if self._conditional is None and self._connection.is_aws:
            self._conditional = True
        if not (overwrite or self._conditional) and exists(request["Key"]):
            return None
        way = _Way(self._acl, not overwrite and self._conditional is not False)
        for tries_left in reversed(range(_TRIES)):
            try:
                answer = self._send(request, way)
            except ClientError as exc:
                if code_of(exc) == "PreconditionFailed" and way.conditional:
                    return None
                other = self._way_after(code_of(exc), way, overwrite)
                if other is None or not tries_left:
                    raise
                way = other
            else:
                self._remember(request, way, overwrite)
                return answer
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
            self._conditional = way.conditional and self._minds_conditions(request, way)
            if not self._conditional:
                _log.warning(
                    "The server has no conditional puts: of two uploads of one name at once the last wins."
                )

    def _minds_conditions(self, request: dict[str, Any], way: _Way) -> bool:
        """Whether the server refuses the put that it has just done: some take the condition and ignore it."""
        try:
            self._send(request, way)
        except ClientError as exc:
            return code_of(exc) == "PreconditionFailed"
        return False


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
