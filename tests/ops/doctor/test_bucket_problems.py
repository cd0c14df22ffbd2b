"""What is wrong with a bucket is found by the check that is there for it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.ops.doctor.findings import Status
from app.ops.doctor.patient import Patient
from tests.ops.doctor.conftest import MakePatient, block, encrypt, expire, finding, open_for, own
from tests.ops.doctor.played import ACCOUNT, PlayedAws
from tests.s3server import S3Server, error, first_of

Spoil = Callable[[Any, str, PlayedAws], object]
"""Given a client, the bucket's name and the played AWS: make something wrong."""

DENIED = ("403 Forbidden", "AccessDenied")
EVERYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


PRIVATE: list[tuple[str, Spoil, Status, str]] = [
    (
        "missing-or-forbidden",
        lambda look, bucket, aws: aws.refused.update({"GET missing": ("418 Teapot", "Teapot")}),
        Status.PROBLEM,
        "Teapot",
    ),
    (
        "not-root",
        lambda look, bucket, aws: setattr(aws, "arn", f"arn:aws:iam::{ACCOUNT}:root"),
        Status.PROBLEM,
        "root",
    ),
    (
        "bucket-owner",
        lambda look, bucket, aws: setattr(aws, "owner", "999999999999"),
        Status.WARNING,
        "another",
    ),
    (
        "probe-put",
        lambda look, bucket, aws: aws.refused.update({"PUT object": ("507 Full", "OutOfSpace")}),
        Status.PROBLEM,
        "OutOfSpace",
    ),
    (
        "probe-get",
        lambda look, bucket, aws: aws.refused.update({"GET object": ("404 Not Found", "NoSuchKey")}),
        Status.PROBLEM,
        "not there",
    ),
    (
        "probe-delete",
        lambda look, bucket, aws: aws.refused.update({"DELETE object": DENIED}),
        Status.WARNING,
        "stays",
    ),
    (
        "block-public-access",
        lambda look, bucket, aws: block(look, bucket, True, IgnorePublicAcls=False),
        Status.WARNING,
        "not blocked: IgnorePublicAcls",
    ),
    (
        "bucket-policy",
        lambda look, bucket, aws: open_for(look, bucket, "s3:Get*"),
        Status.PROBLEM,
        "everybody read",
    ),
    (
        "public-writes",
        lambda look, bucket, aws: open_for(look, bucket, "s3:GetObject", "s3:PutObject"),
        Status.PROBLEM,
        "s3:PutObject",
    ),
    (
        "public-writes",
        lambda look, bucket, aws: look.put_bucket_acl(Bucket=bucket, GrantWrite=EVERYBODY),
        Status.PROBLEM,
        "WRITE by ACL",
    ),
    (
        "anonymous-get",
        lambda look, bucket, aws: setattr(aws, "public", True),
        Status.PROBLEM,
        "everybody can read",
    ),
    ("anonymous-list", lambda look, bucket, aws: setattr(aws, "listable", True), Status.PROBLEM, "list"),
    ("anonymous-put", lambda look, bucket, aws: setattr(aws, "writable", True), Status.PROBLEM, "upload"),
    (
        "checksums",
        lambda look, bucket, aws: setattr(aws, "checks_sums", False),
        Status.WARNING,
        "not noticed",
    ),
    (
        "lifecycle",
        lambda look, bucket, aws: expire(look, bucket, ""),
        Status.WARNING,
        "deleted by a lifecycle rule",
    ),
    ("lifecycle", lambda look, bucket, aws: expire(look, bucket, "gen"), Status.WARNING, "deleted"),
    (
        "lifecycle",
        lambda look, bucket, aws: expire(
            look, bucket, "", Transitions=[{"Days": 30, "StorageClass": "GLACIER"}]
        ),
        Status.PROBLEM,
        "archives",
    ),
    ("lifecycle", lambda look, bucket, aws: expire(look, bucket, "tmp/"), Status.OK, "Expires: tmp/."),
    (
        "encryption",
        lambda look, bucket, aws: look.delete_bucket_encryption(Bucket=bucket),
        Status.WARNING,
        "without",
    ),
]

