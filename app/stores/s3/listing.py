"""Pages of a listing, and the cursor that leads from one page to the next.

S3 has two ways to go on: `ContinuationToken`, which is its own, and `StartAfter`, a key. Directory buckets
and some compatible servers ignore the second, so the token is sent if there is one. A cursor also holds the
last key: it shows whether a page goes on from there, and replaces a token that the server no longer accepts.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html

Objects' facts, read from S3's answers.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from botocore.exceptions import ClientError

from app.core.errors import StoreError
from app.core.objects import ObjectFacts, ObjectPage, content_codings
from app.stores.s3.errors import status_of

if TYPE_CHECKING:
    from app.stores.s3.client import Connection

_MOST_SKEW = timedelta(minutes=15)
"""S3 refuses requests whose clock differs by more (`RequestTimeTooSkewed`): a `Date` further off is wrong."""


def facts_of(key: str, answer: Mapping[str, Any]) -> ObjectFacts:
    """Return the facts in an answer to GetObject or HeadObject.

    Raises `StoreError` if some are missing, or if the answer is only a part.
    """
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if status != 200 or "ContentRange" in answer:
        raise StoreError(detail=f"an answer {status} of a part of the object, or of none")
    try:
        return ObjectFacts(
            key=key,
            size=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            etag=etag_of(answer),
            last_modified=_utc(answer["LastModified"]),
            metadata=MappingProxyType({n.lower(): v for n, v in answer.get("Metadata", {}).items()}),
            content_encoding=content_codings(answer.get("ContentEncoding", "")),
            sha256=_sha256(answer),
        )
    except KeyError as exc:
        raise StoreError(detail=f"an answer without {exc}") from exc


def _sha256(answer: Mapping[str, Any]) -> str:
    """Return the digest of the whole object in hexadecimal; empty if S3 has none, or one of its parts."""
    try:
        digest = base64.b64decode(answer.get("ChecksumSHA256", ""), validate=True)
    except ValueError:
        return ""
    is_whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return digest.hex() if is_whole and len(digest) == hashlib.sha256().digest_size else ""


def listed_facts(found: Mapping[str, Any]) -> ObjectFacts:
    """Return the facts in an entry of a listing. Raises `StoreError` if some are missing."""
    try:
        return ObjectFacts(found["Key"], found["Size"], "", etag_of(found), _utc(found["LastModified"]))
    except KeyError as exc:
        raise StoreError(detail=f"ListObjectsV2: an entry without {exc}") from exc


def etag_of(answer: Mapping[str, Any]) -> str:
    """Return the ETag in quotes, which some servers omit. Raises `StoreError` if there is none."""
    etag = str(answer.get("ETag", ""))
    if not etag.strip('"'):
        raise StoreError(detail=f"an answer with the ETag {etag!r}")
    return etag if '"' in etag else f'"{etag}"'


def put_time(answer: Mapping[str, Any]) -> datetime:
    """Return when a put happened, by the server's clock: PutObject does not answer with LastModified."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        said = parsedate_to_datetime(date).astimezone(UTC)
    except (OverflowError, ValueError):
        return now
    return said if abs(said - now) < _MOST_SKEW else now


def _utc(moment: datetime) -> datetime:
    """Return the time in UTC. Raises `StoreError` if that is outside the calendar."""
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as exc:
        raise StoreError(detail=f"an answer of the year {moment.year}") from exc


_LONGEST_CURSOR = 3000
"""In characters. Request lines end at 4094 (gunicorn's default), and the cursor travels in one."""

_MOST_EMPTY = 1000
"""Truncated pages without keys in a row. S3 sends them where many objects were deleted; some end at last."""


