"""boto3 clients that set up and examine a bucket.

They also detect successful responses that belong to a different operation. A server that does not know a
subresource such as `?encryption` may ignore it and return 200 with a listing of the bucket. botocore would
find none of the expected elements in the listing, and would return an empty setting.
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
    """A client for each AWS service, created on first use. The properties raise `BucketError`.

    `endpoint_url` applies only to S3, like `AWS_ENDPOINT_URL_S3`. boto3 itself reads `AWS_ENDPOINT_URL`,
    `AWS_ENDPOINT_URL_IAM` and the profile. Credentials come from boto3's usual sources. The credentials of
    `profile` take precedence over keys in the environment, unlike those of `AWS_PROFILE`. Set `interactive`
    if a person can enter an MFA code.
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
        """The region that S3 named when it refused a request signed for a different region.

        It is empty if S3 refused no such request.
        """
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
        """The region from the settings or, if they don't name one, from the profile."""
        return self._region or self._session.region_name

    @cached_property
    def endpoint(self) -> Endpoint:
        """The endpoint that boto3 uses for S3, from the settings, the environment or the profile."""
        return self.endpoint_in(self.region)

    def endpoint_in(self, region: str, bucket: str = "bucket") -> Endpoint:
        """Return the endpoint that `bucket` has if the bucket is in `region`."""
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
        """Whether the endpoint is an S3-compatible server rather than AWS. It may lack some operations."""
        return not self.endpoint.is_aws

    @property
    def has_iam(self) -> bool:
        """Whether `iam` manages the users of the S3 server.

        It doesn't if `iam` calls AWS, but the S3 server is not AWS.
        """
        return not self.is_compatible_server or not is_aws_url(self.iam.meta.endpoint_url)

    @property
    def partition(self) -> str:
        """The AWS partition, which is the second part of ARNs, such as `aws` or `aws-cn`."""
        found = partition_of(self.region)
        if found is None and not self.is_compatible_server:
            raise BucketError(f"AWS has no region {self.region!r}. Set AWS_REGION, or --region.")
        return found or DEFAULT_PARTITION  # compatible servers have their own region names

    @cached_property
    def s3(self) -> "S3Client":
        """The client for Amazon S3 or the compatible server."""
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
        """Remember the region that an error response names.

        Otherwise it would be lost, since botocore silently signs the request for that region and repeats it.
        """
        named = ((parsed_response or {}).get("Error") or {}).get("Region")
        self.region_named = str(named or self.region_named)

    @cached_property
    def iam(self) -> "IAMClient":
        """The client for IAM, which manages users, their policies and access keys."""
        with errors_mapped("Making a client"):
            return self._session.client("iam", region_name=self.region, config=_client_config())

    @cached_property
    def sts(self) -> "STSClient":
        """The client for STS, which returns the identity to which the credentials belong."""
        with errors_mapped("Making a client"):
            return self._session.client("sts", region_name=self.region, config=_client_config())

    @cached_property
    def s3control(self) -> "S3ControlClient":
        """The client for S3 Control, which manages the Block Public Access settings of the account."""
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
"""Maps each operation to the root element of its response and one of the root's children.

A response is accepted if it has at least one of these two elements. The child is missing if nothing is
configured, and some servers use a different name for the root. GetBucketPolicy is not listed, because its
response is JSON.
"""


def _refuse_unrelated_response(model: Any, http_response: Any, **_: Any) -> None:
    """Raise `ClientError` with `UNRELATED_RESPONSE` if the body belongs to a different operation.

    An empty body means that the setting is not configured.
    """
    body, operation = http_response.content, model.name
    # botocore sets `http_response.status_code` to 500 if the body is not XML.
    status = http_response.raw.status
    if status >= 300 or not body.strip():
        return
    if operation == "GetBucketPolicy":
        matches = _is_policy(body)
    else:
        matches = _has_element(body, _EXPECTED_ELEMENTS[operation])
    if not matches:
        error: Any = {"Code": UNRELATED_RESPONSE, "Message": "The response belongs to a different request."}
        metadata: Any = {"HTTPStatusCode": status}
        raise ClientError({"Error": error, "ResponseMetadata": metadata}, operation)


def _is_policy(body: bytes) -> bool:
    try:
        policy = json.loads(body)
    except ValueError:
        return False
    return isinstance(policy, dict) and "Statement" in policy


def _has_element(body: bytes, names: tuple[str, ...]) -> bool:
    """Return whether the root element or one of its children is an error or has one of the names.

    If the XML can't be parsed, for example because it was cut off, it only has to contain the first name.
    """
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return names[0].encode() in body
    return any(element.tag.rpartition("}")[2] in (*names, "Error") for element in (root, *root))