PUBLIC: list[tuple[str, Spoil, Status, str]] = [
    (
        "block-public-access",
        lambda look, bucket, aws: block(look, bucket, False, RestrictPublicBuckets=True),
        Status.PROBLEM,
        "RestrictPublicBuckets keeps browsers out",
    ),
    (
        "account-public-access",
        lambda look, bucket, aws: setattr(aws, "account_blocks", dict.fromkeys(BLOCKS, True)),
        Status.PROBLEM,
        "For the whole account, BlockPublicPolicy, RestrictPublicBuckets",
    ),
    (
        "bucket-policy",
        lambda look, bucket, aws: look.delete_bucket_policy(Bucket=bucket),
        Status.PROBLEM,
        "No policy",
    ),
    (
        "bucket-policy",
        lambda look, bucket, aws: open_for(look, bucket, "s3:GetObject", named="typo"),
        Status.PROBLEM,
        "The policy opens arn:aws:s3:::typo/*, not arn:aws:s3:::bucket-",
    ),
    (
        "anonymous-get",
        lambda look, bucket, aws: setattr(aws, "public", False),
        Status.PROBLEM,
        "Access Denied",
    ),
    ("image-url", lambda look, bucket, aws: setattr(aws, "public", False), Status.PROBLEM, "Access Denied"),
    (
        "image-url",
        lambda look, bucket, aws: setattr(aws, "visitor_body", b"other"),
        Status.PROBLEM,
        "other bytes",
    ),
    (
        "cors",
        lambda look, bucket, aws: look.delete_bucket_cors(Bucket=bucket),
        Status.WARNING,
        "not fetch() them",
    ),
    ("encryption", lambda look, bucket, aws: encrypt(look, bucket, "aws:kms"), Status.PROBLEM, "KMS"),
    (
        "access-logs",
        lambda look, bucket, aws: look.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={}),
        Status.WARNING,
        "nobody logs it",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "status", "text"), PRIVATE)
def test_private(
    private: Patient,
    look: Any,
    bucket: str,
    aws: PlayedAws,
    name: str,
    spoil: Spoil,
    status: Status,
    text: str,
) -> None:
    spoil(look, bucket, aws)
    found = finding(private, name)
    assert found.status is status
    assert text in found.text
    assert bool(found.fix) is (status is not Status.OK)


@pytest.mark.parametrize(("name", "spoil", "status", "text"), PUBLIC)
def test_public(
    public: Patient,
    look: Any,
    bucket: str,
    aws: PlayedAws,
    name: str,
    spoil: Spoil,
    status: Status,
    text: str,
) -> None:
    spoil(look, bucket, aws)
    found = finding(public, name)
    assert found.status is status
    assert text in found.text
    assert found.fix


def test_a_type_that_browsers_are_not_told(public: Patient, aws: PlayedAws) -> None:
    aws.visitor_type, aws.visitor_body = "binary/octet-stream", public.probe.data
    assert finding(public, "image-url").text == "Browsers get the image as binary/octet-stream."


@pytest.mark.parametrize("acl", ["auto", "public-read"])
def test_an_acl_that_is_denied(private: Patient, make_patient: MakePatient, aws: PlayedAws, acl: str) -> None:
    aws.refused = {"PUT object": DENIED}
    found = finding(make_patient(s3_acl=acl), "probe-put")
    assert "s3:PutObjectAcl" in found.text
    assert "S3_ACL=none" in found.fix


def test_an_acl_where_they_are_disabled(public: Patient, make_patient: MakePatient, aws: PlayedAws) -> None:
    patient = make_patient(s3_acl="public-read")
    assert (
        finding(patient, "object-ownership").fix == "Set S3_ACL=none, then: flask bucket setup --mode public"
    )
    aws.refused = {"PUT object": ("400 Bad Request", "AccessControlListNotSupported")}
    assert finding(patient, "probe-put").text.startswith("The bucket has ACLs disabled")


