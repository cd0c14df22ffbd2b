"""The way to the bucket: a client for each process, its deadlines, the bucket's region and its URLs.

Which endpoint boto3 really uses for S3: setting, environment, profile and botocore's rules together.

`AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`, `endpoint_url` and `services` of profiles, `AWS_USE_FIPS_ENDPOINT`,
`AWS_USE_DUALSTACK_ENDPOINT` and `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` all count, so only a client can tell.
"""

import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config as ClientConfig
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, NoCredentialsError

from app.aws.credentials import CheckedCredentials
from app.aws.endpoints import DEFAULT_PARTITION, ignores_endpoint_urls, is_aws_s3_url, partition_of
from app.aws.session import new_session
from app.core.errors import AppError
from app.core.object_keys import url_path
from app.stores.s3.errors import errors_mapped
from app.stores.s3.listing import spell_is_truncated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REGIONAL = {"us_east_1_regional_endpoint": "regional"}
_ANY_KEY = "k"

_USER = re.compile(r"(?<=//)[^/?#]*@")
"""User and password in a URL: no request to S3 carries them, and clients are told URLs made from it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a bucket is reached.

    `configured` is what to pass to boto3 as `endpoint_url`; `url` is what boto3 makes of all settings.
    `objects_url` ends in a slash, behind which keys are put.
    """

    configured: str | None
    url: str
    objects_url: str
    is_aws: bool
    path_style: bool
    partition: str


def find_endpoint(
    session: boto3.session.Session, bucket: str, *, region: str, endpoint_url: str, addressing_style: str
) -> Endpoint:
    """Ask a client of `session`, without credentials and without the network. Raises what boto3 raises."""
    configured = endpoint_url if endpoint_url and not ignores_endpoint_urls(session) else None
    is_aws = configured is None or is_aws_s3_url(configured)
    for _ in range(3):
        path_style = addressing_style == "path" or (
            addressing_style == "auto" and (not is_aws or "." in bucket)
        )
        client = _unsigned_client(session, region, configured, path_style)
        found = client.meta.endpoint_url
        if _USER.search(found):
            configured = _USER.sub("", found)
            continue
        if is_aws_s3_url(found) == is_aws:
            break
        is_aws = not is_aws  # an endpoint that only boto3 knew of; the way of naming the bucket depends on it
    request = {"Bucket": bucket, "Key": _ANY_KEY}
    objects_url = client.generate_presigned_url("get_object", Params=request).removesuffix(_ANY_KEY)
    url = objects_url.removesuffix(f"/{bucket}/").removesuffix("/").replace(f"://{bucket}.", "://", 1)
    partition = partition_of(region) or DEFAULT_PARTITION
    return Endpoint(configured, url, objects_url, is_aws, path_style, partition)


def s3_options(path_style: bool) -> Any:
    """Return the value for `s3` in a client's configuration."""
    return {"addressing_style": "path" if path_style else "virtual", **_REGIONAL}


def _unsigned_client(
    session: boto3.session.Session, region: str, endpoint_url: str | None, path_style: bool
) -> "S3Client":
    """Return a client for which no credentials are looked for: their source may be slow, or away."""
    config = ClientConfig(signature_version=UNSIGNED, s3=s3_options(path_style))
    return session.client("s3", region_name=region, endpoint_url=endpoint_url, config=config)


WITHOUT_TRAILERS: dict[str, Any] = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
"""For compatible servers: they reject, or store inside the file, the checksum trailers sent by default."""

CONNECT_SECONDS = 3
"""For each address that the endpoint's name has; S3's have up to eight."""

READ_SECONDS = 10
"""The longest silence."""

RETRY_SECONDS = 14
"""After a failure this late nothing is tried again, so that any call ends within 25 seconds: what waits for
another request's fill gives up after 30."""

TRIES = 3

LOOK_AGAIN_SECONDS = 5.0
"""How long none are looked for after no credentials were found: asking a machine in vain takes seconds."""

_REDIRECTS = (301, 302, 307)

_log = logging.getLogger(__name__)


