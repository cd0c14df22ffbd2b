"""The plan: the S3 calls that bring the bucket from its current state to the target.

ACLs are disabled in both modes, by making the bucket owner the owner of all objects. Then only the policy
decides what is public. Uploads with an ACL to such a bucket get 400, so `S3_ACL=none` must be set.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html

Our CORS and lifecycle rules are recognized by their IDs. All other rules stay unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import CallDenied
from app.ops.bucket.policy import is_public, with_public_read, without_public_read
from app.ops.bucket.state import BucketState, S3Response, Target, holds_objects, read_state, try_upload

ACLS_DISABLED = "BucketOwnerEnforced"
"""The object ownership setting that makes S3 ignore ACLs and refuse uploads that have one."""

BLOCK_PUBLIC_ACLS = "BlockPublicAcls"
"""With this block, Ceph RGW refuses every upload, even one by the owner without an ACL (fixed in 2025)."""

ACL_BLOCKS = (BLOCK_PUBLIC_ACLS, "IgnorePublicAcls")
POLICY_BLOCKS = ("BlockPublicPolicy", "RestrictPublicBuckets")
_BLOCK_ALL = dict.fromkeys((*ACL_BLOCKS, *POLICY_BLOCKS), True)
_BLOCK_ACLS = _BLOCK_ALL | dict.fromkeys(POLICY_BLOCKS, False)
"""The blocks of a public bucket. Only the policy makes its objects public, so public ACLs stay blocked."""

_ACCOUNT_BLOCK_HINT = (
    "If the credentials have this permission, Block Public Access of the account or of its organization "
    "forbids public policies. It takes precedence over the setting of the bucket, and this command never "
    "changes it. To show it: aws s3control get-public-access-block --account-id $(aws sts "
    "get-caller-identity --query Account --output text); or in the console: S3 → Block Public Access "
    "settings for this account."
)

_RULE_ID = "s3-image-server"
"""The ID of our CORS rule, and the prefix of the IDs of our lifecycle rules."""

_ABORT_AFTER_DAYS = 7
_CORS_MAX_AGE_SECONDS = 3600

_DEFAULT_REGION = "us-east-1"
"""The region of buckets without a location constraint. S3 refuses this region as a constraint."""

Rule = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A call to S3 that changes the bucket.

    `parameters` are the parameters of the boto3 method, but a bucket policy is a dict rather than JSON. If a
    `vital` step fails, the steps after it are not tried. If a compatible server does not support an
    `optional` step, that is not a failure, and the step's `fallback` may be tried instead. `denied_hint`
    tells the operator why AWS may deny the call even if the credentials have the permission.
    """

    title: str
    operation: str
    parameters: dict[str, Any]
    vital: bool = False
    optional: bool = True
    denied_hint: str = ""
    fallback: "Step | None" = None


@dataclass(frozen=True)
class Plan:
    """The steps, in order. If the bucket already has the target's settings, there are no steps.

    `publishes` is True if the steps let everyone read existing objects of the bucket. If the bucket can't be
    listed, it is assumed to contain objects, and `unlisted` is True. `unsupported` names the operations that
    the server does not support. The plan has no steps for the settings that these operations read.
    """

    steps: tuple[Step, ...]
    publishes: bool
    unsupported: tuple[str, ...]
    unlisted: bool = False


def make_plan(clients: AwsClients, target: Target, *, may_upload: bool = True) -> Plan:
    """Read the bucket's settings and return the plan that leads to the target. Raises `BucketError`.

    No setting is changed. Some compatible servers refuse every upload to a bucket that blocks public ACLs. So
    if the server lacks some settings and the bucket has this block, a small image is put and deleted again.
    `may_upload=False` skips this test.
    """
    state = read_state(clients, target)
    if may_upload and state.unsupported and state.public_access_block.get(BLOCK_PUBLIC_ACLS):
        refused = isinstance(try_upload(clients, target.bucket), CallDenied)
        state = replace(state, refuses_uploads=refused)
    access = access_steps(target, state)
    holds = holds_objects(clients, target.bucket) if _publishes(target, state, access) else False
    return Plan(
        steps=(*_creation_steps(target, state), *access, *rule_steps(target, state)),
        publishes=holds is not False,
        unsupported=state.unsupported,
        unlisted=holds is None,
    )


