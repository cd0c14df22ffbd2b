"""Each mistake in a bucket's configuration is found by the check that looks for it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.ops.doctor.context import CheckContext
from app.ops.doctor.findings import Status
from tests.ops.doctor.conftest import (
    MakeContext,
    finding,
    set_encryption,
    set_lifecycle_rule,
    set_ownership,
    set_public_access_block,
    set_public_policy,
)
from tests.ops.doctor.fake_aws import ACCOUNT, FakeAws
from tests.s3server import S3Server, error, first_of

Break = Callable[[Any, str, FakeAws], object]
"""A function that introduces a mistake. It gets a client, the name of the bucket, and the fake AWS."""

DENIED = ("403 Forbidden", "AccessDenied")
EVERYONE = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


PRIVATE: list[tuple[str, Break, Status, str]] = [
    (
        "missing-or-forbidden",
        lambda admin, bucket, aws: aws.refused.update({"GET missing": ("418 Teapot", "Teapot")}),
        Status.PROBLEM,
        "Teapot",
    ),
    (
        "not-root",
        lambda admin, bucket, aws: setattr(aws, "arn", f"arn:aws:iam::{ACCOUNT}:root"),
        Status.PROBLEM,
        "root",
    ),
    (
        "bucket-owner",
        lambda admin, bucket, aws: setattr(aws, "owner", "999999999999"),
        Status.WARNING,
        "different accounts",
    ),
    (
        "probe-put",
        lambda admin, bucket, aws: aws.refused.update({"PUT object": ("507 Full", "OutOfSpace")}),
        Status.PROBLEM,
        "OutOfSpace",
    ),
    (
        "probe-get",
        lambda admin, bucket, aws: aws.refused.update({"GET object": ("404 Not Found", "NoSuchKey")}),
        Status.PROBLEM,
        "is missing",
    ),
    (
        "probe-delete",
        lambda admin, bucket, aws: aws.refused.update({"DELETE object": DENIED}),
        Status.WARNING,
        "is left in the bucket",
    ),
    (
        "block-public-access",
        lambda admin, bucket, aws: set_public_access_block(admin, bucket, True, IgnorePublicAcls=False),
        Status.WARNING,
        "these blocks are off: IgnorePublicAcls",
    ),
    (
        "bucket-policy",
        lambda admin, bucket, aws: set_public_policy(admin, bucket, "s3:Get*"),
        Status.PROBLEM,
        "everyone read",
    ),
    (
        "public-writes",
        lambda admin, bucket, aws: set_public_policy(admin, bucket, "s3:GetObject", "s3:PutObject"),
        Status.PROBLEM,
        "s3:PutObject",
    ),
    (
        "public-writes",
        lambda admin, bucket, aws: admin.put_bucket_acl(Bucket=bucket, GrantWrite=EVERYONE),
        Status.PROBLEM,
        "WRITE by ACL",
    ),
    (
        "anonymous-get",
        lambda admin, bucket, aws: setattr(aws, "public", True),
        Status.PROBLEM,
        "everyone can read",
    ),
    ("anonymous-list", lambda admin, bucket, aws: setattr(aws, "listable", True), Status.PROBLEM, "list"),
    ("anonymous-put", lambda admin, bucket, aws: setattr(aws, "writable", True), Status.PROBLEM, "upload"),
    (
        "checksums",
        lambda admin, bucket, aws: setattr(aws, "verifies_checksums", False),
        Status.WARNING,
        "not detected",
    ),
    (
        "lifecycle",
        lambda admin, bucket, aws: set_lifecycle_rule(admin, bucket, ""),
        Status.WARNING,
        "A lifecycle rule deletes images under ''",
    ),
    (
        "lifecycle",
        lambda admin, bucket, aws: set_lifecycle_rule(admin, bucket, "gen"),
        Status.WARNING,
        "deletes",
    ),
    (
        "lifecycle",
        lambda admin, bucket, aws: set_lifecycle_rule(
            admin, bucket, "", Transitions=[{"Days": 30, "StorageClass": "GLACIER"}]
        ),
        Status.PROBLEM,
        "archives",
    ),
    (
        "lifecycle",
        lambda admin, bucket, aws: set_lifecycle_rule(admin, bucket, "tmp/"),
        Status.OK,
        "Lifecycle rules delete only other objects: tmp/.",
    ),
    (
        "encryption",
        lambda admin, bucket, aws: admin.delete_bucket_encryption(Bucket=bucket),
        Status.WARNING,
        "without",
    ),
]

PUBLIC: list[tuple[str, Break, Status, str]] = [
    (
        "block-public-access",
        lambda admin, bucket, aws: set_public_access_block(admin, bucket, False, RestrictPublicBuckets=True),
        Status.PROBLEM,
        "RestrictPublicBuckets prevents browsers from reading images",
    ),
    (
        "account-public-access",
        lambda admin, bucket, aws: setattr(aws, "account_blocks", dict.fromkeys(BLOCKS, True)),
        Status.PROBLEM,
        "In the account settings, BlockPublicPolicy, RestrictPublicBuckets",
    ),
    (
        "bucket-policy",
        lambda admin, bucket, aws: admin.delete_bucket_policy(Bucket=bucket),
        Status.PROBLEM,
        "No policy",
    ),
    (
        "bucket-policy",
        lambda admin, bucket, aws: set_public_policy(admin, bucket, "s3:GetObject", named="typo"),
        Status.PROBLEM,
        "The policy lets everyone read arn:aws:s3:::typo/* instead of arn:aws:s3:::bucket-",
    ),
    (
        "anonymous-get",
        lambda admin, bucket, aws: setattr(aws, "public", False),
        Status.PROBLEM,
        "Access Denied",
    ),
    ("image-url", lambda admin, bucket, aws: setattr(aws, "public", False), Status.PROBLEM, "Access Denied"),
    (
        "image-url",
        lambda admin, bucket, aws: setattr(aws, "anonymous_body", b"other"),
        Status.PROBLEM,
        "different bytes",
    ),
    (
        "cors",
        lambda admin, bucket, aws: admin.delete_bucket_cors(Bucket=bucket),
        Status.WARNING,
        "can't fetch() them",
    ),
    (
        "encryption",
        lambda admin, bucket, aws: set_encryption(admin, bucket, "aws:kms"),
        Status.PROBLEM,
        "KMS",
    ),
    (
        "access-logs",
        lambda admin, bucket, aws: admin.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={}),
        Status.WARNING,
        "does not log the requests",
    ),
]


@pytest.mark.parametrize(("name", "make_wrong", "status", "text"), PRIVATE)
def test_a_mistake_in_a_private_bucket_is_found(
    private: CheckContext,
    admin: Any,
    bucket: str,
    aws: FakeAws,
    name: str,
    make_wrong: Break,
    status: Status,
    text: str,
) -> None:
    make_wrong(admin, bucket, aws)
    found = finding(private, name)
    assert found.status is status
    assert text in found.text
    assert bool(found.fix) is (status is not Status.OK)


@pytest.mark.parametrize(("name", "make_wrong", "status", "text"), PUBLIC)
def test_a_mistake_in_a_public_bucket_is_found(
    public: CheckContext,
    admin: Any,
    bucket: str,
    aws: FakeAws,
    name: str,
    make_wrong: Break,
    status: Status,
    text: str,
) -> None:
    make_wrong(admin, bucket, aws)
    found = finding(public, name)
    assert found.status is status
    assert text in found.text
    assert found.fix


def test_an_image_url_with_a_wrong_type_is_a_problem(public: CheckContext, aws: FakeAws) -> None:
    aws.anonymous_type, aws.anonymous_body = "binary/octet-stream", public.probe.data
    assert finding(public, "image-url").text == "Browsers get the image with the type binary/octet-stream."


@pytest.mark.parametrize("acl", ["auto", "public-read"])
def test_a_denied_put_with_an_acl_suggests_the_permission_and_s3_acl_none(
    private: CheckContext, make_context: MakeContext, aws: FakeAws, acl: str
) -> None:
    aws.refused = {"PUT object": DENIED}
    found = finding(make_context(s3_acl=acl), "probe-put")
    assert "s3:PutObjectAcl" in found.text
    assert "S3_ACL=none" in found.fix


def test_s3_acl_public_read_is_a_problem_if_acls_are_disabled(
    public: CheckContext, make_context: MakeContext, aws: FakeAws
) -> None:
    context = make_context(s3_acl="public-read")
    assert (
        finding(context, "object-ownership").fix == "Set S3_ACL=none, then: flask bucket setup --mode public"
    )
    aws.refused = {"PUT object": ("400 Bad Request", "AccessControlListNotSupported")}
    assert finding(context, "probe-put").text.startswith("The bucket has ACLs disabled")


@pytest.mark.parametrize("acl", ["public-read", "auto"])
def test_a_block_of_acls_is_a_problem_if_images_are_public_by_acl(
    public: CheckContext, make_context: MakeContext, admin: Any, bucket: str, acl: str
) -> None:
    set_ownership(admin, bucket, "ObjectWriter")
    admin.delete_bucket_policy(Bucket=bucket)
    set_public_access_block(admin, bucket, True, BlockPublicAcls=False)
    found = finding(make_context(s3_acl=acl), "block-public-access")
    assert found.text == "IgnorePublicAcls prevents browsers from reading images."


@pytest.mark.parametrize("ownership", ["BucketOwnerEnforced", "ObjectWriter"])
def test_a_block_of_policies_is_a_problem_if_images_are_public_by_policy(
    public: CheckContext, make_context: MakeContext, admin: Any, bucket: str, ownership: str
) -> None:
    set_ownership(admin, bucket, ownership)
    set_public_access_block(admin, bucket, True)
    found = finding(make_context(image_urls="s3"), "block-public-access")
    assert found.text == "BlockPublicPolicy, RestrictPublicBuckets prevents browsers from reading images."


def test_damaged_bytes_and_wrong_types_are_found(private: CheckContext, aws: FakeAws) -> None:
    aws.stored_instead = (b"other", "text/plain")
    assert finding(private, "probe-bytes").text.endswith(
        "bytes were put, but the store returns 5 different bytes."
    )
    text = finding(private, "content-type").text
    assert text == "The type image/png was put, but the store returns text/plain."


@pytest.mark.parametrize("answer", [None, ("501 Not Implemented", "NotImplemented")])
def test_a_server_without_conditional_puts_gets_a_warning(
    private: CheckContext, aws: FakeAws, answer: tuple[str, str] | None
) -> None:
    aws.refused = {"PUT conditional": answer} if answer else {}
    aws.conditional = answer is not None
    found = finding(private, "conditional-create")
    assert found.status is Status.WARNING
    assert ("NotImplemented" if answer else "the put succeeds") in found.text


def test_a_policy_statement_with_a_condition_does_not_make_a_bucket_public(
    private: CheckContext, admin: Any, bucket: str
) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"StringEquals": {"aws:SourceVpce": "vpce-1"}},
    }
    admin.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": statement}))
    assert finding(private, "bucket-policy").status is Status.OK
    del statement["Condition"]
    admin.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": statement}))
    assert finding(private, "bucket-policy").status is Status.PROBLEM


@pytest.mark.parametrize(
    ("origins", "status", "text"),
    [
        (("https://www.example.org",), Status.OK, "Pages from https://www.example.org"),
        (
            ("https://www.example.org", "https://app.example.org"),
            Status.WARNING,
            "https://app.example.org is in CORS_ORIGINS, but",
        ),
        (("*",), Status.WARNING, "* is in CORS_ORIGINS, but"),
    ],
)
def test_cors_rules_must_cover_cors_origins(
    public: CheckContext, origins: tuple[str, ...], status: Status, text: str
) -> None:
    found = finding(replace(public, config=replace(public.config, cors_origins=origins)), "cors")
    assert (found.status, text in found.text) == (status, True), found


@pytest.mark.parametrize("settings", [{"s3_acl": "none"}, {}])
def test_with_presigned_urls_the_bucket_is_private(
    private: CheckContext, make_context: MakeContext, settings: dict[str, str]
) -> None:
    context = make_context(image_urls="presigned", cors_origins=("https://a.example",), **settings)
    assert finding(context, "cors").fix == "flask bucket setup --mode private --cors https://a.example"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_presigned_url_suggests_the_permission_and_the_clock(
    private: CheckContext, make_context: MakeContext, s3: S3Server, aws: FakeAws, status: str
) -> None:
    context = make_context(s3_acl="none", image_urls="presigned")
    signed = error(status, "AccessDenied", lambda environ: "X-Amz-Signature" in environ["QUERY_STRING"])
    s3.fault = first_of(signed, aws)
    found = finding(context, "image-url")
    assert found.text == f"Browsers get {status[:3]} (Access Denied)."
    assert "s3:GetObject" in found.fix
    assert "clock" in found.fix
    assert "setup" not in found.fix


def test_a_cdn_that_can_not_read_the_bucket_is_a_problem(
    private: CheckContext, make_context: MakeContext, s3: S3Server, bucket: str
) -> None:
    """The bucket stays private: only the CDN should be able to read it."""
    context = make_context(s3_acl="none", public_base_url=f"{s3.url}/{bucket}")
    found = finding(context, "image-url")
    assert found.text == "Browsers get 403 (Access Denied)."
    assert found.fix == "Let the server at PUBLIC_BASE_URL read the images: docs/buckets.md"


@pytest.mark.parametrize("name", ["cors", "access-logs"])
def test_cors_and_logs_are_not_checked_behind_a_cdn(
    private: CheckContext, make_context: MakeContext, name: str
) -> None:
    context = make_context(s3_acl="none", public_base_url="https://cdn.example")
    assert finding(context, name).text == "can't be checked: it depends on the server at PUBLIC_BASE_URL"


def test_a_public_base_url_that_does_not_respond_is_a_problem(
    private: CheckContext, make_context: MakeContext
) -> None:
    found = finding(make_context(s3_acl="none", public_base_url="http://127.0.0.1:9"), "image-url")
    assert found.status is Status.PROBLEM
    assert "No response from http://127.0.0.1:9/doctor/probe-" in found.text
    assert found.fix == "Correct PUBLIC_BASE_URL, or start the server at that URL"


OLD_KEYS = [f"generated/2026/0{month}/image.png" for month in range(1, 8)]


@pytest.mark.parametrize("urls", ["server", "presigned"])
def test_images_that_an_earlier_acl_left_public(
    private: CheckContext, make_context: MakeContext, admin: Any, bucket: str, aws: FakeAws, urls: str
) -> None:
    for key in OLD_KEYS:
        admin.put_object(Bucket=bucket, Key=key, Body=b"x")
    aws.public_keys = set(OLD_KEYS[:3])
    found = finding(make_context(image_urls=urls), "public-objects")
    assert found.status is Status.PROBLEM
    assert found.text == f"The mode is private, but everyone can read 3 of 7 images, such as {OLD_KEYS[0]}."
    assert found.fix
    aws.public_keys.clear()
    found = finding(make_context(image_urls=urls), "public-objects")
    assert (found.status, found.text) == (Status.OK, "None of 7 images can be read without credentials.")


def test_public_images_are_found_anywhere_in_the_bucket(
    private: CheckContext, admin: Any, bucket: str, aws: FakeAws
) -> None:
    """However many images there are, at most 24 are requested."""
    for folder in ("a", "generated", "images"):
        for number in range(24):
            admin.put_object(Bucket=bucket, Key=f"{folder}/{number:02}.png", Body=b"x")
    aws.public_keys = {"images/00.png"}
    assert finding(private, "public-objects").status is Status.PROBLEM
    aws.public_keys = {f"generated/{number:02}.png" for number in range(18, 24)}
    found = finding(private, "public-objects")
    assert found.status is Status.PROBLEM
    assert re.search(r" of (1\d|2[0-4]) images", found.text)


def test_public_images_can_be_found_only_with_permission_to_list(private: CheckContext, aws: FakeAws) -> None:
    aws.refused = {"GET bucket": DENIED}
    found = finding(private, "public-objects")
    assert (found.status, found.text) == (Status.SKIPPED, "can't be checked: needs s3:ListBucket")


def test_public_objects_are_ok_in_a_public_bucket(public: CheckContext) -> None:
    assert finding(public, "public-objects").status is Status.OK


@pytest.mark.parametrize("urls", ["server", "presigned"])
def test_a_denied_put_without_an_acl_does_not_mention_acls(
    private: CheckContext, make_context: MakeContext, aws: FakeAws, urls: str
) -> None:
    """With `S3_ACL=auto`, no ACL is sent if clients get private URLs."""
    context = make_context(image_urls=urls)
    assert context.mode == "private"
    aws.refused = {"PUT object": DENIED}
    found = finding(context, "probe-put")
    assert found.text == "S3 denies PutObject."
    assert found.fix.endswith("Allow s3:PutObject: flask bucket iam-policy")
    assert "ACL," not in found.fix
