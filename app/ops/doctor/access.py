"""Who may read and write the bucket, by its configuration: against the mode that the settings ask for.

Who the credentials belong to, and whether the bucket belongs to them.
"""

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from app.ops.bucket.plan import ACL_BLOCKS, ACLS_DISABLED, BLOCK_PUBLIC_ACLS, POLICY_BLOCKS
from app.ops.bucket.policy import Policy, allows_everybody, public_resources
from app.ops.doctor.findings import Finding, NotChecked, ask, explain_code, ok, problem, warning
from app.ops.doctor.patient import Patient, check
from app.ops.doctor.probe import probe_put
from app.ops.doctor.reach import credentials_accepted
from app.stores.s3.errors import DENIED, code_of


@check(credentials_accepted, elsewhere=True)
def caller_identity(patient: Patient) -> Finding:
    """The user or the role, without key or account."""
    return ok(f"The credentials are those of {_name_of(patient.caller.arn)}.")


@check(caller_identity)
def not_root(patient: Patient) -> Finding:
    """The root user's credentials can do everything, and can't be limited."""
    if _name_of(patient.caller.arn) == "root":
        return problem(
            "These are the root user's credentials.",
            "Make a user that may do no more than it needs: flask bucket create-user",
        )
    return ok("They are not the root user's.")


@check(caller_identity, probe_put)
def bucket_owner(patient: Patient) -> Finding:
    """Names are unique in all AWS: a bucket of the right name may be somebody else's."""
    try:
        patient.clients.s3.head_object(
            Bucket=patient.bucket, Key=patient.probe.key, ExpectedBucketOwner=patient.caller.account
        )
    except ClientError as exc:
        if code_of(exc) in DENIED:
            return _denied(patient)
        raise
    return ok("The bucket belongs to the account of the credentials.")


def _denied(patient: Patient) -> Finding:
    """The probe is readable without the condition, or reading is what is denied."""
    ask(patient.clients.s3.head_object, Bucket=patient.bucket, Key=patient.probe.key)
    return warning(
        "The bucket belongs to another account than the credentials.",
        "Where that is not meant, take another name, such as S3_BUCKET=company-project-images-2026",
    )


def _name_of(arn: str) -> str:
    """`user/alice` of `arn:aws:iam::1234:user/alice`; of an assumed role, the role."""
    resource = arn.rpartition(":")[2]
    kind, _, name = resource.partition("/")
    return f"role/{name.partition('/')[0]}" if kind == "assumed-role" else resource


_BLOCKS = (*ACL_BLOCKS, *POLICY_BLOCKS)
_WRITING = ("s3:PutObject", "s3:DeleteObject", "s3:PutObjectAcl", "s3:PutBucketPolicy")
_GROUPS = "http://acs.amazonaws.com/groups/global/"


@check(credentials_accepted, probe_put)
def block_public_access(patient: Patient) -> Finding:
    """The bucket's own block: on in private mode; in public mode off for what opens it, policy or ACLs."""
    on = _blocks_on(patient.clients.s3.get_public_access_block, Bucket=patient.bucket)
    off = [name for name in _BLOCKS if name not in on]
    if hindering := _hindering(patient, on):
        return problem(f"{', '.join(hindering)} keeps browsers out.", "flask bucket setup --mode public")
    if off == [BLOCK_PUBLIC_ACLS] and not patient.is_public and not patient.is_aws:
        return ok(f"All is blocked except {BLOCK_PUBLIC_ACLS}, under which some servers refuse uploads.")
    if off and not patient.is_public:
        return warning(f"Private, but not blocked: {', '.join(off)}.", "flask bucket setup --mode private")
    return ok("The block on the bucket fits the mode.")


@check(caller_identity, probe_put, elsewhere=True)
def account_public_access(patient: Patient) -> Finding:
    """The account's block stands above each bucket's."""
    patient.expect_aws(patient.clients.s3control.meta.endpoint_url, "S3 Control")
    on = _blocks_on(
        patient.clients.s3control.get_public_access_block,
        action="s3:GetAccountPublicAccessBlock",
        AccountId=patient.caller.account,
    )
    if hindering := _hindering(patient, on):
        return problem(
            f"For the whole account, {', '.join(hindering)} keeps browsers out.",
            "S3 console → Block Public Access settings for this account → Edit; or stay private: "
            "flask bucket setup --mode private",
        )
    return ok("The block on the account fits the mode.")


