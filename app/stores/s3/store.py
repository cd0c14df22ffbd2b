"""The S3 store, for Amazon S3 and compatible servers (`AWS_ENDPOINT_URL_S3`)."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from app.config.settings import Config
from app.core.errors import NotFound, StoreError, StoreTimeout, StoreUnreachable
from app.core.objects import NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.core.threads import STORE_CALLS_PER_THREAD
from app.stores.base import BaseStore
from app.stores.s3.client import BucketClient, etag_of, facts_of
from app.stores.s3.errors import app_error, code_of, errors_mapped
from app.stores.s3.listing import list_page
from app.stores.s3.missing_or_denied import Denials
from app.stores.s3.put import Uploader
from app.stores.s3.urls import PublicAccess, presigned

_STATUSES_OF_HEAD = {"301", "400", "403", "404"}
"""Error codes that are just the status of a response to HEAD, which has no body. The body of a response to
GET contains S3's own code."""


class S3Store(BaseStore):
    """Stores objects in one bucket.

    `acl` is `public-read`, `none`, or `auto`, which means public-read as long as the bucket accepts it. `sse`
    is `none`, `AES256` or `aws:kms`. `aws:kms` uses the key `sse_kms_key_id`, or the key that AWS manages if
    `sse_kms_key_id` is empty. `presigned_expiry` is the maximum validity of a signed URL in seconds.
    `max_connections` should be at least the number of threads that use the store.
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
        self._client = BucketClient(
            bucket,
            region=region,
            endpoint_url=endpoint_url,
            addressing_style=addressing_style,
            max_connections=max_connections,
        )
        encryption = {} if sse == "none" else {"ServerSideEncryption": sse}
        if encryption and sse_kms_key_id:
            encryption["SSEKMSKeyId"] = sse_kms_key_id
        self._uploader = Uploader(
            self._client, acl=acl, encryption=encryption, exists=self._exists_before_put
        )
        self._denials = Denials(self._client)
        self._public_access = PublicAccess(self._client.url)
        self._presigned_expiry = presigned_expiry
        self._clock = clock

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the store for the bucket in `S3_BUCKET`."""
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
        """Return a string that contains the endpoint and the bucket."""
        return self._client.identity()

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
        """Send PutObject with a checksum and an ACL. Send `If-None-Match: *` if `overwrite` is False."""
        with errors_mapped("PutObject"):
            upload = self._uploader.put(
                key,
                data,
                content_type=content_type,
                cache_control=cache_control,
                metadata=metadata,
                overwrite=overwrite,
            )
        self._denials.note_written(key)
        if upload.facts is not None:
            return PutResult(upload.facts, created=True)
        try:
            if not upload.in_doubt:
                return PutResult(self.head(key), created=False)
            # The existing object may have been stored by an earlier attempt at this put: compare the bytes.
            stored = self.get(key)
            assert stored is not None  # only a conditional get returns None
            with stored:
                return PutResult(stored.facts, created=_has_bytes(stored, data))
        except NotFound as exc:
            raise StoreUnreachable(
                detail="an object disappeared during a put that must not overwrite it"
            ) from exc

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Send GetObject. Return None for a 304."""
        condition = {"IfNoneMatch": if_none_match} if if_none_match else {}
        with errors_mapped("GetObject"):
            try:
                response = self._client.call("get_object", Key=key, **condition)
            except ClientError as exc:
                if code_of(exc) == "304" and if_none_match:
                    self._denials.note_read(key)
                    return None
                self._raise_if_missing(key, exc, was_read_before=bool(if_none_match))
                raise
        self._denials.note_read(key)
        try:
            facts = facts_of(key, response)
        except BaseException:
            response["Body"].close()
            raise
        return StoredObject(facts, _ResumingBody(self._client, response["Body"], facts))

    def head(self, key: str) -> ObjectFacts:
        """Send HeadObject. If it fails, send GetObject, whose response gives the reason in its body."""
        with errors_mapped("HeadObject"):
            try:
                response = self._client.call("head_object", Key=key)
            except ClientError as exc:
                if code_of(exc) not in _STATUSES_OF_HEAD:
                    raise
                try:
                    self._client.call("get_object", Key=key, Range="bytes=0-0")["Body"].close()
                except ClientError as reason:
                    self._raise_if_missing(key, reason, was_read_before=False)
                    raise
                response = self._client.call("head_object", Key=key)
        self._denials.note_read(key)
        return facts_of(key, response)

    def delete(self, key: str) -> None:
        """Send DeleteObject. If the object is missing, S3 returns no error; other servers may return 404."""
        with suppress(NotFound), errors_mapped("DeleteObject"):
            self._client.call("delete_object", Key=key)
        self._denials.note_deleted(key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Send ListObjectsV2. The cursor contains S3's continuation token."""
        with errors_mapped("ListObjectsV2"):
            return list_page(self._client, prefix, limit, cursor)

    def object_url(self, key: str) -> str:
        """Return the object's URL in the bucket's region."""
        return self._client.url(key)

    def signed_url(self, key: str) -> str:
        """Return the object's URL, signed with our credentials.

        The URL changes each time half of its validity has passed.
        """
        with errors_mapped("signing a URL"):
            credentials, region = self._client.credentials(), self._client.region()
        return presigned(
            self.object_url(key), credentials, region, seconds=self._presigned_expiry, now=self._clock()
        )

    def is_public(self, key: str) -> bool:
        """Return whether anonymous requests succeed. The result is cached for all keys in the same top-level
        folder.
        """
        return self._public_access.is_public(key)

    def _exists_before_put(self, key: str) -> bool:
        """Return whether the object exists.

        If a 404 has a different reason, the put that follows reports it.
        """
        try:
            self._client.call("head_object", Key=key)
        except ClientError as exc:
            return code_of(exc) != "404" and self.exists(key)
        return True

    def _raise_if_missing(self, key: str, exc: ClientError, *, was_read_before: bool) -> None:
        if self._denials.means_missing(key, exc, was_read_before=was_read_before):
            raise NotFound(detail="403 AccessDenied, which this bucket returns for missing objects") from exc