@pytest.mark.parametrize("acl", ["public-read", "auto"])
def test_a_block_that_stops_acls(
    public: Patient, make_patient: MakePatient, look: Any, bucket: str, acl: str
) -> None:
    own(look, bucket, "ObjectWriter")
    look.delete_bucket_policy(Bucket=bucket)
    block(look, bucket, True, BlockPublicAcls=False)
    found = finding(make_patient(s3_acl=acl), "block-public-access")
    assert found.text == "IgnorePublicAcls keeps browsers out."


@pytest.mark.parametrize("ownership", ["BucketOwnerEnforced", "ObjectWriter"])
def test_a_block_that_stops_the_policy(
    public: Patient, make_patient: MakePatient, look: Any, bucket: str, ownership: str
) -> None:
    own(look, bucket, ownership)
    block(look, bucket, True)
    found = finding(make_patient(image_urls="s3"), "block-public-access")
    assert found.text == "BlockPublicPolicy, RestrictPublicBuckets keeps browsers out."


def test_bytes_and_type_that_change(private: Patient, aws: PlayedAws) -> None:
    aws.stored_instead = (b"other", "text/plain")
    assert finding(private, "probe-bytes").text.endswith("bytes were sent, 5 others came back.")
    assert finding(private, "content-type").text == "The type image/png comes back as text/plain."


@pytest.mark.parametrize("answer", [None, ("501 Not Implemented", "NotImplemented")])
def test_a_server_without_conditional_puts(
    private: Patient, aws: PlayedAws, answer: tuple[str, str] | None
) -> None:
    aws.refused = {"PUT conditional": answer} if answer else {}
    aws.conditional = answer is not None
    found = finding(private, "conditional-create")
    assert found.status is Status.WARNING
    assert ("NotImplemented" if answer else "the put succeeds") in found.text


def test_statements_with_conditions_open_nothing(private: Patient, look: Any, bucket: str) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"StringEquals": {"aws:SourceVpce": "vpce-1"}},
    }
    look.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": statement}))
    assert finding(private, "bucket-policy").status is Status.OK
    del statement["Condition"]
    look.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": statement}))
    assert finding(private, "bucket-policy").status is Status.PROBLEM


@pytest.mark.parametrize(
    ("origins", "status", "text"),
    [
        (("https://www.example.org",), Status.OK, "Pages from https://www.example.org"),
        (
            ("https://www.example.org", "https://app.example.org"),
            Status.WARNING,
            "has https://app.example.org,",
        ),
        (("*",), Status.WARNING, "CORS_ORIGINS has *,"),
    ],
)
def test_cors_for_the_origins_that_are_set(
    public: Patient, origins: tuple[str, ...], status: Status, text: str
) -> None:
    found = finding(replace(public, config=replace(public.config, cors_origins=origins)), "cors")
    assert (found.status, text in found.text) == (status, True), found


@pytest.mark.parametrize("settings", [{"s3_acl": "none"}, {}])
def test_signed_urls_leave_the_bucket_private(
    private: Patient, make_patient: MakePatient, settings: dict[str, str]
) -> None:
    patient = make_patient(image_urls="presigned", cors_origins=("https://a.example",), **settings)
    assert finding(patient, "cors").fix == "flask bucket setup --mode private --cors https://a.example"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_signed_url_that_is_refused(
    private: Patient, make_patient: MakePatient, s3: S3Server, aws: PlayedAws, status: str
) -> None:
    patient = make_patient(s3_acl="none", image_urls="presigned")
    signed = error(status, "AccessDenied", lambda environ: "X-Amz-Signature" in environ["QUERY_STRING"])
    s3.fault = first_of(signed, aws)
    found = finding(patient, "image-url")
    assert found.text == f"Browsers are answered {status[:3]} (Access Denied)."
    assert "s3:GetObject" in found.fix
    assert "clock" in found.fix
    assert "setup" not in found.fix


