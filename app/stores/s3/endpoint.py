"""Which endpoint boto3 really uses for S3: setting, environment, profile and botocore's rules together.

`AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`, `endpoint_url` and `services` of profiles, `AWS_USE_FIPS_ENDPOINT`,
`AWS_USE_DUALSTACK_ENDPOINT` and `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` all count, so only a client can tell.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config as ClientConfig

from app.aws_endpoints import DEFAULT_PARTITION, ignores_endpoint_urls, is_aws_s3_url, partition_of

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
