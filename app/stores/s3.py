"""The S3 store, over boto3; works with AWS and with compatible servers (`AWS_ENDPOINT_URL_S3`)."""

import base64
import hashlib
import logging
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError

from app.config import Config
from app.keys import url_path
from app.objects import NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.stores.base import BaseStore
from app.stores.s3_errors import MappedBody, code_of, errors_mapped

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DEFAULT_REGION = "us-east-1"
_CONNECT_SECONDS = 5
_READ_SECONDS = 20
_TOTAL_TRIES = 3
_CONFLICT_TRIES = 4

_log = logging.getLogger(__name__)


class S3Store(BaseStore):
    """Objects in one bucket.

    `acl` is `public-read`, `none` or `auto`: public-read until the bucket says that it has ACLs disabled.
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
        max_connections: int = 10,
    ) -> None:
        self._bucket = bucket
        self._region = region
        self._endpoint_url = endpoint_url
        self._acl_mode = acl
        self._acl_sent = acl != "none"
        self._conditional = True
        self._path_style = addressing_style == "path" or (
            addressing_style == "auto" and bool("." in bucket or endpoint_url)
        )
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._made: tuple[int, S3Client] | None = None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The store in `S3_BUCKET`."""
        return cls(
            config.s3_bucket,
            region=config.aws_region,
            endpoint_url=config.aws_endpoint_url_s3,
            acl=config.s3_acl,
            addressing_style=config.s3_addressing_style,
            max_connections=config.threads + 2,
        )

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
        request: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": key,
            "Body": data,
            "ContentType": content_type,
            **({"CacheControl": cache_control} if cache_control else {}),
            **({"Metadata": dict(metadata)} if metadata else {}),
            **self._checksum(data),
        }
        with errors_mapped("PutObject"):
            answer = self._put_object(request, overwrite)
        if answer is None:
            return PutResult(self.head(key), created=False)
        facts = ObjectFacts(key, len(data), content_type, answer["ETag"], _date_of(answer), metadata)
        return PutResult(facts, created=True)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """GetObject; its 304 becomes None."""
        condition: dict[str, Any] = {"IfNoneMatch": if_none_match} if if_none_match else {}
        with errors_mapped("GetObject"):
            try:
                answer = self._client().get_object(Bucket=self._bucket, Key=key, **condition)
            except ClientError as exc:
                if code_of(exc) == "304":
                    return None
                raise
        return StoredObject(_facts(key, answer), MappedBody(answer["Body"]))

    def head(self, key: str) -> ObjectFacts:
        """HeadObject."""
        with errors_mapped("HeadObject"):
            return _facts(key, self._client().head_object(Bucket=self._bucket, Key=key))

    def delete(self, key: str) -> None:
        """DeleteObject; S3 says nothing of objects that are not there."""
        with errors_mapped("DeleteObject"):
            self._client().delete_object(Bucket=self._bucket, Key=key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """ListObjectsV2; the cursor is the last key of the page before."""
        after: dict[str, Any] = {"StartAfter": cursor} if cursor else {}
        with errors_mapped("ListObjectsV2"):
            answer = self._client().list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, MaxKeys=limit, **after
            )
        objects = tuple(
            ObjectFacts(found["Key"], found["Size"], "", found["ETag"], found["LastModified"])
            for found in answer.get("Contents", [])
        )
        return ObjectPage(objects, objects[-1].key if answer["IsTruncated"] and objects else None)

    def object_url(self, key: str) -> str:
        """Regional and virtual-hosted, or path-style where the host name could not hold the bucket.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
        """
        scheme, _, host = self._endpoint().partition("://")
        place = f"{host}/{self._bucket}" if self._path_style else f"{self._bucket}.{host}"
        return f"{scheme}://{place}/{url_path(key)}"

    def is_public(self) -> bool:
        """True while puts carry the public-read ACL."""
        return self._acl_sent

    def _endpoint(self) -> str:
        if self._endpoint_url:
            return self._endpoint_url.rstrip("/")
        region = self._client().meta.region_name
        return f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")

    def _client(self) -> "S3Client":
        """One client for each process: clients are shared by threads, but not across a fork."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._new_client())
            return self._made[1]

    def _new_client(self) -> "S3Client":
        session = boto3.session.Session()
        # Compatible servers reject, or store inside the file, the checksum trailers that are sent by default.
        checksums: dict[str, Any] = (
            {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
            if self._endpoint_url
            else {}
        )
        config = ClientConfig(
            signature_version="s3v4",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _TOTAL_TRIES},
            max_pool_connections=self._max_connections,
            s3={"addressing_style": "path" if self._path_style else "virtual"},
            **checksums,
        )
        region = self._region or session.region_name or _DEFAULT_REGION
        return session.client(
            "s3", region_name=region, endpoint_url=self._endpoint_url or None, config=config
        )

    def _checksum(self, data: bytes) -> dict[str, str]:
        """SHA-256 where AWS checks it; MD5 elsewhere, which every compatible server knows."""
        if self._endpoint_url:
            return {"ContentMD5": _base64(hashlib.md5(data, usedforsecurity=False).digest())}
        return {"ChecksumSHA256": _base64(hashlib.sha256(data).digest())}

    def _put_object(self, request: dict[str, Any], overwrite: bool) -> Any:
        """The answer to PutObject; None where the object was there and must stay."""
        for last in (*(False,) * (_CONFLICT_TRIES - 1), True):
            extra: dict[str, Any] = {"ACL": "public-read"} if self._acl_sent else {}
            conditional = not overwrite and self._conditional
            extra |= {"IfNoneMatch": "*"} if conditional else {}
            if not (overwrite or conditional) and self.exists(request["Key"]):
                return None
            try:
                return self._client().put_object(**request, **extra)
            except ClientError as exc:
                if code_of(exc) == "PreconditionFailed":
                    return None
                if last or not self._learn_from(exc, conditional):
                    raise
        return None

    def _learn_from(self, exc: ClientError, conditional: bool) -> bool:
        """Whether the put is worth another try, after noting what this bucket or server does not support."""
        code = code_of(exc)
        if code == "AccessControlListNotSupported" and self._acl_mode == "auto":
            _log.warning(
                "The bucket has ACLs disabled: objects are stored without one (S3_ACL=none says so)."
            )
            self._acl_sent = False
        elif code == "NotImplemented" and conditional:
            self._conditional = False
        elif code == "NotImplemented" and self._acl_mode == "auto" and self._acl_sent:
            self._acl_sent = False
        elif code == "AccessDenied" and self._acl_sent:
            _log.error("S3 denied a put with ACL public-read: allow s3:PutObjectAcl, or set S3_ACL=none.")
            return False
        else:
            return code == "ConditionalRequestConflict"
        return True


def _facts(key: str, answer: Any) -> ObjectFacts:
    return ObjectFacts(
        key=key,
        size=answer["ContentLength"],
        content_type=answer.get("ContentType", ""),
        etag=answer["ETag"],
        last_modified=answer["LastModified"].astimezone(UTC),
        metadata=MappingProxyType(answer.get("Metadata", {})),
    )


def _date_of(answer: Any) -> datetime:
    """When the put happened, by the server's clock: PutObject does not answer with LastModified."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC).replace(microsecond=0)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
