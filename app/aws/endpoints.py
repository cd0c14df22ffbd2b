"""Which hosts and which regions are Amazon's, by the partitions that botocore knows.

A partition (`aws`, `aws-cn`, `aws-us-gov` …) has its own DNS suffixes, its own ARNs and its own bucket names.
https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
"""

import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.exceptions import UnknownRegionError

DEFAULT_PARTITION = "aws"

_S3 = re.compile(r"(?:.+\.)?s3[a-z0-9-]*(?:\.dualstack)?(?:\.[a-z]+(?:-[a-z]+)+-\d+)?(?:\.vpce)?")
"""What stands before the suffix in the names of S3's own hosts, such as `s3-fips.dualstack.us-east-1`. Load
balancers and virtual machines at AWS, on which any server may run, are named otherwise."""


def is_aws_url(url: str) -> bool:
    """Return whether `url` is of a host below one of Amazon's domains."""
    return _before_suffix(url) is not None


def is_aws_s3_url(url: str) -> bool:
    """Return whether `url` is that of Amazon S3 itself, in any partition, also by FIPS, dual-stack or VPC."""
    return bool(_S3.fullmatch(_before_suffix(url) or ""))


def partition_of(region: str) -> str | None:
    """Return the partition that `region` belongs to, or None if AWS has no region of such a name."""
    try:
        return str(_knowledge().get_partition_for_region(region))
    except UnknownRegionError:
        return None


def ignores_endpoint_urls(session: boto3.session.Session) -> bool:
    """Return whether environment or profile say that endpoint URLs set there don't count.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    core: Any = session._session
    return bool(core.get_config_variable("ignore_configured_endpoint_urls"))


def _before_suffix(url: str) -> str | None:
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return None
    found = [host.removesuffix(suffix) for suffix in _suffixes() if host.endswith(suffix)]
    return min(found, key=len) if found else None


@cache
def _suffixes() -> tuple[str, ...]:
    partitions = _knowledge().get_component("data_loader").load_data("partitions")["partitions"]
    names = {
        partition["outputs"][kind] for partition in partitions for kind in ("dnsSuffix", "dualStackDnsSuffix")
    }
    return tuple(f".{name}" for name in sorted(names))


@cache
def _knowledge() -> Any:
    """A session that knows what comes with botocore, and nothing of this machine's profiles."""
    return botocore.session.Session(session_vars={"profile": (None, None, None, None)})