class Connection:
    """How `bucket` is reached; shared by threads, and good for use after a fork."""

    def __init__(
        self,
        bucket: str,
        *,
        region: str = "",
        endpoint_url: str = "",
        addressing_style: str = "auto",
        max_connections: int = 10,
    ) -> None:
        self.bucket = bucket
        self._region = region
        self._endpoint_url = endpoint_url
        self._addressing_style = addressing_style
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._made: tuple[int, boto3.session.Session, S3Client] | None = None
        self._found: Endpoint | None = None
        self._look_again_at = 0.0

    def client(self) -> "S3Client":
        """The client of this process: clients are shared by threads, but not across a fork."""
        return self._open()[1]

    def region(self) -> str:
        """The bucket's region, as far as it is known: the setting's, boto3's, or what S3 itself said."""
        return self.client().meta.region_name

    @property
    def is_aws(self) -> bool:
        """Whether Amazon S3 answers, and not a compatible server. Raises our errors."""
        return self._endpoint().is_aws

    def identity(self) -> str:
        """Return what tells the bucket apart from all others: a partition's names are its own.

        If boto3 can't say which endpoint it uses, the setting has to do: the cache must open all the same.
        """
        try:
            endpoint = self._endpoint()
        except AppError:
            return f"s3 {self._endpoint_url.rstrip('/')} {self.bucket}"
        partition = "" if endpoint.partition == DEFAULT_PARTITION else endpoint.partition
        return f"s3 {partition if endpoint.is_aws else endpoint.url} {self.bucket}"

    def credentials(self) -> ReadOnlyCredentials:
        """The present credentials; temporary ones are renewed by boto3 when their time has come."""
        found = self._open()[0].get_credentials()
        if found is None:
            raise NoCredentialsError
        return CheckedCredentials(found).get_frozen_credentials()

    def url(self, key: str) -> str:
        """Regional and virtual-hosted, or path-style where the host name could not hold the bucket.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
        """
        return self._endpoint().objects_url + url_path(key)

    def _endpoint(self) -> Endpoint:
        found = self._found
        if found is not None:  # without waiting for a thread that renews credentials
            return found
        with self._lock, errors_mapped("finding the endpoint"):
            return self._find_endpoint(self._new_session())

    def _find_endpoint(self, session: boto3.session.Session) -> Endpoint:
        """Look once for each region. The caller holds the lock."""
        if self._found is None:
            self._found = find_endpoint(
                session,
                self.bucket,
                region=self._region_of(session),
                endpoint_url=self._endpoint_url,
                addressing_style=self._addressing_style,
            )
            if self._endpoint_url and not self._found.configured:
                _log.warning(
                    "AWS_ENDPOINT_URL_S3 does not count: AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is set."
                )
        return self._found

    def _new_session(self) -> boto3.session.Session:
        return new_session(region=self._region)

    def _region_of(self, session: boto3.session.Session) -> str:
        return self._region or session.region_name

    def _open(self) -> "tuple[boto3.session.Session, S3Client]":
        with self._lock, errors_mapped("making the client"):
            if self._made is None or self._made[0] != os.getpid():
                if time.monotonic() < self._look_again_at:
                    raise NoCredentialsError
                session = self._new_session()
                if session.get_credentials() is None:  # a client made now would never find any
                    self._look_again_at = time.monotonic() + LOOK_AGAIN_SECONDS
                    raise NoCredentialsError
                self._made = (os.getpid(), session, self._new_client(session))
            return self._made[1:]

    def _new_client(self, session: boto3.session.Session) -> "S3Client":
        endpoint = self._find_endpoint(session)
        config = ClientConfig(
            signature_version="s3v4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=self._max_connections,
            parameter_validation=False,  # what we pass is of the right types; looking each time costs 0.1 ms
            s3=s3_options(endpoint.path_style),
            **({} if endpoint.is_aws else WITHOUT_TRAILERS),
        )
        client = session.client(
            "s3", region_name=self._region_of(session), endpoint_url=endpoint.configured, config=config
        )
        client.meta.events.register_first("before-call.s3", _note_start)
        client.meta.events.register_last("before-call", _do_not_expect_continue)
        client.meta.events.register_first("before-parse.s3.ListObjectsV2", spell_is_truncated)
        client.meta.events.register_first("needs-retry.s3", _end_late_tries)
        client.meta.events.register_first("needs-retry.s3", self._notice_region)
        client.meta.events.register_first("needs-retry.s3.HeadBucket", end_redirects)
        return client

    def _notice_region(self, response: Any = None, **event: Any) -> None:
        """botocore follows S3 to the bucket's region at each call; the next calls shall begin there."""
        told = _region_told(response)
        with self._lock:
            if not told or self._made is None or told == self._made[2].meta.region_name:
                return
            self._region, self._made, self._found = told, None, None
        _log.warning("The bucket is in the region %s: set AWS_REGION=%s.", told, told)


def _note_start(context: dict[str, Any], **event: Any) -> None:
    context["started"] = time.monotonic()


def _end_late_tries(request_dict: Any, caught_exception: Exception | None = None, **event: Any) -> None:
    """botocore knows no deadline of a whole call: it would wait for silence as often as it tries."""
    started = request_dict["context"].get("started", time.monotonic())
    if caught_exception is not None and time.monotonic() - started > RETRY_SECONDS:
        raise caught_exception


def end_redirects(response: Any = None, **event: Any) -> None:
    """botocore asks HeadBucket which region a redirect means, also when HeadBucket itself is redirected."""
    if response is not None and response[0].status_code in _REDIRECTS and not _region_told(response):
        raise ClientError(response[1], "HeadBucket")


def _region_told(response: Any) -> str:
    """The region that an answer names in saying that this is the wrong one; else empty."""
    if response is None:
        return ""
    http, parsed = response
    error = parsed.get("Error", {})
    if http.status_code in (*_REDIRECTS, 400) or error.get("Code") == "IllegalLocationConstraintException":
        told = str(http.headers.get("x-amz-bucket-region") or error.get("Region") or "")
        return told if re.fullmatch(r"[a-z0-9-]{2,40}", told) else ""
    return ""


def _do_not_expect_continue(params: dict[str, Any], **event: Any) -> None:
    """Images are small: waiting for a 100 costs a round trip, and a second where the server ignores it."""
    params["headers"].pop("Expect", None)
