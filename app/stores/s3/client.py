"""The client for one bucket: a boto3 client per process, with timeouts, in the bucket's region.

This module also creates `ObjectFacts` from S3's responses.
"""

import base64
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config as ClientConfig
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, NoCredentialsError

from app.aws.endpoints import DEFAULT_PARTITION, Endpoint, find_endpoint, s3_client_options
from app.aws.session import CheckedCredentials, new_session
from app.core.errors import AppError, StoreError
from app.core.object_keys import url_path
from app.core.objects import ObjectFacts, content_codings
from app.stores.s3.errors import errors_mapped

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS = 3
"""Timeout for connecting to each IP address of the endpoint. S3's host names have up to eight addresses."""

READ_TIMEOUT_SECONDS = 10

RETRY_WINDOW_SECONDS = 14
"""A call is retried only within this time after its start, so that every call ends within 25 seconds. This is
less than 30 seconds, the timeout of requests that wait until another request has cached the same object."""

MAX_ATTEMPTS = 3

CREDENTIALS_PAUSE_SECONDS = 5.0
"""How many seconds to wait before looking for credentials again if none were found. A search may take
seconds, since it may ask the metadata service of a cloud instance."""

WITHOUT_TRAILERS: dict[str, Any] = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
"""Client options for compatible servers. Some of these servers reject boto3's checksum trailers, or store
them as part of the object."""

_REDIRECTS = (301, 302, 307)

_log = logging.getLogger(__name__)


class BucketClient:
    """Calls S3 for one bucket. Threads can share an instance, and it keeps working after a fork."""

    def __init__(
        self,
        bucket: str,
        *,
        region: str = "",
        endpoint_url: str = "",
        addressing_style: str = "auto",
        max_connections: int = 10,
    ) -> None:
        self._bucket = bucket
        self._region = region
        self._endpoint_url = endpoint_url
        self._addressing_style = addressing_style
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._opened: tuple[int, boto3.session.Session, S3Client] | None = None
        self._endpoint: Endpoint | None = None
        self._credentials_pause_until = 0.0

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call `operation`, a method of boto3's client such as `get_object`, and return S3's response.

        Raises boto3's errors, and `AppError` if the client can't be created.
        """
        return dict(getattr(self.boto3_client(), operation)(Bucket=self._bucket, **parameters))

    def boto3_client(self) -> "S3Client":
        """Return this process's client. Threads can share it, but a forked process must not use it."""
        return self._open()[1]

    def region(self) -> str:
        """Return the bucket's region as named by S3, else the configured region, else boto3's default."""
        return self.boto3_client().meta.region_name

    def credentials(self) -> ReadOnlyCredentials:
        """Return the current credentials. boto3 renews temporary credentials before they expire."""
        credentials = self._open()[0].get_credentials()
        if credentials is None:
            raise NoCredentialsError
        return CheckedCredentials(credentials).get_frozen_credentials()

    @property
    def is_aws(self) -> bool:
        """Whether the endpoint belongs to Amazon S3. Raises `AppError` if boto3's settings are invalid."""
        return self.endpoint().is_aws

    def url(self, key: str) -> str:
        """Return the object's URL. It is path-style if the bucket's name can't be part of a host name.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
        """
        return self.endpoint().objects_url + url_path(key)

    def identity(self) -> str:
        """Return a string that distinguishes the bucket from all other buckets.

        The string contains the AWS partition unless it is the default partition, since bucket names are
        unique only within a partition. If boto3 can't determine the endpoint, the string contains the
        configured endpoint URL, so that the cache can still be opened.
        """
        try:
            endpoint = self.endpoint()
        except AppError:
            return f"s3 {self._endpoint_url.rstrip('/')} {self._bucket}"
        partition = "" if endpoint.partition == DEFAULT_PARTITION else endpoint.partition
        return f"s3 {partition if endpoint.is_aws else endpoint.url} {self._bucket}"

    def endpoint(self) -> Endpoint:
        """Return the bucket's endpoint. Raises `AppError` if boto3's settings are invalid."""
        endpoint = self._endpoint
        if endpoint is not None:  # don't wait for a thread that is renewing credentials under the lock
            return endpoint
        with self._lock, errors_mapped("finding the endpoint"):
            return self._locked_endpoint(new_session(region=self._region))

    def _locked_endpoint(self, session: boto3.session.Session) -> Endpoint:
        if self._endpoint is None:
            self._endpoint = find_endpoint(
                session,
                self._bucket,
                region=self._region or session.region_name,
                endpoint_url=self._endpoint_url,
                addressing_style=self._addressing_style,
            )
            if self._endpoint_url and not self._endpoint.configured:
                _log.warning("AWS_ENDPOINT_URL_S3 has no effect: AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is set.")
        return self._endpoint

    def _open(self) -> "tuple[boto3.session.Session, S3Client]":
        opened = self._opened
        if opened is not None and opened[0] == os.getpid():
            return opened[1:]
        with self._lock, errors_mapped("creating the client"):
            if self._opened is None or self._opened[0] != os.getpid():
                if time.monotonic() < self._credentials_pause_until:
                    raise NoCredentialsError
                session = new_session(region=self._region)
                if session.get_credentials() is None:  # a client created now would never find credentials
                    self._credentials_pause_until = time.monotonic() + CREDENTIALS_PAUSE_SECONDS
                    raise NoCredentialsError
                self._opened = (os.getpid(), session, self._new_client(session))
            return self._opened[1:]

    def _new_client(self, session: boto3.session.Session) -> "S3Client":
        endpoint = self._locked_endpoint(session)
        config = ClientConfig(
            signature_version="s3v4",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
            max_pool_connections=self._max_connections,
            parameter_validation=False,  # our parameters have the right types; validating takes 0.1 ms a call
            s3=s3_client_options(endpoint.path_style),
            **({} if endpoint.is_aws else WITHOUT_TRAILERS),
        )
        client = session.client(
            "s3",
            region_name=self._region or session.region_name,
            endpoint_url=endpoint.configured,
            config=config,
        )
        events = client.meta.events
        events.register_last("before-call", _before_call)
        events.register_first("before-parse.s3.ListObjectsV2", _normalize_is_truncated)
        events.register_first("needs-retry.s3", self._after_attempt)
        events.register_first("needs-retry.s3.HeadBucket", end_redirects)
        return client

    def _after_attempt(
        self, request_dict: Any, response: Any = None, caught_exception: Any = None, **event: Any
    ) -> None:
        """End a call that failed too late for a retry, and record the region that a response names.

        botocore has no deadline for a whole call; the read timeout applies to each attempt. If S3 names a
        different region, botocore retries the call in that region, but would send the next call to the old
        region again.
        """
        started = request_dict["context"].get("started", time.monotonic())
        if caught_exception is not None and time.monotonic() - started > RETRY_WINDOW_SECONDS:
            raise caught_exception
        region = _named_region(response)
        if not region:
            return
        with self._lock:
            if self._opened is None or region == self._opened[2].meta.region_name:
                return
            self._region, self._opened, self._endpoint = region, None, None
        _log.warning("The bucket is in the region %s: set AWS_REGION=%s.", region, region)


