"""Pages of a listing, and the cursor that leads from one page to the next.

S3 offers two ways to continue a listing: `ContinuationToken`, an opaque token, and `StartAfter`, a key.
Directory buckets and some compatible servers ignore `StartAfter`, so the token is sent if there is one. A
cursor contains both the token and the last key of the page. The key shows whether the next page really
continues the listing, and it is sent as `StartAfter` if the server no longer accepts the token.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

from botocore.exceptions import ClientError

from app.core.errors import StoreError
from app.core.objects import ObjectFacts, ObjectPage
from app.stores.s3.client import BucketClient, etag_of, utc
from app.stores.s3.errors import status_of

_MAX_CURSOR_CHARS = 3000
"""Maximum length of a cursor, in characters. Clients send the cursor in the request line, whose maximum
length is 4094 characters (gunicorn's default)."""

_MAX_EMPTY_PAGES = 1000
"""Maximum number of consecutive truncated pages without keys. S3 sends such pages after many objects were
deleted."""


def list_page(client: BucketClient, prefix: str, limit: int, cursor: str | None) -> ObjectPage:
    """Return the page after `cursor`: at most `limit` objects whose keys begin with `prefix`.

    The listing ends only when a page has `IsTruncated=false`. Raises botocore's errors. Raises `StoreError`
    if the page does not continue the previous page, or if it has fewer keys than its `KeyCount` says.
    """
    last = _Cursor.from_text(cursor)
    response = _request_page(client, {"Prefix": prefix, "MaxKeys": limit}, last)
    contents = response.get("Contents", [])
    if "IsTruncated" not in response:
        raise StoreError(detail="ListObjectsV2: a response without IsTruncated")
    if response.get("KeyCount", 0) > len(contents):
        raise StoreError(
            detail=f"ListObjectsV2: a page of {len(contents)} keys with a KeyCount of {response['KeyCount']}"
        )
    objects = tuple(_facts_in(entry) for entry in contents[:limit])
    in_order = _check_advance(last, [facts.key for facts in objects])
    is_cut = len(contents) > limit
    if not (response["IsTruncated"] or is_cut):
        return ObjectPage(objects, None)
    token = "" if is_cut else str(response.get("NextContinuationToken", ""))
    return ObjectPage(objects, _next_cursor(last, objects, token, in_order).to_text())


class _Cursor(NamedTuple):
    """The position in a listing after a page.

    `key` is the last key of the page. `token` is the server's continuation token, or empty. `empty` is the
    number of pages without keys that followed `key`. `first` is the first key of the page if the keys were
    not in S3's order, else empty.
    """

    key: str = ""
    token: str = ""
    empty: int = 0
    first: str = ""

    def to_text(self) -> str:
        """Return the cursor as a string that needs no encoding in URLs. Omit the token if it is too long."""
        text = base64.urlsafe_b64encode(json.dumps(self, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if len(text) > _MAX_CURSOR_CHARS and self.token and self.key:
            return self._replace(token="").to_text()
        return text.decode("ascii").rstrip("=")

    @classmethod
    def from_text(cls, text: str | None) -> Self:
        """Return the cursor that `to_text` wrote. Treat any other string as a key to start after."""
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


def _request_page(client: BucketClient, parameters: dict[str, Any], last: _Cursor) -> Mapping[str, Any]:
    if last.token:
        try:
            return client.call("list_objects_v2", **parameters, ContinuationToken=last.token)
        except ClientError as exc:  # tokens may expire, and clients may send any string
            if status_of(exc) != 400 or not last.key or last.first:
                raise
    start = {"StartAfter": last.key} if last.key else {}
    return client.call("list_objects_v2", **parameters, **start)


def _facts_in(entry: Mapping[str, Any]) -> ObjectFacts:
    try:
        return ObjectFacts(entry["Key"], entry["Size"], "", etag_of(entry), utc(entry["LastModified"]))
    except KeyError as exc:
        raise StoreError(detail=f"ListObjectsV2: an entry without {exc}") from exc


def _check_advance(last: _Cursor, keys: Sequence[str]) -> bool:
    """Return whether all keys so far were in S3's order.

    Raises `StoreError` if the page does not continue the previous page.

    Directory buckets list keys in no particular order, and some servers list them in the order of their
    directories. In such a listing, a page that contains the first or the last key of the previous page counts
    as a repetition.
    """
    if last.first:
        repeats = not {last.key, last.first}.isdisjoint(keys)
    else:
        repeats = bool(keys and last.key) and _utf8(keys[0]) <= _utf8(last.key)
    if repeats:
        raise StoreError(detail="ListObjectsV2: a page that does not continue the previous one")
    return not last.first and all(_utf8(one) < _utf8(other) for one, other in pairwise(keys))


def _next_cursor(last: _Cursor, objects: Sequence[ObjectFacts], token: str, in_order: bool) -> _Cursor:
    """Return the cursor after a truncated page. Raises `StoreError` if the listing can't be continued."""
    if objects and (token or in_order):
        return _Cursor(objects[-1].key, token, first="" if in_order else objects[0].key)
    if objects or token in ("", last.token):
        raise StoreError(detail="ListObjectsV2: a truncated page without a way to continue")
    if last.empty >= _MAX_EMPTY_PAGES:
        raise StoreError(detail=f"ListObjectsV2: {_MAX_EMPTY_PAGES} consecutive pages without keys")
    return last._replace(token=token, empty=last.empty + 1)


def _utf8(key: str) -> bytes:
    """Return the bytes by which S3 sorts keys."""
    return key.encode("utf-8", "surrogatepass")
