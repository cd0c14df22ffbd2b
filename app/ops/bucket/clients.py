"""boto3 clients that set up and examine a bucket.

They also detect successful responses to another operation. A server that does not know a subresource such as
`?encryption` may ignore it and answer as for the bucket itself: 200 with a listing. botocore would find none
of the expected elements there and return an empty setting.
"""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from xml.etree import ElementTree

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError

from app.aws.endpoints import DEFAULT_PARTITION, Endpoint, find_endpoint, is_aws_url, partition_of
from app.aws.session import new_session
from app.config.settings import Config
from app.ops.bucket.errors import UNRELATED_RESPONSE, BucketError, errors_mapped
from app.stores.s3.client import WITHOUT_TRAILERS, end_redirects

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient
    from mypy_boto3_sts import STSClient

_CONNECT_TIMEOUT_SECONDS = 5
_READ_TIMEOUT_SECONDS = 20
_MAX_ATTEMPTS = 3


class AwsClients:
    """One client for each service, made on first use. Properties raise `BucketError`.

    `endpoint_url` applies to S3 alone, like `AWS_ENDPOINT_URL_S3`; boto3 itself reads `AWS_ENDPOINT_URL`,
    `AWS_ENDPOINT_URL_IAM` and the profile. Credentials come from boto3's usual sources. Those of `profile`
    take precedence over keys in the environment, unlike those of `AWS_PROFILE`. Set `interactive` if somebody
    can type an MFA code.
    """

    def __init__(
        self,
        *,
        region: str = "",
        endpoint_url: str = "",
        addressing_style: str = "auto",
        profile: str = "",
        interactive: bool = False,
    ) -> None:
        self._region = region
        self.region_named = ""
        """The region that S3 named when it refused requests signed for another one; empty if it did not."""
        self._endpoint_url = endpoint_url
        self._addressing_style = addressing_style
        self._profile = profile
        self._interactive = interactive
        if profile:
            _ = self._session  # fail now if the profile does not exist

    @classmethod
    def from_config(cls, config: Config, profile: str = "", *, interactive: bool = False) -> Self:
        """Return clients for `AWS_REGION` and the S3 server in `AWS_ENDPOINT_URL_S3`."""
        return cls(
            region=config.aws_region,
            endpoint_url=config.aws_endpoint_url_s3,
            addressing_style=config.s3_addressing_style,
            profile=profile,
            interactive=interactive,
        )

    @cached_property
    def _session(self) -> boto3.session.Session:
        with errors_mapped("Reading the profile"):
            return new_session(
                region=self._region, interactive=self._interactive, profile_name=self._profile or None
            )

    @property
    def region(self) -> str:
        """The region of the settings, or else of the profile."""
        return self._region or self._session.region_name

    @cached_property
    def endpoint(self) -> Endpoint:
        """The endpoint that boto3 uses for S3, from settings, environment or profile."""
        return self.endpoint_in(self.region)

    def endpoint_in(self, region: str, bucket: str = "bucket") -> Endpoint:
        """Return the endpoint of `bucket` in another region."""
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
        """True if S3 is a server other than AWS's, which may lack operations."""
        return not self.endpoint.is_aws

    @property
    def has_iam(self) -> bool:
        """True if IAM manages the users of S3. AWS's IAM does not for a compatible server."""
        return not self.is_compatible_server or not is_aws_url(self.iam.meta.endpoint_url)

    @property
    def partition(self) -> str:
        """The second part of ARNs: `aws`, `aws-cn`, `aws-us-gov` …"""
        found = partition_of(self.region)
        if found is None and not self.is_compatible_server:
            raise BucketError(f"AWS has no region {self.region!r}. Set AWS_REGION, or --region.")
        return found or DEFAULT_PARTITION  # compatible servers have their own region names

    @cached_property
    def s3(self) -> "S3Client":
        """S3, or the compatible server."""
        style = self._addressing_style
        if style == "auto" and self.is_compatible_server:
            style = "path"
        checksums = WITHOUT_TRAILERS if self.is_compatible_server else {}
        config = _client_config(signature_version="s3v4", s3={"addressing_style": style}, **checksums)
        with errors_mapped("Making a client"):
            client = self._session.client(
                "s3", region_name=self.region, endpoint_url=self.endpoint.configured, config=config
            )
        for operation in (*_EXPECTED_ELEMENTS, "GetBucketPolicy"):
            client.meta.events.register(f"after-call.s3.{operation}", _refuse_unrelated_response)
        client.meta.events.register("response-received.s3", self._note_region)
        client.meta.events.register_first("needs-retry.s3.HeadBucket", end_redirects)
        return client

    def _note_region(self, parsed_response: dict[str, Any] | None = None, **_: Any) -> None:
        """Remember the region that an error names. botocore signs the request again for it, silently."""
        named = ((parsed_response or {}).get("Error") or {}).get("Region")
        self.region_named = str(named or self.region_named)

    @cached_property
    def iam(self) -> "IAMClient":
        """IAM: users, their policies and access keys."""
        with errors_mapped("Making a client"):
            return self._session.client("iam", region_name=self.region, config=_client_config())

    @cached_property
    def sts(self) -> "STSClient":
        """STS: the identity that the credentials belong to."""
        with errors_mapped("Making a client"):
            return self._session.client("sts", region_name=self.region, config=_client_config())

    @cached_property
    def s3control(self) -> "S3ControlClient":
        """S3 Control: Block Public Access of the account."""
        with errors_mapped("Making a client"):
            return self._session.client("s3control", region_name=self.region, config=_client_config())