class _Cursor(NamedTuple):
    """Where a page ended.

    `key` is the last key of the page and `token` the server's continuation token, empty if there is none.
    `empty` counts the pages without keys since `key`. `first` is the first key of the page once keys were not
    in S3's order, else empty.
    """

    key: str = ""
    token: str = ""
    empty: int = 0
    first: str = ""

    def to_text(self) -> str:
        """Return the cursor in characters that URLs need not encode. Drops a token that is too long."""
        text = base64.urlsafe_b64encode(json.dumps(self, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if len(text) > _LONGEST_CURSOR and self.token and self.key:
            return self._replace(token="").to_text()
        return text.decode("ascii").rstrip("=")

    @classmethod
    def from_text(cls, text: str | None) -> Self:
        """Return what `to_text` wrote. Any other text is a key to start after, which can do no harm."""
        if not text:
            return cls()
        try:
            found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            cursor = cls(*found)
            if [type(part) for part in cursor] == [str, str, int, str]:
                (cursor.key + cursor.token + cursor.first).encode("utf-8")
                return cursor
        except (binascii.Error, ValueError, TypeError, RecursionError):
            pass
        return cls(key=text)


def list_page(connection: "Connection", prefix: str, limit: int, cursor: str | None) -> ObjectPage:
    """Return the page after `cursor`: at most `limit` objects whose keys begin with `prefix`.

    Only `IsTruncated=false` ends a listing. Raises botocore's errors, and `StoreError` for a page that does
    not go on from the one before, or that holds fewer keys than it says.
    """
    last = _Cursor.from_text(cursor)
    answer = _ask(connection, {"Prefix": prefix, "MaxKeys": limit}, last)
    contents = answer.get("Contents", [])
    if "IsTruncated" not in answer:
        raise StoreError(detail="ListObjectsV2: an answer without IsTruncated")
    if answer.get("KeyCount", 0) > len(contents):
        raise StoreError(
            detail=f"ListObjectsV2: a page of {len(contents)} keys that says {answer['KeyCount']}"
        )
    objects = tuple(listed_facts(found) for found in contents[:limit])
    ordered = _check_advance(last, [facts.key for facts in objects])
    cut = len(contents) > limit
    if not (answer["IsTruncated"] or cut):
        return ObjectPage(objects, None)
    token = "" if cut else str(answer.get("NextContinuationToken", ""))
    return ObjectPage(objects, _next(last, objects, token, ordered).to_text())


def spell_is_truncated(response_dict: dict[str, Any], **event: Any) -> None:
    """Correct the spelling of IsTruncated in an answer before botocore parses it.

    botocore reads everything but `true` as false, so that `True` would end a listing early. A value that is
    neither is removed.
    """
    body = response_dict["body"]
    found = re.search(rb"<((?:\w+:)?IsTruncated)\b[^<>]*(?:/>|>([^<]*)<)", body)
    if found and found[2] not in (b"true", b"false"):
        value = (found[2] or b"").strip().lower()
        if value in (b"true", b"false"):
            response_dict["body"] = body[: found.start(2)] + value + body[found.end(2) :]
        else:
            response_dict["body"] = body.replace(found[1], b"NoBoolean")


def _ask(connection: "Connection", request: dict[str, Any], last: _Cursor) -> Mapping[str, Any]:
    def ask(**more: Any) -> Mapping[str, Any]:
        return connection.client().list_objects_v2(Bucket=connection.bucket, **request, **more)

    if last.token:
        try:
            return ask(ContinuationToken=last.token)
        except ClientError as exc:  # tokens may expire, and clients may send any
            if status_of(exc) != 400 or not last.key or last.first:
                raise
    return ask(StartAfter=last.key) if last.key else ask()


def _check_advance(last: _Cursor, keys: Sequence[str]) -> bool:
    """Return whether all keys so far came in S3's order. Raises `StoreError` if a page does not advance.

    Directory buckets have no order, and some servers have that of their directories. There, a page that holds
    an end of the one before shows that it came again.
    """
    if last.first:
        again = not {last.key, last.first}.isdisjoint(keys)
    else:
        again = bool(keys and last.key) and _utf8(keys[0]) <= _utf8(last.key)
    if again:
        raise StoreError(detail="ListObjectsV2: a page that does not go on after the one before")
    return not last.first and all(_utf8(one) < _utf8(other) for one, other in pairwise(keys))


def _next(last: _Cursor, objects: Sequence[ObjectFacts], token: str, ordered: bool) -> _Cursor:
    """Return the cursor after a page that is not the last. Raises `StoreError` if there is no way on."""
    if objects and (token or ordered):
        return _Cursor(objects[-1].key, token, first="" if ordered else objects[0].key)
    if objects or token in ("", last.token):
        raise StoreError(detail="ListObjectsV2: a truncated page, and nothing leads on from it")
    if last.empty >= _MOST_EMPTY:
        raise StoreError(detail=f"ListObjectsV2: {_MOST_EMPTY} pages without keys, and no end")
    return last._replace(token=token, empty=last.empty + 1)


def _utf8(key: str) -> bytes:
    """Return the bytes by which S3 orders listings."""
    return key.encode("utf-8", "surrogatepass")
