"""The store itself: the contract's methods over one bucket."""

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Self

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from app.bulkhead import PLACES_PER_THREAD
from app.config import Config
from app.errors import NotFound, StoreError, StoreUnreachable
from app.objects import NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject, content_codings
from app.stores.base import BaseStore
from app.stores.s3.body import Body
from app.stores.s3.connection import Connection
from app.stores.s3.denial import Denials
from app.stores.s3.errors import code_of, errors_mapped
from app.stores.s3.presign import presigned
from app.stores.s3.public_access import PublicAccess
from app.stores.s3.putting import Putting

_BODILESS = {"301", "400", "403", "404"}
"""Codes that botocore makes of HEAD's statuses; the error's name is in the body, which only GET has."""


_MOST_SKEW = timedelta(minutes=15)
"""S3 refuses requests whose clock differs by more (`RequestTimeTooSkewed`): a `Date` further off is wrong."""


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
            acl=config.s3_acl,
            addressing_style=config.s3_addressing_style,
            sse=config.s3_sse,
            sse_kms_key_id=config.s3_sse_kms_key_id,
            presigned_expiry=config.presigned_expiry,
            max_connections=PLACES_PER_THREAD * config.threads + 2,
        )

    def identity(self) -> str:
        """Endpoint and bucket."""
        return f"s3 {self._connection.endpoint_url} {self._connection.bucket}"

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
            **({"Metadata": dict(metadata)} if metadata else {}),
        }
        with errors_mapped("PutObject"):
            answer = self._putting.put(request, overwrite=overwrite, exists=self._is_there)
        self._denials.note_written(key)
        if answer is None:
            return PutResult(self._facts_of_what_is_there(key), created=False)
        facts = ObjectFacts(key, len(data), content_type, _etag(answer), _date_of(answer), metadata)
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
            facts = _facts(key, answer)
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
        return _facts(key, answer)

    def delete(self, key: str) -> None:
        """DeleteObject; S3 says nothing of objects that are not there."""
        with errors_mapped("DeleteObject"):
            self._connection.client().delete_object(Bucket=self._connection.bucket, Key=key)
        self._denials.note_deleted(key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """ListObjectsV2; the cursor is the last key of the page before."""
        after: dict[str, Any] = {"StartAfter": cursor} if cursor else {}
        with errors_mapped("ListObjectsV2"):
            answer = self._connection.client().list_objects_v2(
                Bucket=self._connection.bucket, Prefix=prefix, MaxKeys=limit, **after
            )
        contents = answer.get("Contents", [])
        objects = tuple(_listed(found) for found in contents[:limit])
        if "IsTruncated" not in answer:
            raise StoreError(detail="ListObjectsV2: an answer without IsTruncated")
        if not objects or not (answer["IsTruncated"] or len(contents) > limit):
            return ObjectPage(objects, None)
        if _utf8(objects[-1].key) <= _utf8(cursor or ""):
            raise StoreError(detail="ListObjectsV2: a page that does not go on after the one before")
        return ObjectPage(objects, objects[-1].key)

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
        if (answer.get("ContentRange"), answer.get("ContentLength"), _etag(answer)) != expected:
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

    def _facts_of_what_is_there(self, key: str) -> ObjectFacts:
        try:
            return self.head(key)
        except NotFound as exc:
            raise StoreUnreachable(detail="an object vanished while it was put once more") from exc


def _encryption(sse: str, kms_key_id: str) -> dict[str, Any]:
    if sse == "none":
        return {}
    return {"ServerSideEncryption": sse, **({"SSEKMSKeyId": kms_key_id} if kms_key_id else {})}


def _facts(key: str, answer: Mapping[str, Any]) -> ObjectFacts:
    """Return the object's facts. Raises `StoreError` if some are missing, or if the answer is only a part."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if status != 200 or "ContentRange" in answer:
        raise StoreError(detail=f"an answer {status} of a part of the object, or of none")
    try:
        return ObjectFacts(
            key=key,
            size=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            etag=_etag(answer),
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


def _listed(found: Mapping[str, Any]) -> ObjectFacts:
    """Return the facts in an entry of a listing. Raises `StoreError` if some are missing."""
    try:
        return ObjectFacts(found["Key"], found["Size"], "", _etag(found), _utc(found["LastModified"]))
    except KeyError as exc:
        raise StoreError(detail=f"ListObjectsV2: an entry without {exc}") from exc


def _utf8(key: str) -> bytes:
    """Return the bytes by which S3 orders listings."""
    return key.encode("utf-8", "surrogatepass")


def _utc(moment: datetime) -> datetime:
    """Return the time in UTC. Raises `StoreError` if that is outside the calendar."""
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as exc:
        raise StoreError(detail=f"an answer of the year {moment.year}") from exc


def _etag(answer: Mapping[str, Any]) -> str:
    """Return the ETag in quotes, which some servers omit. Raises `StoreError` if there is none."""
    etag = str(answer.get("ETag", ""))
    if not etag.strip('"'):
        raise StoreError(detail=f"an answer with the ETag {etag!r}")
    return etag if '"' in etag else f'"{etag}"'


def _date_of(answer: Mapping[str, Any]) -> datetime:
    """When the put happened, by the server's clock: PutObject does not answer with LastModified."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        said = parsedate_to_datetime(date).astimezone(UTC)
    except (OverflowError, ValueError):
        return now
    return said if abs(said - now) < _MOST_SKEW else now
