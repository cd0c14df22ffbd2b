"""The clients of AWS with which a bucket is set up and examined."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from botocore.config import Config as ClientConfig
from botocore.exceptions import UnknownRegionError

from app.aws import new_session
from app.bucket.answers import refuse_other_answers
from app.bucket.errors import BucketError, errors_mapped
from app.config import Config
from app.stores.s3.connection import DEFAULT_REGION, WITHOUT_TRAILERS

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient
    from mypy_boto3_sts import STSClient

_CONNECT_SECONDS = 5
_READ_SECONDS = 20
_TOTAL_TRIES = 3
_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")


class AwsClients:
    """One client for each service, made when first asked for.

    `endpoint_url` is that of S3 alone, as `AWS_ENDPOINT_URL_S3`; boto3 itself reads `AWS_ENDPOINT_URL` and
    `AWS_ENDPOINT_URL_IAM` and the like for the others. Credentials come from boto3's usual places; those of a
    `profile` go before all others, where `AWS_PROFILE` would come after keys in the environment.
    """

    def __init__(
        self, *, region: str = "", endpoint_url: str = "", addressing_style: str = "auto", profile: str = ""
    ) -> None:
        with errors_mapped("Reading the profile"):
            self._session = new_session(profile_name=profile or None)
            self.region = region or self._session.region_name or DEFAULT_REGION
        self.region_named = ""
        """The region that S3 named when it refused requests for another; empty if it did not."""
        self._endpoint_url = endpoint_url
        self._addressing_style = addressing_style

    @classmethod
    def from_config(cls, config: Config, profile: str = "") -> Self:
        """Clients for `AWS_REGION`, and for the S3 server that `AWS_ENDPOINT_URL_S3` names."""
        return cls(
            region=config.aws_region,
            endpoint_url=config.aws_endpoint_url_s3,
            addressing_style=config.s3_addressing_style,
            profile=profile,
        )

    @property
    def is_compatible_server(self) -> bool:
        """Whether S3 is a server other than AWS's, which may lack operations and has no IAM."""
        return bool(self._endpoint_url)

    @property
    def has_iam(self) -> bool:
        """Whether IAM makes users for S3: AWS's does not for a compatible server."""
        return not self.is_compatible_server or not is_aws_url(self.iam.meta.endpoint_url)

    @property
    def partition(self) -> str:
        """The first part of ARNs after `arn:`: `aws`, `aws-cn`, `aws-us-gov` …"""
        try:
            return self._session.get_partition_for_region(self.region)
        except UnknownRegionError as exc:
            if self.is_compatible_server:  # whose regions have names of its own, in AWS's partition
                return "aws"
            raise BucketError(f"AWS has no region {self.region!r}. Set AWS_REGION, or --region.") from exc

    @cached_property
    def s3(self) -> "S3Client":
        """S3, or the compatible server."""
        style = self._addressing_style
        if style == "auto" and self._endpoint_url:
            style = "path"
        checksums = WITHOUT_TRAILERS if self._endpoint_url else {}
        client = self._session.client(
            "s3",
            region_name=self.region,
            endpoint_url=self._endpoint_url or None,
            config=_timed(signature_version="s3v4", s3={"addressing_style": style}, **checksums),
        )
        refuse_other_answers(client)
        client.meta.events.register("response-received.s3", self._note_region)
        return client

    def _note_region(self, parsed_response: dict[str, Any] | None = None, **_: Any) -> None:
        """Note where a server expects requests to be signed for: botocore follows without a word."""
        named = ((parsed_response or {}).get("Error") or {}).get("Region")
        self.region_named = str(named or self.region_named)

    @cached_property
    def iam(self) -> "IAMClient":
        """IAM: users, their policies and keys."""
        return self._session.client("iam", region_name=self.region, config=_timed())

    @cached_property
    def sts(self) -> "STSClient":
        """STS: who the credentials belong to."""
        return self._session.client("sts", region_name=self.region, config=_timed())

    @cached_property
    def s3control(self) -> "S3ControlClient":
        """S3 Control: the account's own Block Public Access."""
        return self._session.client("s3control", region_name=self.region, config=_timed())


def is_aws_url(url: str) -> bool:
    """Whether `url` is Amazon's; an empty one means their default."""
    return not url or (urlsplit(url).hostname or "").endswith(_AWS_DOMAINS)


def _timed(**options: Any) -> ClientConfig:
    return ClientConfig(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _TOTAL_TRIES},
        **options,
    )
