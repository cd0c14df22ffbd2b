"""The steps that decide who may read: ownership, Block Public Access and the bucket policy.

Ownership is enforced (ACLs disabled) in both modes: what is public is then said in one place, the policy, and
no object's ACL publishes it behind the policy's back. An upload with an ACL answers 400 on such a bucket,
hence `S3_ACL=none`.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
"""

from collections.abc import Callable, Mapping
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
    return str(rules[0]["ObjectOwnership"]) if rules else ""


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
        steps.insert(0, Step("Take back what the bucket's ACL grants to others", "PutBucketAcl", private))
    return steps


def _grants_others(acl: dict[str, Any]) -> bool:
    owner = acl.get("Owner", {}).get("ID")
    return any(grant["Grantee"].get("ID") != owner for grant in acl.get("Grants", []))


def _block_steps(target: Target, state: BucketState) -> list[Step]:
    public = target.mode == "public"
    wanted = _BLOCK_ACLS if public else _BLOCK_ALL
    if "GetPublicAccessBlock" not in state.answers or state.public_access_block == wanted:
        return []
    title = "Let the bucket have a public policy" if public else "Block all public access to the bucket"
    parameters = {"Bucket": target.bucket, "PublicAccessBlockConfiguration": wanted}
    return [Step(title, "PutPublicAccessBlock", parameters, vital=public)]


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
        return [Step(title, "DeleteBucketPolicy", dict(bucket))]
    return [Step(title, "PutBucketPolicy", bucket | {"Policy": rest})]
