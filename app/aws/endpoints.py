"""AWS's partitions, hosts and regions, and the endpoint that boto3 uses for a bucket.

Each partition (`aws`, `aws-cn`, `aws-us-gov` …) has its own DNS suffixes, ARNs and bucket names. See
https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config as ClientConfig
from botocore.exceptions import UnknownRegionError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_PARTITION = "aws"

_S3_HOST = re.compile(r"(?:.+\.)?s3[a-z0-9-]*(?:\.dualstack)?(?:\.[a-z]+(?:-[a-z]+)+-\d+)?(?:\.vpce)?")
"""Matches the part before the DNS suffix in the name of an S3 host, such as `s3-fips.dualstack.us-east-1`. It
does not match the names of load balancers and virtual machines at AWS, on which any server may run."""

_USER_IN_URL = re.compile(r"(?<=//)[^/?#]*@")
"""Matches the user and password in a URL. S3 requests don't use them, and clients would see them in the URLs
of objects."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint of a bucket.

    `configured` is the `endpoint_url` to pass to boto3. `url` is the endpoint that boto3 derives from all
    settings. `objects_url` ends in a slash. The URL of an object is `objects_url` followed by the key.
    `is_aws` is False for a compatible server.
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
    """Return the endpoint that boto3 uses for `bucket`, without sending a request.

    The endpoint depends on the argument `endpoint_url`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`,
    `endpoint_url` and `services` in profiles, `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT` and
    `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`. So this function creates a client from `session` and reads the
    client's URL. Raises the exceptions that boto3 raises.
    """
    configured = endpoint_url if endpoint_url and not ignores_endpoint_urls(session) else None
    is_aws = configured is None or is_aws_s3_url(configured)
    for _ in range(3):
        path_style = addressing_style == "path" or (
            addressing_style == "auto" and (not is_aws or "." in bucket)
        )
        client = _unsigned_client(session, region, configured, path_style)
        url = client.meta.endpoint_url
        if _USER_IN_URL.search(url):
            configured = _USER_IN_URL.sub("", url)
            continue
        if is_aws_s3_url(url) == is_aws:
            break
        # The environment or the profile sets a different kind of endpoint, which may need a different
        # addressing style, so create another client.
        is_aws = not is_aws
    parameters = {"Bucket": bucket, "Key": "k"}
    objects_url = client.generate_presigned_url("get_object", Params=parameters).removesuffix("k")
    url = objects_url.removesuffix(f"/{bucket}/").removesuffix("/").replace(f"://{bucket}.", "://", 1)
    partition = partition_of(region) or DEFAULT_PARTITION
    return Endpoint(configured, url, objects_url, is_aws, path_style, partition)


def s3_client_options(path_style: bool) -> Any:
    """Return the value of the option `s3` in a client's configuration."""
    style = "path" if path_style else "virtual"
    return {"addressing_style": style, "us_east_1_regional_endpoint": "regional"}


def _unsigned_client(
    session: boto3.session.Session, region: str, endpoint_url: str | None, path_style: bool
) -> "S3Client":
    """Return a client that does not sign requests. It needs no credentials, which may be slow to get."""
    config = ClientConfig(signature_version=UNSIGNED, s3=s3_client_options(path_style))
    return session.client("s3", region_name=region, endpoint_url=endpoint_url, config=config)


def ignores_endpoint_urls(session: boto3.session.Session) -> bool:
    """Return whether the environment or the profile tells boto3 to ignore configured endpoint URLs.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    core: Any = session._session
    return bool(core.get_config_variable("ignore_configured_endpoint_urls"))


def is_aws_url(url: str) -> bool:
    """Return whether the host of `url` is in one of Amazon's domains."""
    return _host_without_suffix(url) is not None


def is_aws_s3_url(url: str) -> bool:
    """Return whether the host of `url` is an endpoint of Amazon S3, in any partition.

    This includes FIPS, dual-stack and VPC endpoints.
    """
    return bool(_S3_HOST.fullmatch(_host_without_suffix(url) or ""))


def partition_of(region: str) -> str | None:
    """Return the partition that `region` belongs to, or None if AWS has no such region."""
    try:
        return str(_botocore_session().get_partition_for_region(region))
    except UnknownRegionError:
        return None


def _host_without_suffix(url: str) -> str | None:
    """Return the part of the host name before Amazon's DNS suffix, or None if there is no such suffix."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return None
    found = [host.removesuffix(suffix) for suffix in _dns_suffixes() if host.endswith(suffix)]
    return min(found, key=len) if found else None


@cache
def _dns_suffixes() -> tuple[str, ...]:
    partitions = _botocore_session().get_component("data_loader").load_data("partitions")["partitions"]
    names = {
        partition["outputs"][kind] for partition in partitions for kind in ("dnsSuffix", "dualStackDnsSuffix")
    }
    return tuple(f".{name}" for name in sorted(names))


@cache
def _botocore_session() -> Any:
    """Return a session that uses only botocore's built-in data and ignores this machine's profiles."""
    return botocore.session.Session(session_vars={"profile": (None, None, None, None)})
