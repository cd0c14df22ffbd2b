"""AWS's hosts, regions and endpoints in every partition that botocore knows."""

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from app.aws.endpoints import find_endpoint, ignores_endpoint_urls, is_aws_s3_url, is_aws_url, partition_of
from app.aws.session import new_session


def _partitions() -> Iterator[tuple[str, str, str]]:
    data: Any = botocore.session.Session().get_component("data_loader").load_data("partitions")
    for partition in data["partitions"]:
        for region in partition["regions"]:
            if "global" not in region:
                yield partition["id"], region, partition["outputs"]["dnsSuffix"]


FIRST_OF_EACH = {partition: (region, suffix) for partition, region, suffix in reversed([*_partitions()])}


def test_every_region_has_its_partition() -> None:
    for partition, region, _ in _partitions():
        assert partition_of(region) == partition


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eusc-de-east-9", "aws-eusc"), ("cn-east-9", "aws-cn"), ("us-gov-south-9", "aws-us-gov")],
)
def test_the_partition_of_an_unknown_region_follows_its_name(region: str, partition: str) -> None:
    assert partition_of(region) == partition


@pytest.mark.parametrize("region", ["", "garage", "auto", "default", "us"])
def test_regions_of_other_servers_have_no_partition(region: str) -> None:
    assert partition_of(region) is None


_FIPS, _DUAL_STACK = "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"


@pytest.mark.parametrize(
    ("partition", "variant"),
    [
        *((partition, "") for partition in sorted(FIRST_OF_EACH)),
        *(("aws", variant) for variant in (_FIPS, _DUAL_STACK)),
        *(("aws-us-gov", variant) for variant in (_FIPS, _DUAL_STACK)),
        ("aws-cn", _DUAL_STACK),
        ("aws-eusc", _DUAL_STACK),
    ],
)
def test_s3_is_recognized_as_aws_in_every_partition(
    monkeypatch: pytest.MonkeyPatch, partition: str, variant: str
) -> None:
    region, suffix = FIRST_OF_EACH[partition]
    if variant:
        monkeypatch.setenv(variant, "true")
    endpoint = find_endpoint(new_session(), "cats", region=region, endpoint_url="", addressing_style="auto")
    assert (endpoint.is_aws, endpoint.partition) == (True, partition)
    assert endpoint.objects_url.startswith("https://cats.s3")
    assert endpoint.objects_url.endswith(f".{region}.{suffix}/")
    assert ("fips" in endpoint.url, "dualstack" in endpoint.url) == ("FIPS" in variant, "DUAL" in variant)


@pytest.mark.parametrize(
    "host",
    [
        "s3.amazonaws.com",
        "s3-us-west-2.amazonaws.com",
        "S3.eu-west-1.amazonaws.com.",
        "s3-accelerate.dualstack.amazonaws.com",
        "cats.s3express-usw2-az1.us-west-2.amazonaws.com",
        "bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
        "s3.dualstack.us-isob-east-1.sc2s.sgov.gov",
    ],
)
def test_hosts_of_s3_are_recognized(host: str) -> None:
    assert is_aws_s3_url(f"https://{host}/")


@pytest.mark.parametrize(
    ("url", "at_amazon"),
    [
        ("https://s3-images-1.us-east-1.elb.amazonaws.com", True),
        ("http://ec2-1-2-3-4.compute-1.amazonaws.com:9000", True),
        ("https://sts.eu-west-1.amazonaws.com", True),
        ("https://s3.us-east-1.amazonaws.com.example.org", False),
        ("https://s3.evil-amazonaws.com", False),
        ("http://127.0.0.1:9000", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_other_hosts_are_not_s3(url: str, at_amazon: bool) -> None:
    """Any server may run on an instance or behind a load balancer at AWS."""
    assert (is_aws_s3_url(url), is_aws_url(url)) == (False, at_amazon)


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("TRUE", True), ("false", False), ("", False)]
)
def test_a_variable_makes_boto3_ignore_endpoint_urls(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", value)
    assert ignores_endpoint_urls(new_session()) is expected
