"""Who may read and write the bucket, by its configuration: against the mode that the settings ask for."""

import json
from collections.abc import Callable
from typing import Any

from app.bucket.access import ACL_BLOCKS, ACLS_DISABLED, POLICY_BLOCKS
from app.bucket.doctor.asking import ask
from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, NotChecked, ok, problem, warning
from app.bucket.doctor.identity import caller_identity
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.probe import probe_put
from app.bucket.doctor.reach import credentials_accepted
from app.bucket.doctor.refusals import explain_code
from app.bucket.policy import Policy, allows_everybody, opened_resources

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
    others = opened_resources(policy, "s3:GetObject")
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
    answer = ask(call, **arguments)
    return [name for name in _BLOCKS if answer and answer["PublicAccessBlockConfiguration"].get(name)]


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
    return json.loads(answer["Policy"]) if answer else None


def _is_open(patient: Patient, policy: Policy | None) -> bool:
    """Whether the policy lets everybody read the probe."""
    image = f"{_arn(patient)}/{patient.probe.key}"
    return allows_everybody(policy, "s3:GetObject", image)


def _public_acl_writes(patient: Patient) -> list[str]:
    answer = ask(patient.clients.s3.get_bucket_acl, Bucket=patient.bucket)
    grants: list[Any] = list(answer["Grants"]) if answer else []
    return [
        f"{grant['Permission']} by ACL"
        for grant in grants
        if grant["Grantee"].get("URI", "").startswith(_GROUPS)
        and grant["Permission"] not in ("READ", "READ_ACP")
    ]


def _arn(patient: Patient) -> str:
    return f"arn:{patient.clients.partition}:s3:::{patient.bucket}"