def ownership_of(response: Mapping[str, Any]) -> str:
    """Return the object ownership from a response to GetBucketOwnershipControls, or an empty string."""
    rules = response.get("OwnershipControls", {}).get("Rules", [])
    return str(rules[0].get("ObjectOwnership", "")) if rules else ""


def access_steps(target: Target, state: BucketState) -> list[Step]:
    """Return the steps that decide who may read, in the order that S3 requires.

    Grants are removed from the bucket's ACL before ACLs are disabled. For a public bucket, the blocks for
    public policies are turned off before the policy is put. For a private bucket, they are turned on only
    after the policy has been removed, because they prevent changes to a policy that is still public.
    """
    ownership = _ownership_steps(target, state)
    if target.mode == "public":
        return [*ownership, *_block_steps(target, state), *_policy_steps(target, state)]
    return [*ownership, *_policy_steps(target, state), *_block_steps(target, state)]


def rule_steps(target: Target, state: BucketState) -> list[Step]:
    """Return the steps for CORS, lifecycle and encryption, which don't depend on each other."""
    return [*_cors_steps(target, state), *_lifecycle_steps(target, state), *_encryption_steps(target, state)]


def _publishes(target: Target, state: BucketState, steps: list[Step]) -> bool:
    """Return whether the steps make a bucket public that exists and is not public yet."""
    if target.mode != "public" or not state.exists:
        return False
    is_readable = is_public(state.policy, target.objects_arn) and not state.public_access_block.get(
        "RestrictPublicBuckets", False
    )
    changes = any(step.operation in ("PutPublicAccessBlock", "PutBucketPolicy") for step in steps)
    return changes and not is_readable


def _creation_steps(target: Target, state: BucketState) -> list[Step]:
    if state.exists:
        return []
    parameters: dict[str, Any] = {"Bucket": target.bucket}
    if target.region != _DEFAULT_REGION:
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": target.region}
    title = f"Create the bucket {target.bucket} in {target.region}"
    return [Step(title, "CreateBucket", parameters, vital=True, optional=False)]


def _ownership_steps(target: Target, state: BucketState) -> list[Step]:
    response = state.settings.get("GetBucketOwnershipControls")
    if response is None or ownership_of(response) == ACLS_DISABLED:
        return []
    steps = [
        Step(
            "Disable ACLs: the bucket owner owns every object",
            "PutBucketOwnershipControls",
            {"Bucket": target.bucket, "OwnershipControls": {"Rules": [{"ObjectOwnership": ACLS_DISABLED}]}},
        )
    ]
    acl = state.settings.get("GetBucketAcl", {})
    owner = acl.get("Owner", {}).get("ID")
    if any(grant.get("Grantee", {}).get("ID") != owner for grant in acl.get("Grants", [])):
        title = "Remove the grants to others from the bucket's ACL"
        private = {"Bucket": target.bucket, "ACL": "private"}
        steps.insert(0, Step(title, "PutBucketAcl", private, optional=False))
    return steps


def _block_steps(target: Target, state: BucketState) -> list[Step]:
    public = target.mode == "public"
    present = state.public_access_block
    wanted = _BLOCK_ACLS if public else _BLOCK_ALL
    reduced = wanted | {BLOCK_PUBLIC_ACLS: False}
    if "GetPublicAccessBlock" not in state.settings or present == wanted:
        if state.refuses_uploads and present.get(BLOCK_PUBLIC_ACLS):
            title = f"Turn {BLOCK_PUBLIC_ACLS} off, since the server refuses every upload with it"
            return [_block_step(target, title, reduced)]
        return []
    if state.unsupported and present == reduced:
        return []  # an earlier run of this command used the fallback
    title = "Allow a public bucket policy" if public else "Block all public access to the bucket"
    fallback = _block_step(target, f"{title}, without {BLOCK_PUBLIC_ACLS}", reduced)
    return [replace(_block_step(target, title, wanted), vital=public, fallback=fallback)]


def _block_step(target: Target, title: str, block: dict[str, bool]) -> Step:
    parameters = {"Bucket": target.bucket, "PublicAccessBlockConfiguration": block}
    return Step(title, "PutPublicAccessBlock", parameters)


