"""What a check is: a named function of the patient.

What is examined: the settings, the store, the bucket behind it and the cache in front of it.
"""

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
from app.ops.doctor.findings import Finding, NotChecked, ask
from app.stores.base import BaseStore
from app.stores.s3.errors import code_of, status_of


@dataclass
class Probe:
    """The object that is put, read and deleted again; `came_back` is what the store gave for it."""

    key: str = field(default_factory=lambda: f"doctor/probe-{secrets.token_hex(8)}.png")
    data: bytes = field(default_factory=random_png)
    content_type: str = "image/png"
    came_back: bytes = b""
    came_back_as: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What HeadBucket answers whatever the permissions are; `region` and `date` where the server tells."""

    status: int
    region: str
    date: datetime | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials these are; `arn` names no secret."""

    account: str
    arn: str


@dataclass
class Patient:
    """Everything that checks look at; answers that several of them need are asked for once."""

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
        """The bucket's name."""
        return self.config.s3_bucket

    @property
    def is_aws(self) -> bool:
        """Whether S3 is Amazon's own rather than a compatible server."""
        return not self.clients.is_compatible_server

    @cached_property
    def is_public(self) -> bool:
        """Whether browsers are meant to read the bucket: as the settings say, or as `auto` found."""
        if self.config.image_urls == "s3" or self.config.s3_acl == "public-read":
            return True
        if self.config.image_urls in ("server", "presigned"):
            return False
        return self.store.is_public(self.probe.key)

    @property
    def mode(self) -> str:
        """`public` or `private`, as `flask bucket setup --mode` takes it."""
        return "public" if self.is_public else "private"

    @cached_property
    def head(self) -> Head:
        """HeadBucket's answer, a refusal's too."""
        try:
            answer: Any = self.clients.s3.head_bucket(Bucket=self.bucket)
        except ClientError as exc:
            answer = exc.response
        metadata = answer["ResponseMetadata"]
        headers = metadata.get("HTTPHeaders", {})
        date = _date(headers.get("date", ""))
        return Head(metadata["HTTPStatusCode"], headers.get("x-amz-bucket-region", ""), date)

    @cached_property
    def answer_to_missing(self) -> str:
        """The error code for a key that can't exist; HEAD answers have no codes, this one has.

        It is the status if what answers is not S3.
        """
        try:
            self.clients.s3.get_object(Bucket=self.bucket, Key=f"doctor/missing-{secrets.token_hex(16)}.png")
        except ClientError as exc:
            return code_of(exc) or str(status_of(exc))
        return ""

    @property
    def region_named(self) -> str:
        """The region for which the server says that requests must be signed; empty if it accepts ours."""
        assert self.answer_to_missing is not None  # asks
        return self.clients.region_named

    @cached_property
    def caller(self) -> Caller:
        """Whose credentials these are; raises `NotChecked` where nobody can say."""
        self.expect_aws(self.clients.sts.meta.endpoint_url, "STS")
        answer = ask(self.clients.sts.get_caller_identity)
        if answer is None:
            raise NotChecked("can't be checked: no STS answers there")
        return Caller(answer["Account"], answer["Arn"])

    @cached_property
    def ownership(self) -> str:
        """The bucket's object ownership, empty where none is set, as of old; raises `NotChecked`."""
        answer = ask(self.clients.s3.get_bucket_ownership_controls, Bucket=self.bucket)
        return ownership_of(answer or {})

    def expect_aws(self, endpoint_url: str, service: str) -> None:
        """Raise `NotChecked` where a compatible server's credentials would be sent to AWS."""
        if not self.is_aws and is_aws_url(endpoint_url):
            raise NotChecked(f"does not apply: {self.clients.endpoint.url} is a server without {service}")


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else None


Examine = Callable[[Patient], Finding]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One thing that is looked at. `needs` are checks without which this one could find nothing."""

    name: str
    examine: Examine
    needs: tuple["Check", ...] = ()
    elsewhere: bool = False
    """Whether it asks another service than S3, which may be out of reach where S3 is not."""
    tidies_up: bool = False
    """Whether it is run even where no time is left, since it removes what another check made."""


def check(*needs: Check, elsewhere: bool = False, tidies_up: bool = False) -> Callable[[Examine], Check]:
    """Make a function a check; `def bucket_exists` is the check `bucket-exists`."""

    def make(examine: Examine) -> Check:
        return Check(examine.__name__.replace("_", "-"), examine, needs, elsewhere, tidies_up)

    return make