def _client_config(**options: Any) -> ClientConfig:
    return ClientConfig(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS},
        **options,
    )


_EXPECTED_ELEMENTS = {
    "GetBucketAcl": ("AccessControlPolicy", "AccessControlList"),
    "GetBucketCors": ("CORSConfiguration", "CORSRule"),
    "GetBucketEncryption": ("ServerSideEncryptionConfiguration", "Rule"),
    "GetBucketLifecycleConfiguration": ("LifecycleConfiguration", "Rule"),
    "GetBucketLogging": ("BucketLoggingStatus", "LoggingEnabled"),
    "GetBucketOwnershipControls": ("OwnershipControls", "Rule"),
    "GetPublicAccessBlock": ("PublicAccessBlockConfiguration", "BlockPublicAcls"),
}
"""The root element of each response, and one of its children. Either suffices: the child is missing if
nothing is configured, and some servers use another name for the root. The response to GetBucketPolicy is
JSON."""


def _refuse_unrelated_response(model: Any, http_response: Any, **_: Any) -> None:
    """Raise `ClientError` with `UNRELATED_RESPONSE` if the body answers another operation.

    An empty body counts as a setting that is not configured.
    """
    body, operation = http_response.content, model.name
    status = http_response.raw.status  # that of `http_response` is 500 if the body is not XML
    if status >= 300 or not body.strip():
        return
    if operation == "GetBucketPolicy":
        matches = _is_policy(body)
    else:
        matches = _has_element(body, _EXPECTED_ELEMENTS[operation])
    if not matches:
        error: Any = {"Code": UNRELATED_RESPONSE, "Message": "The response is to another request."}
        metadata: Any = {"HTTPStatusCode": status}
        raise ClientError({"Error": error, "ResponseMetadata": metadata}, operation)


def _is_policy(body: bytes) -> bool:
    try:
        policy = json.loads(body)
    except ValueError:
        return False
    return isinstance(policy, dict) and "Statement" in policy


def _has_element(body: bytes, names: tuple[str, ...]) -> bool:
    """Return True if the root element or one of its children has one of the names, or is an error.

    XML that was cut off counts if it contains the first name.
    """
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return names[0].encode() in body
    return any(element.tag.rpartition("}")[2] in (*names, "Error") for element in (root, *root))
