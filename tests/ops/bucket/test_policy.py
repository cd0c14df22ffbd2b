"""Our statement in a bucket policy is recognized, added and removed. All others are kept."""

from typing import Any

import pytest

from app.ops.bucket.policy import SID, is_public, with_public_read, without_public_read

ARN = "arn:aws:s3:::cats/*"
OURS = {"Sid": SID, "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": ARN}
AWS_EXAMPLE = OURS | {"Sid": "PublicReadGetObject"}
CLOUDFRONT = {
    "Sid": "CloudFront",
    "Effect": "Allow",
    "Principal": {"Service": "cloudfront.amazonaws.com"},
    "Action": "s3:GetObject",
    "Resource": ARN,
    "Condition": {"StringEquals": {"AWS:SourceArn": "arn:aws:cloudfront::1:distribution/E1"}},
}


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Id": "kept", "Statement": list(statements)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"Sid": "Another"}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Principal": {"AWS": ["*"]}}, True),
        ({"Action": ["s3:GetObject"], "Resource": [ARN]}, True),
        ({"Action": "s3:getobject"}, True),
        ({"Effect": "Deny"}, False),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:root"}}, False),
        ({"Principal": {"AWS": "*", "Service": "cloudfront.amazonaws.com"}}, False),
        ({"Action": ["s3:GetObject", "s3:PutObject"]}, False),
        ({"Resource": "arn:aws:s3:::cats/public/*"}, False),
        ({"Resource": "arn:aws:s3:::dogs/*"}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}, False),
    ],
)
def test_a_statement_equivalent_to_ours_makes_the_bucket_public(
    change: dict[str, Any], expected: bool
) -> None:
    assert is_public(_policy(OURS | change), ARN) is expected
    assert is_public({"Statement": OURS | change}, ARN) is expected


def test_a_statement_with_not_action_is_left_alone() -> None:
    other = {"Effect": "Allow", "Principal": "*", "NotAction": "s3:DeleteObject", "NotResource": ARN}
    assert not is_public(_policy(other), ARN)
    assert without_public_read(_policy(other, OURS), ARN) == _policy(other)


def test_adding_public_read_keeps_all_other_statements() -> None:
    assert with_public_read(None, ARN) == {"Version": "2012-10-17", "Statement": [OURS]}
    assert with_public_read(_policy(CLOUDFRONT), ARN) == _policy(CLOUDFRONT, OURS)
    assert with_public_read({"Version": "2008-10-17", "Statement": CLOUDFRONT}, ARN) == {
        "Version": "2008-10-17",
        "Statement": [CLOUDFRONT, OURS],
    }


def test_adding_public_read_replaces_our_own_statement() -> None:
    stale = OURS | {"Resource": "arn:aws:s3:::dogs/*"}
    assert with_public_read(_policy(stale, CLOUDFRONT), ARN) == _policy(CLOUDFRONT, OURS)


def test_removing_public_read_removes_only_our_statement_and_equivalent_ones() -> None:
    assert without_public_read(None, ARN) is None
    assert without_public_read(_policy(OURS, AWS_EXAMPLE), ARN) is None
    assert without_public_read(_policy(AWS_EXAMPLE, CLOUDFRONT, OURS), ARN) == _policy(CLOUDFRONT)
