"""Checks of the credentials' identity, and of the configuration that decides who may read and write."""

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from app.ops.bucket.plan import ACL_BLOCKS, ACLS_DISABLED, BLOCK_PUBLIC_ACLS, POLICY_BLOCKS
from app.ops.bucket.policy import Policy, allows_everyone, public_resources
from app.ops.doctor.connection import credentials_accepted
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, NotChecked, finding_for_code, ok, problem, query, warning
from app.ops.doctor.probe import probe_put
from app.stores.s3.errors import DENIED, code_of

_BLOCKS = (*ACL_BLOCKS, *POLICY_BLOCKS)
_WRITE_ACTIONS = ("s3:PutObject", "s3:DeleteObject", "s3:PutObjectAcl", "s3:PutBucketPolicy")
_PUBLIC_GROUPS = "http://acs.amazonaws.com/groups/global/"


@check(credentials_accepted, is_remote=True)
def caller_identity(context: CheckContext) -> Finding:
    """STS must return the identity to which the credentials belong.

    The finding names the user or the role, but neither the access key nor the account.
    """
    return ok(f"The credentials belong to {_name_of(context.identity.arn)}.")


@check(caller_identity)
def not_root(context: CheckContext) -> Finding:
    """The credentials should not belong to the root user, whose permissions can't be limited."""
    if _name_of(context.identity.arn) == "root":
        return problem(
            "The credentials belong to the root user.",
            "Create a user with only the permissions that the server needs: flask bucket create-user",
        )
    return ok("The credentials do not belong to the root user.")


def _name_of(arn: str) -> str:
    """Return `user/alice` for `arn:aws:iam::1234:user/alice`, and `role/…` for an assumed role."""
    resource = arn.rpartition(":")[2]
    kind, _, name = resource.partition("/")
    return f"role/{name.partition('/')[0]}" if kind == "assumed-role" else resource


@check(caller_identity, probe_put)
def bucket_owner(context: CheckContext) -> Finding:
    """The bucket should belong to the same account as the credentials.

    Bucket names are unique across all AWS accounts, so a mistyped name may be someone else's bucket.
    """
    try:
        context.clients.s3.head_object(
            Bucket=context.bucket, Key=context.probe.key, ExpectedBucketOwner=context.identity.account
        )
    except ClientError as exc:
        if code_of(exc) not in DENIED:
            raise
        # If the request is denied even without ExpectedBucketOwner, the reason is a missing permission.
        query(context.clients.s3.head_object, Bucket=context.bucket, Key=context.probe.key)
        return warning(
            "The bucket and the credentials belong to different accounts.",
            "If that is not intended, choose a different name, such as S3_BUCKET=company-project-images-2026",
        )
    return ok("The bucket and the credentials belong to the same account.")


@check(credentials_accepted)
def object_ownership(context: CheckContext) -> Finding:
    """`S3_ACL=public-read` needs a bucket with ACLs enabled. Since 2023, AWS disables ACLs in new buckets."""
    ownership = context.ownership
    if ownership != ACLS_DISABLED:
        return ok(f"ACLs are enabled ({ownership or 'not configured'}); S3_ACL={context.config.object_acl}.")
    if context.config.s3_acl == "public-read":
        return finding_for_code("AccessControlListNotSupported")
    return ok("ACLs are disabled, and puts carry none.")


@check(credentials_accepted, probe_put)
def block_public_access(context: CheckContext) -> Finding:
    """The bucket's Block Public Access must fit the mode.

    In private mode, all blocks should be on. In public mode, the blocks for public policies must be off if
    the policy makes the images public, and the blocks for public ACLs must be off if ACLs do.
    """
    on = _enabled_blocks(context.clients.s3.get_public_access_block, Bucket=context.bucket)
    off = [name for name in _BLOCKS if name not in on]
    if harmful := _blocks_of_readers(context, on):
        return problem(
            f"{', '.join(harmful)} prevents browsers from reading images.", "flask bucket setup --mode public"
        )
    if off == [BLOCK_PUBLIC_ACLS] and not context.is_public and not context.is_aws:
        return ok(f"All blocks are on except {BLOCK_PUBLIC_ACLS}, with which some servers refuse uploads.")
    if off and not context.is_public:
        return warning(
            f"The mode is private, but these blocks are off: {', '.join(off)}.",
            "flask bucket setup --mode private",
        )
    return ok("The bucket's Block Public Access fits the mode.")


