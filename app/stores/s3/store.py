"""An object's body: its reading raises our errors, and goes on where a connection broke off.

The store itself: the contract's methods over one bucket.

The S3 store, over boto3; works with AWS and with compatible servers (`AWS_ENDPOINT_URL_S3`).
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from app.config.settings import Config
from app.core.errors import NotFound, StoreError, StoreTimeout, StoreUnreachable
from app.core.limiters import STORE_CALLS_PER_THREAD
from app.core.objects import NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.stores.base import BaseStore
from app.stores.s3.client import Connection
from app.stores.s3.errors import code_of, errors_mapped
from app.stores.s3.listing import etag_of, facts_of, list_page, put_time
from app.stores.s3.missing_or_denied import Denials
from app.stores.s3.put import Putting
from app.stores.s3.urls import PublicAccess, presigned

Resume = Callable[[int], StreamingBody]
"""The same version's bytes from an offset on. Raises our errors."""


class Body:
    """A body of `size` bytes. Resumes once after a broken connection, but not after a timeout."""

    def __init__(self, body: StreamingBody, size: int, resume: Resume) -> None:
        self._body = body
        self._size = size
        self._resume: Resume | None = resume
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all where negative; raises `StoreError` where they end too early."""
        try:
            chunk = self._read(size)
        except StoreTimeout:
            raise
        except StoreError:
            if self._resume is None or self._done >= self._size:
                raise
            self._go_on(self._resume)
            chunk = self._read(size)
        self._done += len(chunk)
        if self._done > self._size:
            raise StoreError(detail=f"GetObject: a body of more than the {self._size} bytes announced")
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()

    def _read(self, size: int) -> bytes:
        with errors_mapped("GetObject body"):
            return bytes(self._body.read(None if size < 0 else size))

    def _go_on(self, resume: Resume) -> None:
        self._resume = None
        self._body.close()
        self._body = resume(self._done)


_BODILESS = {"301", "400", "403", "404"}
"""Codes that botocore makes of HEAD's statuses; the error's name is in the body, which only GET has."""


class S3Store(BaseStore):
    """Objects in one bucket.

    `acl` is `public-read`, `none` or `auto`: public-read as long as the bucket takes it. `sse` is `none`,
    `AES256` or `aws:kms`, the latter with `sse_kms_key_id` or AWS's own key. `presigned_expiry` is how many
    seconds a signed URL is good for at most. `max_connections` should be at least the number of threads that
    use the store.
    """

    def __init__(
        self,
        bucket: str,
        *,
        region: str = "",
        endpoint_url: str = "",
        acl: str = "auto",
        addressing_style: str = "auto",
        sse: str = "none",
        sse_kms_key_id: str = "",
        presigned_expiry: int = 3600,
        max_connections: int = 10,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = Connection(
            bucket,
            region=region,
            endpoint_url=endpoint_url,
            addressing_style=addressing_style,
            max_connections=max_connections,
        )
        self._putting = Putting(self._connection, acl, _encryption(sse, sse_kms_key_id))
        self._denials = Denials(self._connection)
        self._public_access = PublicAccess(self._connection.url)
        self._presigned_expiry = presigned_expiry
        self._clock = clock

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The store in `S3_BUCKET`."""
        return cls(
            config.s3_bucket,
            region=config.aws_region,
            endpoint_url=config.aws_endpoint_url_s3,
            acl=config.object_acl,
            addressing_style=config.s3_addressing_style,
            sse=config.s3_sse,
            sse_kms_key_id=config.s3_sse_kms_key_id,
            presigned_expiry=config.presigned_expiry,
            max_connections=STORE_CALLS_PER_THREAD * config.threads + 2,
        )

    def identity(self) -> str:
        """Endpoint and bucket."""
        return self._connection.identity()

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str = "",
        metadata: Mapping[str, str] = NO_METADATA,
        overwrite: bool = True,
    ) -> PutResult:
        """PutObject with its type, caching, checksum and ACL; `overwrite=False` is `If-None-Match: *`."""
        request = {
            "Key": key,
            "Body": data,
            "ContentType": content_type,
            **({"CacheControl": cache_control} if cache_control else {}),
        }
        with errors_mapped("PutObject"):
            sent = self._putting.put(request, metadata, overwrite=overwrite, exists=self._is_there)
            etag = None if sent.answer is None else self._etag_of_put(key, data, sent.answer)
        self._denials.note_written(key)
        if sent.answer is None or etag is None:
            return self._result_of_what_is_there(key, data, in_doubt=sent.in_doubt)
        facts = ObjectFacts(key, len(data), content_type, etag, put_time(sent.answer), sent.metadata)
        return PutResult(facts, created=True)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """GetObject; its 304 becomes None."""
        condition = {"IfNoneMatch": if_none_match} if if_none_match else {}
        with errors_mapped("GetObject"):
            try:
                answer = self._get_object(key, **condition)
            except ClientError as exc:
                if code_of(exc) == "304" and if_none_match:
                    self._denials.note_read(key)
                    return None
                self._raise_if_missing(key, exc, was_there=bool(if_none_match))
                raise
        self._denials.note_read(key)
        try:
            facts = facts_of(key, answer)
        except BaseException:
            answer["Body"].close()
            raise
        return StoredObject(
            facts, Body(answer["Body"], facts.size, lambda offset: self._get_rest(facts, offset))
        )

    def head(self, key: str) -> ObjectFacts:
        """HeadObject."""
        with errors_mapped("HeadObject"):
            try:
                answer = self._head_object(key)
            except ClientError as exc:
                if code_of(exc) not in _BODILESS:
                    raise
                answer = self._head_after_get(key)
        self._denials.note_read(key)
        return facts_of(key, answer)

    def delete(self, key: str) -> None:
        """DeleteObject; S3 says nothing of objects that are not there."""
        with suppress(NotFound), errors_mapped("DeleteObject"):  # other servers may answer 404
            self._connection.client().delete_object(Bucket=self._connection.bucket, Key=key)
        self._denials.note_deleted(key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """ListObjectsV2; the cursor holds its continuation token."""
        with errors_mapped("ListObjectsV2"):
            return list_page(self._connection, prefix, limit, cursor)

    def object_url(self, key: str) -> str:
        """The object's place at S3, in the bucket's region."""
        return self._connection.url(key)

    def signed_url(self, key: str) -> str:
        """The same URL signed with our credentials; it changes once in half of its time."""
        with errors_mapped("signing a URL"):
            credentials, region = self._connection.credentials(), self._connection.region()
        return presigned(
            self.object_url(key), credentials, region, seconds=self._presigned_expiry, now=self._clock()
        )

    def is_public(self, key: str) -> bool:
        """By reading it, or one of the same folder a while ago, as a browser would."""
        return self._public_access.is_public(key)

    def _get_object(self, key: str, **more: Any) -> dict[str, Any]:
        return dict(self._connection.client().get_object(Bucket=self._connection.bucket, Key=key, **more))

    def _get_rest(self, facts: ObjectFacts, offset: int) -> StreamingBody:
        """The bytes of this very version from `offset` on."""
        with errors_mapped("GetObject"):
            answer = self._get_object(facts.key, Range=f"bytes={offset}-", IfMatch=facts.etag)
        body: StreamingBody = answer["Body"]
        expected = (f"bytes {offset}-{facts.size - 1}/{facts.size}", facts.size - offset, facts.etag)
        if (answer.get("ContentRange"), answer.get("ContentLength"), etag_of(answer)) != expected:
            body.close()
            raise StoreError(detail="GetObject: a body broke off, and its rest is not of the same version")
        return body

    def _is_there(self, key: str) -> bool:
        """Before a put, which tells by itself where the bucket is missing: a 404 is taken as it is."""
        try:
            self._head_object(key)
        except ClientError as exc:
            return code_of(exc) != "404" and self.exists(key)
        return True

    def _head_after_get(self, key: str) -> dict[str, Any]:
        """Ask by GET, which has a body to name the error; where there is none any more, HEAD again."""
        try:
            self._get_object(key, Range="bytes=0-0")["Body"].close()
        except ClientError as exc:
            self._raise_if_missing(key, exc, was_there=False)
            raise
        return self._head_object(key)

    def _head_object(self, key: str) -> dict[str, Any]:
        return dict(self._connection.client().head_object(Bucket=self._connection.bucket, Key=key))

    def _raise_if_missing(self, key: str, exc: ClientError, *, was_there: bool) -> None:
        if self._denials.means_missing(key, exc, was_there=was_there):
            raise NotFound(detail="403 AccessDenied, which this bucket answers for what is missing") from exc

    def _etag_of_put(self, key: str, data: bytes, answer: Mapping[str, Any]) -> str:
        """Return the ETag in the answer to a put, or the MD5 of the bytes, which a plain put has as its ETag.

        OpenStack Swift sends none if another put came after this one. A 200 without an ETag may also come
        from something that is not S3, so there must be an object under the key then. Raises `StoreError`.
        """
        if str(answer.get("ETag", "")).strip('"'):
            return etag_of(answer)
        try:
            facts_of(key, self._head_object(key))
        except ClientError as exc:
            if code_of(exc) == "404":
                raise StoreError(
                    detail="PutObject: answered without an ETag, and nothing was stored"
                ) from exc
            raise
        return f'"{_md5(data)}"'

    def _result_of_what_is_there(self, key: str, data: bytes, *, in_doubt: bool) -> PutResult:
        """Return the facts of the object that kept a put from creating one.

        With `in_doubt` it may be of this very put, whose first answer was lost: the same bytes tell.
        """
        try:
            if not in_doubt:
                return PutResult(self.head(key), created=False)
            stored = self.get(key)
            assert stored is not None  # only a conditional get gives None
            with stored:
                return PutResult(stored.facts, created=_holds(stored, data))
        except NotFound as exc:
            raise StoreUnreachable(detail="an object vanished while it was put once more") from exc


def _holds(stored: StoredObject, data: bytes) -> bool:
    if stored.facts.size != len(data):
        return False
    return stored.facts.etag == f'"{_md5(data)}"' or stored.body.read() == data


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _encryption(sse: str, kms_key_id: str) -> dict[str, Any]:
    if sse == "none":
        return {}
    return {"ServerSideEncryption": sse, **({"SSEKMSKeyId": kms_key_id} if kms_key_id else {})}
