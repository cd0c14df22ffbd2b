"""The steps that decide who may read: ownership, Block Public Access and the bucket policy.

Ownership is enforced (ACLs disabled) in both modes: what is public is then said in one place, the policy, and
no object's ACL publishes it behind the policy's back. An upload with an ACL answers 400 on such a bucket,
hence `S3_ACL=none`.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from app.bucket.policy import closed, is_open, opened
from app.bucket.state import BucketState
from app.bucket.steps import Step
from app.bucket.target import Target

ACLS_DISABLED = "BucketOwnerEnforced"
"""The object ownership under which ACLs neither count nor are taken."""

ACL_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls")
POLICY_BLOCKS = ("BlockPublicPolicy", "RestrictPublicBuckets")
_BLOCK_ALL = dict.fromkeys((*ACL_BLOCKS, *POLICY_BLOCKS), True)
_BLOCK_ACLS = _BLOCK_ALL | dict.fromkeys(POLICY_BLOCKS, False)
"""For a public bucket: a policy does the opening, so public ACLs stay blocked."""

BLOCK_IN_THE_WAY = "BlockPublicAcls"
"""Under it, Ceph RGW refuses every upload, also the owner's without an ACL (mended in 2025)."""

_BLOCK_ABOVE = (
    "If they have it, Block Public Access of the account or of its organisation forbids public policies; it "
    "stands above the bucket's, and this command never changes it. See it with: aws s3control "
    "get-public-access-block --account-id $(aws sts get-caller-identity --query Account --output text); in "
    "the console: S3 → Block Public Access settings for this account."
)


def access_steps(target: Target, state: BucketState) -> list[Step]:
    """The steps in the order that S3 needs.

    ACLs go before they are disabled, Block Public Access is lifted before a public policy comes, and the
    policy goes before Block Public Access returns, which would refuse whatever public is left in it.
    """
    last = (_block_steps, _policy_steps) if target.mode == "public" else (_policy_steps, _block_steps)
    parts: tuple[Callable[[Target, BucketState], list[Step]], ...] = (_ownership_steps, *last)
    return [step for part in parts for step in part(target, state)]


def would_open(target: Target, state: BucketState) -> bool:
    """Whether the target lets everybody read what only some may read now."""
    return target.mode == "public" and not (
        is_open(state.policy, target.objects_arn)
        and not state.public_access_block.get("RestrictPublicBuckets", False)
    )


def ownership_of(answer: Mapping[str, Any]) -> str:
    """Who owns objects, by the answer to GetBucketOwnershipControls; empty where nothing is configured."""
    rules = answer.get("OwnershipControls", {}).get("Rules", [])
    return str(rules[0].get("ObjectOwnership", "")) if rules else ""


def _ownership_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketOwnershipControls")
    if answer is None or ownership_of(answer) == ACLS_DISABLED:
        return []
    steps = [
        Step(
            "Disable ACLs: the bucket owner owns every object",
            "PutBucketOwnershipControls",
            {"Bucket": target.bucket, "OwnershipControls": {"Rules": [{"ObjectOwnership": ACLS_DISABLED}]}},
        )
    ]
    if _grants_others(state.answers.get("GetBucketAcl", {})):
        private = {"Bucket": target.bucket, "ACL": "private"}
        title = "Take back what the bucket's ACL grants to others"
        steps.insert(0, Step(title, "PutBucketAcl", private, optional=False))
    return steps


def _grants_others(acl: dict[str, Any]) -> bool:
    owner = acl.get("Owner", {}).get("ID")
    return any(grant.get("Grantee", {}).get("ID") != owner for grant in acl.get("Grants", []))


def _block_steps(target: Target, state: BucketState) -> list[Step]:
    public = target.mode == "public"
    wanted = _BLOCK_ACLS if public else _BLOCK_ALL
    softer = wanted | {BLOCK_IN_THE_WAY: False}
    if "GetPublicAccessBlock" not in state.answers or state.public_access_block == wanted:
        return _lifting_steps(target, state, softer)
    if state.unsupported and state.public_access_block == softer:
        return []  # as an earlier run left it
    title = "Let the bucket have a public policy" if public else "Block all public access to the bucket"
    fallback = _block_step(target, f"{title}, without {BLOCK_IN_THE_WAY}", softer)
    return [replace(_block_step(target, title, wanted), vital=public, fallback=fallback)]


def _lifting_steps(target: Target, state: BucketState, softer: dict[str, bool]) -> list[Step]:
    if not state.refuses_uploads or not state.public_access_block.get(BLOCK_IN_THE_WAY):
        return []
    title = f"Lift {BLOCK_IN_THE_WAY}, under which the server refuses every upload"
    return [_block_step(target, title, softer)]


def _block_step(target: Target, title: str, block: dict[str, bool]) -> Step:
    parameters = {"Bucket": target.bucket, "PublicAccessBlockConfiguration": block}
    return Step(title, "PutPublicAccessBlock", parameters)


def _policy_steps(target: Target, state: BucketState) -> list[Step]:
    if "GetBucketPolicy" not in state.answers:
        return []
    policy, bucket = state.policy, {"Bucket": target.bucket}
    if target.mode == "public":
        if is_open(policy, target.objects_arn):
            return []
        parameters = bucket | {"Policy": opened(policy, target.objects_arn)}
        return [Step("Let everybody read objects", "PutBucketPolicy", parameters, if_denied=_BLOCK_ABOVE)]
    rest = closed(policy, target.objects_arn)
    title = "Let everybody read objects no longer"
    if policy is None or rest == policy:
        return []
    if rest is None:
        return [Step(title, "DeleteBucketPolicy", dict(bucket), optional=False)]
    return [Step(title, "PutBucketPolicy", bucket | {"Policy": rest}, optional=False)]
