"""The clients of AWS with which a bucket is set up and examined.

Recognizes successful answers that do not answer the question.

A server that does not know a subresource such as `?encryption` may ignore it and answer as for the bare
bucket: 200 with a listing. botocore finds none of its elements there, and returns an empty setting.
"""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from xml.etree import ElementTree

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError

from app.aws.endpoints import DEFAULT_PARTITION, is_aws_url, partition_of
from app.aws.session import new_session
from app.config.settings import Config
from app.ops.bucket.errors import OTHER_ANSWER, BucketError, errors_mapped
from app.stores.s3.client import WITHOUT_TRAILERS, Endpoint, end_redirects, find_endpoint

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient
    from mypy_boto3_sts import STSClient

_ELEMENTS = {
    "GetBucketAcl": ("AccessControlPolicy", "AccessControlList"),
    "GetBucketCors": ("CORSConfiguration", "CORSRule"),
    "GetBucketEncryption": ("ServerSideEncryptionConfiguration", "Rule"),
    "GetBucketLifecycleConfiguration": ("LifecycleConfiguration", "Rule"),
    "GetBucketLogging": ("BucketLoggingStatus", "LoggingEnabled"),
    "GetBucketOwnershipControls": ("OwnershipControls", "Rule"),
    "GetPublicAccessBlock": ("PublicAccessBlockConfiguration", "BlockPublicAcls"),
}
"""The root element of each answer, and one inside it. Either will do: the inner one is missing if nothing is
configured, and some servers call the root something else. The answer to GetBucketPolicy is JSON."""


def refuse_other_answers(client: "S3Client") -> None:
    """Let calls that read a setting fail with the code `OTHER_ANSWER` if the answer is to something else."""
    for operation in (*_ELEMENTS, "GetBucketPolicy"):
        client.meta.events.register(f"after-call.s3.{operation}", _check)


def _check(model: Any, http_response: Any, **_: Any) -> None:
    """Raise `ClientError` for another body; an empty one counts as a setting that is not configured."""
    body, operation = http_response.content, model.name
    status = http_response.raw.status  # that of `http_response` is 500 if the body is not XML
    if status >= 300 or not body.strip():
        return
    fits = _is_policy(body) if operation == "GetBucketPolicy" else _has_one_of(body, _ELEMENTS[operation])
    if not fits:
        error: Any = {"Code": OTHER_ANSWER, "Message": "The answer is not to what was asked."}
        metadata: Any = {"HTTPStatusCode": status}
        raise ClientError({"Error": error, "ResponseMetadata": metadata}, operation)


def _is_policy(body: bytes) -> bool:
    try:
        policy = json.loads(body)
    except ValueError:
        return False
    return isinstance(policy, dict) and "Statement" in policy


def _has_one_of(body: bytes, names: tuple[str, ...]) -> bool:
    """Return whether the root element or one right inside it has such a name, or is an error's.

    What is not XML counts if it holds the name: it was cut off.
    """
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return names[0].encode() in body
    return any(element.tag.rpartition("}")[2] in (*names, "Error") for element in (root, *root))


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