@check(credentials_accepted)
def object_ownership(patient: Patient) -> Finding:
    """Buckets made since 2023 have ACLs disabled, and refuse a put that carries one."""
    ownership = patient.ownership
    if ownership != ACLS_DISABLED:
        return ok(f"ACLs are enabled ({ownership or 'not configured'}); S3_ACL={patient.config.object_acl}.")
    if patient.config.s3_acl == "public-read":
        return explain_code("AccessControlListNotSupported")
    return ok("ACLs are disabled, and puts go without.")


@check(credentials_accepted, probe_put)
def bucket_policy(patient: Patient) -> Finding:
    """Lets everybody read in public mode, nobody in private mode; and names this bucket."""
    policy = _policy(patient)
    opened = _is_open(patient, policy)
    if opened and not patient.is_public:
        return problem("Private, but the policy lets everybody read.", "flask bucket setup --mode private")
    if opened or not patient.is_public:
        return ok("The policy fits the mode.")
    others = public_resources(policy, "s3:GetObject")
    if others:
        return problem(
            f"The policy opens {', '.join(others)}, not {_arn(patient)}/*.",
            "flask bucket setup --mode public",
        )
    if patient.config.object_acl != "none" and _has_acls(patient):
        return ok("No policy lets everybody read; the images' ACLs do.")
    return problem("No policy lets everybody read the images.", "flask bucket setup --mode public")


@check(credentials_accepted)
def public_writes(patient: Patient) -> Finding:
    """Neither policy nor ACL of the bucket may let everybody write."""
    policy = _policy(patient)
    resources = (_arn(patient), f"{_arn(patient)}/{patient.probe.key}")
    allowed = [a for a in _WRITING if any(allows_everybody(policy, a, r) for r in resources)]
    allowed += _public_acl_writes(patient)
    if allowed:
        return problem(
            f"Everybody may do {', '.join(allowed)}.",
            "S3 console → the bucket → Permissions: remove that from policy and ACL",
        )
    return ok("Neither policy nor ACL lets everybody write.")


def _blocks_on(call: Callable[..., Any], **arguments: Any) -> list[str]:
    answer = ask(call, **arguments) or {}
    block = answer.get("PublicAccessBlockConfiguration", {})
    return [name for name in _BLOCKS if block.get(name)]


def _hindering(patient: Patient, on: list[str]) -> list[str]:
    """Those of the blocks that keep browsers from images that are meant to be public."""
    if not on or not patient.is_public:
        return []
    counting = POLICY_BLOCKS if _depends_on_policy(patient) else ACL_BLOCKS
    return [name for name in on if name in counting]


def _depends_on_policy(patient: Patient) -> bool:
    """Whether images are public by the policy rather than by their ACLs; `auto` follows the bucket."""
    if patient.config.s3_acl == "auto":
        return not _has_acls(patient) or _is_open(patient, _policy(patient))
    return patient.config.s3_acl == "none"


def _has_acls(patient: Patient) -> bool:
    """Whether ACLs count; where nobody can say, they are taken to."""
    try:
        return patient.ownership != ACLS_DISABLED
    except NotChecked:
        return True


def _policy(patient: Patient) -> Policy | None:
    answer = ask(patient.clients.s3.get_bucket_policy, Bucket=patient.bucket)
    text = answer["Policy"] if answer else ""
    return json.loads(text) if text else None


def _is_open(patient: Patient, policy: Policy | None) -> bool:
    """Whether the policy lets everybody read the probe."""
    image = f"{_arn(patient)}/{patient.probe.key}"
    return allows_everybody(policy, "s3:GetObject", image)


def _public_acl_writes(patient: Patient) -> list[str]:
    answer: Any = ask(patient.clients.s3.get_bucket_acl, Bucket=patient.bucket) or {}
    grants: list[Any] = answer.get("Grants", [])
    return [
        f"{grant['Permission']} by ACL"
        for grant in grants
        if grant["Grantee"].get("URI", "").startswith(_GROUPS)
        and grant["Permission"] not in ("READ", "READ_ACP")
    ]


def _arn(patient: Patient) -> str:
    return f"arn:{patient.clients.partition}:s3:::{patient.bucket}"