def test_a_cdn_that_is_refused(
    private: Patient, make_patient: MakePatient, s3: S3Server, bucket: str
) -> None:
    """A private bucket stays private: it is the CDN alone that is to read it."""
    patient = make_patient(s3_acl="none", public_base_url=f"{s3.url}/{bucket}")
    found = finding(patient, "image-url")
    assert found.text == "Browsers are answered 403 (Access Denied)."
    assert found.fix == "Let what stands at PUBLIC_BASE_URL read the images: docs/buckets.md"


@pytest.mark.parametrize("name", ["cors", "access-logs"])
def test_behind_a_cdn_its_own_settings_decide(private: Patient, make_patient: MakePatient, name: str) -> None:
    patient = make_patient(s3_acl="none", public_base_url="https://cdn.example")
    assert finding(patient, name).text == "can't be checked: what stands at PUBLIC_BASE_URL decides"


def test_a_base_url_where_nobody_answers(private: Patient, make_patient: MakePatient) -> None:
    found = finding(make_patient(s3_acl="none", public_base_url="http://127.0.0.1:9"), "image-url")
    assert found.status is Status.PROBLEM
    assert "No answer at http://127.0.0.1:9/doctor/probe-" in found.text
    assert found.fix == "Correct PUBLIC_BASE_URL, or start what serves it"


OLD = [f"generated/2026/0{month}/image.png" for month in range(1, 8)]


@pytest.mark.parametrize("urls", ["server", "presigned"])
def test_images_that_an_earlier_acl_left_public(
    private: Patient, make_patient: MakePatient, look: Any, bucket: str, aws: PlayedAws, urls: str
) -> None:
    for key in OLD:
        look.put_object(Bucket=bucket, Key=key, Body=b"x")
    aws.public_keys = set(OLD[:3])
    found = finding(make_patient(image_urls=urls), "public-objects")
    assert found.status is Status.PROBLEM
    assert found.text == f"Private, but everybody can read 3 of 7 images, such as {OLD[0]}."
    assert found.fix
    aws.public_keys.clear()
    found = finding(make_patient(image_urls=urls), "public-objects")
    assert (found.status, found.text) == (Status.OK, "None of 7 images can be read without credentials.")


def test_images_that_were_left_public_are_looked_for_all_over_the_bucket(
    private: Patient, look: Any, bucket: str, aws: PlayedAws
) -> None:
    """A bounded number of them, however many there are."""
    for folder in ("a", "generated", "images"):
        for number in range(40):
            look.put_object(Bucket=bucket, Key=f"{folder}/{number:02}.png", Body=b"x")
    aws.public_keys = {"images/00.png"}
    assert finding(private, "public-objects").status is Status.PROBLEM
    aws.public_keys = {f"generated/{number:02}.png" for number in range(30, 40)}
    found = finding(private, "public-objects")
    assert found.status is Status.PROBLEM
    assert re.search(r" of (1\d|2[0-4]) images", found.text)


def test_whether_images_are_public_can_be_found_out_only_where_they_can_be_listed(
    private: Patient, aws: PlayedAws
) -> None:
    aws.refused = {"GET bucket": DENIED}
    found = finding(private, "public-objects")
    assert (found.status, found.text) == (Status.SKIPPED, "can't be checked: needs s3:ListBucket")


def test_public_objects_are_meant_to_be_where_the_bucket_is_public(public: Patient) -> None:
    assert finding(public, "public-objects").status is Status.OK


@pytest.mark.parametrize("urls", ["server", "presigned"])
def test_private_urls_need_no_permission_for_acls(
    private: Patient, make_patient: MakePatient, aws: PlayedAws, urls: str
) -> None:
    """S3_ACL=auto sends none with them, and the advice for a denied put does not speak of any."""
    patient = make_patient(image_urls=urls)
    assert patient.mode == "private"
    aws.refused = {"PUT object": DENIED}
    found = finding(patient, "probe-put")
    assert found.text == "S3 denies PutObject."
    assert found.fix.endswith("Allow s3:PutObject: flask bucket iam-policy")
    assert "ACL," not in found.fix