def _policy_steps(target: Target, state: BucketState) -> list[Step]:
    if "GetBucketPolicy" not in state.settings:
        return []
    policy, bucket = state.policy, {"Bucket": target.bucket}
    if target.mode == "public":
        if is_public(policy, target.objects_arn):
            return []
        parameters = bucket | {"Policy": with_public_read(policy, target.objects_arn)}
        title = "Let everyone read objects"
        return [Step(title, "PutBucketPolicy", parameters, denied_hint=_ACCOUNT_BLOCK_HINT)]
    rest = without_public_read(policy, target.objects_arn)
    title = "Stop letting everyone read objects"
    if policy is None or rest == policy:
        return []
    if rest is None:
        return [Step(title, "DeleteBucketPolicy", dict(bucket), optional=False)]
    return [Step(title, "PutBucketPolicy", bucket | {"Policy": rest}, optional=False)]


def _cors_steps(target: Target, state: BucketState) -> list[Step]:
    response = state.settings.get("GetBucketCors")
    if response is None:
        return []
    present = response.get("CORSRules", [])
    ours = {
        "ID": _RULE_ID,
        "AllowedOrigins": list(target.cors),
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": ["*"],
        "MaxAgeSeconds": _CORS_MAX_AGE_SECONDS,
    }
    rules = _merged(present, [ours])
    if rules == present:
        return []
    parameters = {"Bucket": target.bucket, "CORSConfiguration": {"CORSRules": rules}}
    return [Step(f"Let scripts from {', '.join(target.cors)} read", "PutBucketCors", parameters)]


def _lifecycle_steps(target: Target, state: BucketState) -> list[Step]:
    response = state.settings.get("GetBucketLifecycleConfiguration")
    if response is None:
        return []
    present = {_lifecycle_essence(rule) for rule in response.get("Rules", [])}
    missing = [rule for rule in _lifecycle_rules(target) if _lifecycle_essence(rule) not in present]
    if not missing:
        return []
    expiring = [rule for rule in missing if "Expiration" in rule]
    fallback = _lifecycle_step(target, response, expiring) if 0 < len(expiring) < len(missing) else None
    return [replace(_lifecycle_step(target, response, missing), fallback=fallback)]


def _lifecycle_rules(target: Target) -> list[Rule]:
    abort = {
        "ID": f"{_RULE_ID} abort incomplete uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_AFTER_DAYS},
    }
    expire = [
        {
            "ID": f"{_RULE_ID} expire {prefix}",
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "Expiration": {"Days": days},
        }
        for prefix, days in target.expire.items()
    ]
    return [abort, *expire]


def _lifecycle_step(target: Target, response: S3Response, missing: list[Rule]) -> Step:
    rules = _merged(response.get("Rules", []), missing)
    parameters = {"Bucket": target.bucket, "LifecycleConfiguration": {"Rules": rules}}
    minimum_size = "TransitionDefaultMinimumObjectSize"
    if minimum_size in response:  # S3 would reset this setting if the parameter were missing
        parameters[minimum_size] = response[minimum_size]
    actions = [
        f"delete objects under {rule['Filter']['Prefix']} after {rule['Expiration']['Days']} days"
        for rule in missing
        if "Expiration" in rule
    ]
    if len(actions) < len(missing):
        actions.append(f"discard incomplete uploads after {_ABORT_AFTER_DAYS} days")
    title = ", ".join(actions)
    title = title[0].upper() + title[1:]  # `capitalize` would change the case of the prefixes
    return Step(title, "PutBucketLifecycleConfiguration", parameters)


def _lifecycle_essence(rule: Rule) -> tuple[Any, ...]:
    """Return a tuple that is equal for rules with the same ID and effect.

    The rules themselves can't be compared, because S3 may return an empty filter in several forms.
    """
    prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    abort = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    return rule.get("ID"), rule.get("Status"), prefix, rule.get("Expiration", {}).get("Days"), abort


def _merged(present: list[Rule], ours: list[Rule]) -> list[Rule]:
    """Return the present rules and ours. Each of our rules replaces a present rule with the same ID."""
    by_id = {rule["ID"]: rule for rule in ours}
    kept = [by_id.pop(rule.get("ID", ""), rule) for rule in present]
    return [*kept, *by_id.values()]


def _encryption_steps(target: Target, state: BucketState) -> list[Step]:
    response = state.settings.get("GetBucketEncryption")
    if response is None or response.get("ServerSideEncryptionConfiguration", {}).get("Rules"):
        return []
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    parameters = {"Bucket": target.bucket, "ServerSideEncryptionConfiguration": {"Rules": rules}}
    return [Step("Encrypt objects with S3's own keys", "PutBucketEncryption", parameters)]
