"""The clients of AWS with which a bucket is set up and examined."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config as ClientConfig

from app.aws import new_session
from app.aws_endpoints import DEFAULT_PARTITION, is_aws_url, partition_of
from app.bucket.answers import refuse_other_answers
from app.bucket.errors import BucketError, errors_mapped
from app.config import Config
from app.stores.s3.connection import WITHOUT_TRAILERS, end_redirects
from app.stores.s3.endpoint import Endpoint, find_endpoint

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient
    from mypy_boto3_sts import STSClient

_CONNECT_SECONDS = 5
_READ_SECONDS = 20
_TOTAL_TRIES = 3


class AwsClients:
    """One client for each service, made when first asked for. Properties raise `BucketError`.

    `endpoint_url` is that of S3 alone, as `AWS_ENDPOINT_URL_S3`; boto3 itself reads `AWS_ENDPOINT_URL`,
    `AWS_ENDPOINT_URL_IAM` and the like, and what profiles say. Credentials come from boto3's usual places;
    those of a `profile` go before all others, where `AWS_PROFILE` would come after keys in the environment.
    `may_ask` says that somebody can type an MFA code.
    """

    def __init__(
        self,
        *,
        region: str = "",
        endpoint_url: str = "",
        addressing_style: str = "auto",
        profile: str = "",
        may_ask: bool = False,
    ) -> None:
        self._region = region
        self.region_named = ""
        """The region that S3 named when it refused requests for another; empty if it did not."""
        self._endpoint_url = endpoint_url
        self._addressing_style = addressing_style
        self._profile = profile
        self._may_ask = may_ask
        if profile:
            _ = self._session  # a profile that was named for this must be there

    @classmethod
    def from_config(cls, config: Config, profile: str = "", *, may_ask: bool = False) -> Self:
        """Clients for `AWS_REGION`, and for the S3 server that `AWS_ENDPOINT_URL_S3` names."""
        return cls(
            region=config.aws_region,
            endpoint_url=config.aws_endpoint_url_s3,
            addressing_style=config.s3_addressing_style,
            profile=profile,
            may_ask=may_ask,
        )

    @cached_property
    def _session(self) -> boto3.session.Session:
        with errors_mapped("Reading the profile"):
            return new_session(region=self._region, may_ask=self._may_ask, profile_name=self._profile or None)

    @property
    def region(self) -> str:
        """The setting's region, or the profile's."""
        return self._region or self._session.region_name

    @cached_property
    def endpoint(self) -> Endpoint:
        """Which endpoint boto3 uses for S3, whatever says so."""
        return self.endpoint_in(self.region)

    def endpoint_in(self, region: str, bucket: str = "bucket") -> Endpoint:
        """Return the endpoint that `bucket` has in another region."""
        with errors_mapped("Finding the endpoint of S3"):
            return find_endpoint(
                self._session,
                bucket,
                region=region,
                endpoint_url=self._endpoint_url,
                addressing_style=self._addressing_style,
            )

    @property
    def is_compatible_server(self) -> bool:
        """Whether S3 is a server other than AWS's, which may lack operations and has no IAM."""
        return not self.endpoint.is_aws

    @property
    def has_iam(self) -> bool:
        """Whether IAM makes users for S3: AWS's does not for a compatible server."""
        return not self.is_compatible_server or not is_aws_url(self.iam.meta.endpoint_url)

    @property
    def partition(self) -> str:
        """The first part of ARNs after `arn:`: `aws`, `aws-cn`, `aws-us-gov` …"""
        found = partition_of(self.region)
        if found is None and not self.is_compatible_server:
            raise BucketError(f"AWS has no region {self.region!r}. Set AWS_REGION, or --region.")
        return found or DEFAULT_PARTITION  # a compatible server has names of its own for regions

    @cached_property
    def s3(self) -> "S3Client":
        """S3, or the compatible server."""
        style = self._addressing_style
        if style == "auto" and self.is_compatible_server:
            style = "path"
        checksums = WITHOUT_TRAILERS if self.is_compatible_server else {}
        config = _timed(signature_version="s3v4", s3={"addressing_style": style}, **checksums)
        with errors_mapped("Making a client"):
            client = self._session.client(
                "s3", region_name=self.region, endpoint_url=self.endpoint.configured, config=config
            )
        refuse_other_answers(client)
        client.meta.events.register("response-received.s3", self._note_region)
        client.meta.events.register_first("needs-retry.s3.HeadBucket", end_redirects)
        return client

    def _note_region(self, parsed_response: dict[str, Any] | None = None, **_: Any) -> None:
        """Note where a server expects requests to be signed for: botocore follows without a word."""
        named = ((parsed_response or {}).get("Error") or {}).get("Region")
        self.region_named = str(named or self.region_named)

    @cached_property
    def iam(self) -> "IAMClient":
        """IAM: users, their policies and keys."""
        with errors_mapped("Making a client"):
            return self._session.client("iam", region_name=self.region, config=_timed())

    @cached_property
    def sts(self) -> "STSClient":
        """STS: who the credentials belong to."""
        with errors_mapped("Making a client"):
            return self._session.client("sts", region_name=self.region, config=_timed())

    @cached_property
    def s3control(self) -> "S3ControlClient":
        """S3 Control: the account's own Block Public Access."""
        with errors_mapped("Making a client"):
            return self._session.client("s3control", region_name=self.region, config=_timed())


def _timed(**options: Any) -> ClientConfig:
    return ClientConfig(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _TOTAL_TRIES},
        **options,
    )