@check(caller_identity, probe_put, is_remote=True)
def account_public_access(context: CheckContext) -> Finding:
    """The account's Block Public Access must fit the mode, since it overrides the bucket's setting."""
    context.require_own_service(context.clients.s3control.meta.endpoint_url, "S3 Control")
    on = _enabled_blocks(
        context.clients.s3control.get_public_access_block,
        action="s3:GetAccountPublicAccessBlock",
        AccountId=context.identity.account,
    )
    if harmful := _blocks_of_readers(context, on):
        return problem(
            f"In the account settings, {', '.join(harmful)} prevents browsers from reading images.",
            "S3 console → Block Public Access settings for this account → Edit; or, to make the bucket "
            "private: flask bucket setup --mode private",
        )
    return ok("The account's Block Public Access fits the mode.")


def _enabled_blocks(call: Callable[..., Any], **arguments: Any) -> list[str]:
    response = query(call, **arguments) or {}
    block = response.get("PublicAccessBlockConfiguration", {})
    return [name for name in _BLOCKS if block.get(name)]


def _blocks_of_readers(context: CheckContext, on: list[str]) -> list[str]:
    """Return the enabled blocks that prevent browsers from reading images that should be public."""
    if not on or not context.is_public:
        return []
    if context.config.s3_acl == "auto":
        is_public_by_policy = not _has_acls(context) or _can_everyone_read(context, _policy(context))
    else:
        is_public_by_policy = context.config.s3_acl == "none"
    relevant = POLICY_BLOCKS if is_public_by_policy else ACL_BLOCKS
    return [name for name in on if name in relevant]


@check(credentials_accepted, probe_put)
def bucket_policy(context: CheckContext) -> Finding:
    """In private mode, the policy must not let everyone read the images.

    In public mode, either the policy or the ACLs of the images must let everyone read them.
    """
    policy = _policy(context)
    is_open = _can_everyone_read(context, policy)
    if is_open and not context.is_public:
        return problem(
            "The mode is private, but the policy lets everyone read.", "flask bucket setup --mode private"
        )
    if is_open or not context.is_public:
        return ok("The policy fits the mode.")
    others = public_resources(policy, "s3:GetObject")
    if others:
        return problem(
            f"The policy lets everyone read {', '.join(others)} instead of {_arn(context)}/*.",
            "flask bucket setup --mode public",
        )
    if context.config.object_acl != "none" and _has_acls(context):
        return ok("The policy does not let everyone read, but the ACLs of the images do.")
    return problem("No policy lets everyone read the images.", "flask bucket setup --mode public")


@check(credentials_accepted)
def public_writes(context: CheckContext) -> Finding:
    """Neither the policy nor the ACL of the bucket should let everyone write."""
    policy = _policy(context)
    resources = (_arn(context), f"{_arn(context)}/{context.probe.key}")
    allowed = [
        action
        for action in _WRITE_ACTIONS
        if any(allows_everyone(policy, action, resource) for resource in resources)
    ]
    response: Any = query(context.clients.s3.get_bucket_acl, Bucket=context.bucket) or {}
    allowed += [
        f"{grant['Permission']} by ACL"
        for grant in response.get("Grants", [])
        if grant["Grantee"].get("URI", "").startswith(_PUBLIC_GROUPS)
        and grant["Permission"] not in ("READ", "READ_ACP")
    ]
    if allowed:
        return problem(
            f"Everyone has these permissions: {', '.join(allowed)}.",
            "S3 console → the bucket → Permissions: remove these permissions from the policy and the ACL",
        )
    return ok("Neither the policy nor the ACL lets everyone write.")


def _has_acls(context: CheckContext) -> bool:
    """Return whether ACLs are enabled, or True if the setting can't be read."""
    try:
        return context.ownership != ACLS_DISABLED
    except NotChecked:
        return True


def _policy(context: CheckContext) -> Policy | None:
    response = query(context.clients.s3.get_bucket_policy, Bucket=context.bucket)
    text = response["Policy"] if response else ""
    return json.loads(text) if text else None


def _can_everyone_read(context: CheckContext, policy: Policy | None) -> bool:
    return allows_everyone(policy, "s3:GetObject", f"{_arn(context)}/{context.probe.key}")


def _arn(context: CheckContext) -> str:
    return f"arn:{context.clients.partition}:s3:::{context.bucket}"