def _has_bytes(stored: StoredObject, data: bytes) -> bool:
    if stored.facts.size != len(data):
        return False
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return stored.facts.etag == f'"{md5}"' or stored.body.read() == data


class _ResumingBody:
    """An object's body. Reading resumes once if the connection breaks, but never after a timeout."""

    def __init__(self, client: BucketClient, body: StreamingBody, facts: ObjectFacts) -> None:
        self._client = client
        self._body = body
        self._facts = facts
        self._done = 0
        self._resumed = False

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or all remaining bytes if `size` is negative.

        Raises `StoreError` if the body ends too early.
        """
        amount = None if size < 0 else size
        try:
            chunk = bytes(self._body.read(amount))
        except Exception as exc:
            self._resume_after(exc)
            with errors_mapped("GetObject body"):
                chunk = bytes(self._body.read(amount))
        self._done += len(chunk)
        if self._done > self._facts.size:
            raise StoreError(detail=f"GetObject: a body of more than the announced {self._facts.size} bytes")
        return chunk

    def close(self) -> None:
        """Return the connection to the pool."""
        self._body.close()

    def _resume_after(self, exc: Exception) -> None:
        """Request the rest of the same version of the object. If the read can't be resumed, raise the
        `AppError` for `exc`, or `exc` itself if it does not come from boto3.
        """
        error = app_error(exc, "GetObject body")
        if error is None:
            raise exc
        facts, offset = self._facts, self._done
        if isinstance(error, StoreTimeout) or self._resumed or offset >= facts.size:
            raise error from exc
        self._resumed = True
        self._body.close()
        with errors_mapped("GetObject"):
            response: dict[str, Any] = self._client.call(
                "get_object", Key=facts.key, Range=f"bytes={offset}-", IfMatch=facts.etag
            )
        self._body = response["Body"]
        expected = (f"bytes {offset}-{facts.size - 1}/{facts.size}", facts.size - offset, facts.etag)
        if (response.get("ContentRange"), response.get("ContentLength"), etag_of(response)) != expected:
            self._body.close()
            raise StoreError(detail="GetObject: a body broke off, and the object has changed since")