def _before_call(params: dict[str, Any], context: dict[str, Any], **event: Any) -> None:
    """Record the start of a call for its deadline, and don't send `Expect: 100-continue`.

    Images are small, so the header does not pay off: waiting for the status 100 costs a round trip, or a
    second if the server ignores the header.
    """
    context["started"] = time.monotonic()
    params["headers"].pop("Expect", None)


def _normalize_is_truncated(response_dict: dict[str, Any], **event: Any) -> None:
    """Correct the spelling of IsTruncated in a listing before botocore parses it.

    botocore treats every value except `true` as false, so `True` would end a listing early. If the value is
    neither true nor false, rename the element, so that botocore ignores it.
    """
    body = response_dict["body"]
    found = re.search(rb"<((?:\w+:)?IsTruncated)\b[^<>]*(?:/>|>([^<]*)<)", body)
    if found and found[2] not in (b"true", b"false"):
        value = (found[2] or b"").strip().lower()
        if value in (b"true", b"false"):
            response_dict["body"] = body[: found.start(2)] + value + body[found.end(2) :]
        else:
            response_dict["body"] = body.replace(found[1], b"NoBoolean")


def end_redirects(response: Any = None, **event: Any) -> None:
    """Raise `ClientError` for a redirect that names no region.

    Without this, botocore would call HeadBucket to find the region. If HeadBucket were redirected too,
    botocore would repeat it endlessly.
    """
    if response is not None and response[0].status_code in _REDIRECTS and not _named_region(response):
        raise ClientError(response[1], "HeadBucket")


def _named_region(response: Any) -> str:
    """Return the region that S3 names when it rejects a request for the wrong region, or an empty string."""
    if response is None:
        return ""
    http, parsed = response
    error = parsed.get("Error", {})
    if http.status_code in (*_REDIRECTS, 400) or error.get("Code") == "IllegalLocationConstraintException":
        region = str(http.headers.get("x-amz-bucket-region") or error.get("Region") or "")
        return region if re.fullmatch(r"[a-z0-9-]{2,40}", region) else ""
    return ""


def facts_of(key: str, response: Mapping[str, Any]) -> ObjectFacts:
    """Return the `ObjectFacts` from a response to GetObject or HeadObject.

    Raises `StoreError` if a required field is missing, or if the response contains only a part of the object.
    """
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    if status != 200 or "ContentRange" in response:
        raise StoreError(detail=f"a {status} response without the whole object")
    try:
        return ObjectFacts(
            key=key,
            size=response["ContentLength"],
            content_type=response.get("ContentType", ""),
            etag=etag_of(response),
            last_modified=utc(response["LastModified"]),
            metadata=MappingProxyType({n.lower(): v for n, v in response.get("Metadata", {}).items()}),
            content_encoding=content_codings(response.get("ContentEncoding", "")),
            sha256=_sha256_of(response),
        )
    except KeyError as exc:
        raise StoreError(detail=f"a response without {exc}") from exc


def etag_of(response: Mapping[str, Any]) -> str:
    """Return the ETag, with quotes even if the server omits them. Raises `StoreError` if there is none."""
    etag = str(response.get("ETag", ""))
    if not etag.strip('"'):
        raise StoreError(detail=f"a response with the ETag {etag!r}")
    return etag if '"' in etag else f'"{etag}"'


def utc(moment: datetime) -> datetime:
    """Return `moment` in UTC. Raises `StoreError` if `datetime` can't represent the result."""
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as exc:
        raise StoreError(detail=f"a response with a time in the year {moment.year}") from exc


def _sha256_of(response: Mapping[str, Any]) -> str:
    """Return the hexadecimal SHA-256 of the whole object, or an empty string if S3 reports none."""
    try:
        digest = base64.b64decode(response.get("ChecksumSHA256", ""), validate=True)
    except ValueError:
        return ""
    is_whole = response.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return digest.hex() if is_whole and len(digest) == hashlib.sha256().digest_size else ""
