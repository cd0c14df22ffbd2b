"""Checks, and the context in which they run. A check is a function that returns a finding."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from app.aws.endpoints import is_aws_url
from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.generators.base import ModelFacts
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.plan import ownership_of
from app.ops.bucket.state import random_png
from app.ops.doctor.findings import Finding, NotChecked, query
from app.stores.base import BaseStore
from app.stores.s3.errors import code_of, status_of


@dataclass
class Probe:
    """The small image that checks put, read and delete.

    `returned_data` and `returned_content_type` are what the store returned when the image was read.
    """

    key: str = field(default_factory=lambda: f"doctor/probe-{secrets.token_hex(8)}.png")
    data: bytes = field(default_factory=random_png)
    content_type: str = "image/png"
    returned_data: bytes = b""
    returned_content_type: str = ""


@dataclass(frozen=True, slots=True)
class BucketHead:
    """The response to HeadBucket.

    If the server names no region, `region` is empty. If it sends no valid date, `date` is None.
    """

    status: int
    region: str
    date: datetime | None


@dataclass(frozen=True, slots=True)
class Identity:
    """The account and the ARN to which the credentials belong. Neither of them is secret."""

    account: str
    arn: str


@dataclass
class CheckContext:
    """Everything that checks examine. Responses that several checks need are cached.

    `url_of` returns the URL that clients get for a key. `mistyped` contains sentences about variables that
    look like mistyped settings. `describe_model` asks the provider about the generator's model, and returns
    None if the generator has no provider.
    """

    config: Config
    store: BaseStore
    cache: DiskCache
    clients: AwsClients
    url_of: Callable[[str], str]
    env_file: Path | None = None
    mistyped: Sequence[str] = ()
    describe_model: Callable[[], ModelFacts | None] = lambda: None
    probe: Probe = field(default_factory=Probe)

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.config.s3_bucket

    @property
    def is_aws(self) -> bool:
        """Whether the endpoint is AWS rather than a compatible server."""
        return not self.clients.is_compatible_server

    @cached_property
    def is_public(self) -> bool:
        """Whether browsers should be able to read the bucket.

        This depends only on the settings, except with `IMAGE_URLS=auto`: then it may also depend on whether
        an anonymous request can read an image.
        """
        if self.config.image_urls == "s3" or self.config.s3_acl == "public-read":
            return True
        if self.config.image_urls in ("server", "presigned"):
            return False
        return self.store.is_public(self.probe.key)

    @property
    def mode(self) -> str:
        """`public` or `private`, for `flask bucket setup --mode`."""
        return "public" if self.is_public else "private"

    @cached_property
    def head(self) -> BucketHead:
        """The response to HeadBucket. It may be an error response, since its headers are useful, too."""
        try:
            response: Any = self.clients.s3.head_bucket(Bucket=self.bucket)
        except ClientError as exc:
            response = exc.response
        metadata = response["ResponseMetadata"]
        headers = metadata.get("HTTPHeaders", {})
        date = _parse_date(headers.get("date", ""))
        return BucketHead(metadata["HTTPStatusCode"], headers.get("x-amz-bucket-region", ""), date)

    @cached_property
    def missing_object_code(self) -> str:
        """The error code of a GET for a key that does not exist, or "" if the server returns an object.

        The code shows whether the credentials are accepted. A HEAD request would not show it, since the
        response has no error code. If the response to the GET has no error code either, it does not come from
        S3. The HTTP status is then used as the code.
        """
        try:
            self.clients.s3.get_object(Bucket=self.bucket, Key=f"doctor/missing-{secrets.token_hex(16)}.png")
        except ClientError as exc:
            return code_of(exc) or str(status_of(exc))
        return ""

    @property
    def signing_region(self) -> str:
        """The region for which the server wants signatures, or "" if it accepts the configured region."""
        _ = self.missing_object_code  # sends the signed request that may be refused
        return self.clients.region_named

    @cached_property
    def identity(self) -> Identity:
        """The identity to which the credentials belong. Raises `NotChecked` if there is no STS."""
        self.require_own_service(self.clients.sts.meta.endpoint_url, "STS")
        response = query(self.clients.sts.get_caller_identity)
        if response is None:
            raise NotChecked("can't be checked: the server at the endpoint for STS does not support STS")
        return Identity(response["Account"], response["Arn"])

    @cached_property
    def ownership(self) -> str:
        """The bucket's object ownership, or "" if none is configured, as in old buckets.

        Raises `NotChecked` if the setting can't be read.
        """
        response = query(self.clients.s3.get_bucket_ownership_controls, Bucket=self.bucket)
        return ownership_of(response or {})

    def require_own_service(self, endpoint_url: str, service: str) -> None:
        """Raise `NotChecked` if the credentials of a compatible server would be sent to AWS."""
        if not self.is_aws and is_aws_url(endpoint_url):
            raise NotChecked(f"does not apply: the server at {self.clients.endpoint.url} has no {service}")


def _parse_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else None


CheckFunction = Callable[[CheckContext], Finding]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A named check. It is skipped if any check in `needs` finds a problem."""

    name: str
    run: CheckFunction
    needs: tuple["Check", ...] = ()
    is_remote: bool = False
    """Whether the check calls a service other than S3.

    If that service does not respond, the check is skipped. For other checks, this is a problem.
    """
    cleans_up: bool = False
    """Whether the check removes what other checks created. If so, it runs even after the time limit."""


def check(
    *needs: Check, is_remote: bool = False, cleans_up: bool = False
) -> Callable[[CheckFunction], Check]:
    """Return a decorator that turns a function into a check.

    The check has the name of the function, with hyphens: `def bucket_exists` becomes `bucket-exists`.
    """

    def decorate(function: CheckFunction) -> Check:
        return Check(function.__name__.replace("_", "-"), function, needs, is_remote, cleans_up)

    return decorate
