"""The bucket policy's statements, ours and those of others."""

from typing import Any

import pytest

from app.ops.bucket.policy import SID, closed, is_open, opened

ARN = "arn:aws:s3:::cats/*"
OURS = {"Sid": SID, "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": ARN}
GUIDES = OURS | {"Sid": "PublicReadGetObject"}
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
def test_what_opens_a_bucket(change: dict[str, Any], expected: bool) -> None:
    assert is_open(_policy(OURS | change), ARN) is expected
    assert is_open({"Statement": OURS | change}, ARN) is expected


def test_a_statement_that_names_what_it_leaves_out_is_left_alone() -> None:
    other = {"Effect": "Allow", "Principal": "*", "NotAction": "s3:DeleteObject", "NotResource": ARN}
    assert not is_open(_policy(other), ARN)
    assert closed(_policy(other, OURS), ARN) == _policy(other)


def test_opening_keeps_the_statements_of_others() -> None:
    assert opened(None, ARN) == {"Version": "2012-10-17", "Statement": [OURS]}
    assert opened(_policy(CLOUDFRONT), ARN) == _policy(CLOUDFRONT, OURS)
    assert opened({"Version": "2008-10-17", "Statement": CLOUDFRONT}, ARN) == {
        "Version": "2008-10-17",
        "Statement": [CLOUDFRONT, OURS],
    }


def test_opening_replaces_our_own_statement() -> None:
    stale = OURS | {"Resource": "arn:aws:s3:::dogs/*"}
    assert opened(_policy(stale, CLOUDFRONT), ARN) == _policy(CLOUDFRONT, OURS)


def test_closing_takes_ours_and_its_like_and_nothing_else() -> None:
    assert closed(None, ARN) is None
    assert closed(_policy(OURS, GUIDES), ARN) is None
    assert closed(_policy(GUIDES, CLOUDFRONT, OURS), ARN) == _policy(CLOUDFRONT)
