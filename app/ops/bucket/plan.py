"""The plan: the calls that still lie between a bucket as it is and as it is to become.

A step of a plan: one call that changes the bucket, and what became of it.

The steps that decide who may read: ownership, Block Public Access and the bucket policy.

Ownership is enforced (ACLs disabled) in both modes: what is public is then said in one place, the policy, and
no object's ACL publishes it behind the policy's back. An upload with an ACL answers 400 on such a bucket,
hence `S3_ACL=none`.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html

The steps for CORS, lifecycle and encryption; rules of others stay as they are, ours are known by ID.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import CallDenied
from app.ops.bucket.policy import Target, closed, is_open, opened
from app.ops.bucket.state import Answer, BucketState, holds_objects, read_state, refusal_of_uploads


@dataclass(frozen=True)
class Step:
    """A call to S3 that is still to be made.

    `parameters` are boto3's, but a bucket policy is the document itself. If a `vital` step fails, those
    after it are not tried. An `optional` one is skipped if a compatible server does not support it, and
    `fallback` may be tried instead; all others must succeed. `if_denied` says why AWS may deny the call apart
    from a missing permission.
    """

    title: str
    operation: str
    parameters: dict[str, Any]
    vital: bool = False
    optional: bool = True
    if_denied: str = ""
    fallback: "Step | None" = None


class Outcome(StrEnum):
    """What became of a step."""

    DONE = "done"
    UNSUPPORTED = "not supported by this server"
    REVERTED = "undone, since uploads failed after it"
    FAILED = "failed"
    WARNING = "warning"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Result:
    """A step with its outcome; `message` says why it did not succeed, and what to do.

    `calls_for_less` says that the step's fallback may succeed.
    """

    step: Step
    outcome: Outcome
    message: str = ""
    calls_for_less: bool = False


ACLS_DISABLED = "BucketOwnerEnforced"
"""The object ownership under which ACLs neither count nor are taken."""

ACL_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls")
POLICY_BLOCKS = ("BlockPublicPolicy", "RestrictPublicBuckets")
_BLOCK_ALL = dict.fromkeys((*ACL_BLOCKS, *POLICY_BLOCKS), True)
_BLOCK_ACLS = _BLOCK_ALL | dict.fromkeys(POLICY_BLOCKS, False)
"""For a public bucket: a policy does the opening, so public ACLs stay blocked."""

BLOCK_PUBLIC_ACLS = "BlockPublicAcls"
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
    softer = wanted | {BLOCK_PUBLIC_ACLS: False}
    if "GetPublicAccessBlock" not in state.answers or state.public_access_block == wanted:
        return _lifting_steps(target, state, softer)
    if state.unsupported and state.public_access_block == softer:
        return []  # as an earlier run left it
    title = "Let the bucket have a public policy" if public else "Block all public access to the bucket"
    fallback = _block_step(target, f"{title}, without {BLOCK_PUBLIC_ACLS}", softer)
    return [replace(_block_step(target, title, wanted), vital=public, fallback=fallback)]


def _lifting_steps(target: Target, state: BucketState, softer: dict[str, bool]) -> list[Step]:
    if not state.refuses_uploads or not state.public_access_block.get(BLOCK_PUBLIC_ACLS):
        return []
    title = f"Lift {BLOCK_PUBLIC_ACLS}, under which the server refuses every upload"
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


_OURS = "s3-image-server"
_ABORT_AFTER_DAYS = 7
_CORS_SECONDS = 3600

Rule = dict[str, Any]


def rule_steps(target: Target, state: BucketState) -> list[Step]:
    """The steps, none of which another depends on."""
    return [*_cors_steps(target, state), *_lifecycle_steps(target, state), *_encryption_steps(target, state)]


def _cors_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketCors")
    if answer is None:
        return []
    present = answer.get("CORSRules", [])
    rules = _merged(present, [_cors_rule(target.cors)])
    if rules == present:
        return []
    parameters = {"Bucket": target.bucket, "CORSConfiguration": {"CORSRules": rules}}
    return [Step(f"Let scripts from {', '.join(target.cors)} read", "PutBucketCors", parameters)]


def _cors_rule(origins: tuple[str, ...]) -> Rule:
    return {
        "ID": _OURS,
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": ["*"],
        "MaxAgeSeconds": _CORS_SECONDS,
    }


def _lifecycle_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketLifecycleConfiguration")
    if answer is None:
        return []
    present = answer.get("Rules", [])
    wanted = [_abort_rule(), *(_expiry_rule(prefix, days) for prefix, days in target.expire.items())]
    known = {_essence(rule) for rule in present}
    missing = [rule for rule in wanted if _essence(rule) not in known]
    if not missing:
        return []
    expiring = [rule for rule in missing if "Expiration" in rule]
    fallback = _lifecycle_step(target, answer, expiring) if 0 < len(expiring) < len(missing) else None
    return [replace(_lifecycle_step(target, answer, missing), fallback=fallback)]


def _lifecycle_step(target: Target, answer: Answer, missing: list[Rule]) -> Step:
    rules = _merged(answer.get("Rules", []), missing)
    parameters = {"Bucket": target.bucket, "LifecycleConfiguration": {"Rules": rules}}
    smallest = "TransitionDefaultMinimumObjectSize"
    if smallest in answer:  # left out, it would go back to its default
        parameters[smallest] = answer[smallest]
    return Step(_told(missing), "PutBucketLifecycleConfiguration", parameters)


def _abort_rule() -> Rule:
    return {
        "ID": f"{_OURS} abort incomplete uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_AFTER_DAYS},
    }


def _expiry_rule(prefix: str, days: int) -> Rule:
    return {
        "ID": f"{_OURS} expire {prefix}",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
    }


def _essence(rule: Rule) -> tuple[Any, ...]:
    """What a rule says, whichever way S3 wrote it down: an empty filter may come back in several forms."""
    prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    abort = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    return rule.get("ID"), rule.get("Status"), prefix, rule.get("Expiration", {}).get("Days"), abort


def _told(rules: list[Rule]) -> str:
    texts = [
        f"delete objects below {rule['Filter']['Prefix']} after {rule['Expiration']['Days']} days"
        for rule in rules
        if "Expiration" in rule
    ]
    if len(texts) < len(rules):
        texts.append(f"discard incomplete uploads after {_ABORT_AFTER_DAYS} days")
    return _sentence(", ".join(texts))


def _sentence(text: str) -> str:
    """With a capital in front; `capitalize` would change prefixes as well."""
    return text[0].upper() + text[1:]


def _encryption_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketEncryption")
    if answer is None or answer.get("ServerSideEncryptionConfiguration", {}).get("Rules"):
        return []
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    parameters = {"Bucket": target.bucket, "ServerSideEncryptionConfiguration": {"Rules": rules}}
    return [Step("Encrypt objects with S3's own keys", "PutBucketEncryption", parameters)]


def _merged(present: list[Rule], ours: list[Rule]) -> list[Rule]:
    """`ours` in place of the rules with the same IDs, or behind those of others."""
    named = {rule["ID"]: rule for rule in ours}
    kept = [named.pop(rule.get("ID", ""), rule) for rule in present]
    return [*kept, *named.values()]


_HOME_REGION = "us-east-1"
_OPENING = ("PutPublicAccessBlock", "PutBucketPolicy")


@dataclass(frozen=True)
class Plan:
    """Steps in their order, none where there is nothing to do.

    `publishes` says that carrying them out lets everybody read objects which the bucket holds already, and
    `unlisted` that those are presumed, since it can't be listed. `unsupported` are the operations for which
    the server has no answer, so that nothing is planned there.
    """

    steps: tuple[Step, ...]
    publishes: bool
    unsupported: tuple[str, ...]
    unlisted: bool = False


def make_plan(clients: AwsClients, target: Target, *, may_upload: bool = True) -> Plan:
    """Look at the bucket, and change nothing; raises `BucketError` if that is not possible.

    If the server lacks settings, and the bucket blocks public ACLs, a small image is put and deleted again:
    some such servers refuse every upload then. `may_upload=False` spares that.
    """
    state = read_state(clients, target)
    if may_upload and state.unsupported and state.public_access_block.get(BLOCK_PUBLIC_ACLS):
        refused = isinstance(refusal_of_uploads(clients, target.bucket), CallDenied)
        state = replace(state, refuses_uploads=refused)
    steps = (*_creation_steps(target, state), *access_steps(target, state), *rule_steps(target, state))
    opening = any(step.operation in _OPENING for step in steps)
    opens = state.exists and opening and would_open(target, state)
    shown = holds_objects(clients, target) if opens else False
    return Plan(steps, shown is not False, state.unsupported, unlisted=shown is None)


def _creation_steps(target: Target, state: BucketState) -> list[Step]:
    if state.exists:
        return []
    # us-east-1 is where buckets go without a constraint, and is refused as one.
    place: dict[str, Any] = (
        {"CreateBucketConfiguration": {"LocationConstraint": target.region}}
        if target.region != _HOME_REGION
        else {}
    )
    parameters = {"Bucket": target.bucket, **place}
    title = f"Create the bucket {target.bucket} in {target.region}"
    return [Step(title, "CreateBucket", parameters, vital=True, optional=False)]
