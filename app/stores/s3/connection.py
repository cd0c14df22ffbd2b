"""The way to the bucket: a client for each process, its deadlines, the bucket's region and its URLs."""

import logging
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config as ClientConfig
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, NoCredentialsError

from app.aws import new_session
from app.aws_credentials import CheckedCredentials
from app.aws_endpoints import DEFAULT_PARTITION
from app.errors import AppError
from app.keys import url_path
from app.stores.s3.endpoint import Endpoint, find_endpoint, s3_options
from app.stores.s3.errors import errors_mapped
from app.stores.s3.listing import spell_is_truncated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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
