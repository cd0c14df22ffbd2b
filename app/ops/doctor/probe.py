"""What S3 does for a put besides storing it: refuse damaged bytes, and names that are taken.

A small image is put, read, compared and deleted, through the store as the server itself does it.
"""

import base64
import hashlib
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from app.core.errors import AppError, NotFound, StoreRefused
from app.core.object_keys import cache_control
from app.ops.bucket.errors import says_unsupported
from app.ops.bucket.plan import BLOCK_PUBLIC_ACLS
from app.ops.doctor.findings import (
    UNKNOWN_HERE,
    Finding,
    NotChecked,
    ask,
    explain,
    is_denial,
    ok,
    problem,
    warning,
)
from app.ops.doctor.patient import Patient, check
from app.ops.doctor.reach import credentials_accepted
from app.stores.s3.errors import DENIED, NO_ENCRYPTION, code_of, status_of

_ACL_DENIED = (
    "S3 denies the put: s3:PutObject is missing or, as it carries an ACL, s3:PutObjectAcl; "
    "or Block Public Access refuses the ACL, or the bucket is somebody else's.",
    "flask bucket iam-policy; flask bucket setup --mode public; or S3_ACL=none for a private bucket",
)


@check(credentials_accepted)
def probe_put(patient: Patient) -> Finding:
    """What every upload needs."""
    probe = patient.probe
    try:
        caching = cache_control(immutable=False)
        patient.store.put(probe.key, probe.data, content_type=probe.content_type, cache_control=caching)
    except AppError as exc:
        if is_denial(exc):
            return _denied(patient, exc)
        if _refuses_encryption(patient, exc):
            return problem(*NO_ENCRYPTION)
        return explain(exc)
    return ok(f"An image was stored as {probe.key}.")


def _denied(patient: Patient, exc: AppError) -> Finding:
    """A denial by Block Public Access has no code of its own: look whether that is on."""
    sends_no_acl = patient.config.object_acl == "none"
    found = explain(exc) if sends_no_acl else problem(*_ACL_DENIED)
    if (patient.is_aws and sends_no_acl) or not _blocks_acls(patient):
        return found
    if patient.is_aws:
        mended = "BlockPublicAcls is on for the bucket, which denies puts with an ACL: set S3_ACL=none"
    else:
        mended = (
            "BlockPublicAcls is on for the bucket, under which Ceph RGW denies every put (mended in 2025): "
            f"flask bucket setup --mode {patient.mode} lifts it"
        )
    return replace(found, fix=f"{mended}. If that is not the reason: {found.fix}")


def _blocks_acls(patient: Patient) -> bool:
    """Whether `BlockPublicAcls` is on, as far as that can be found out."""
    try:
        answer: Any = ask(patient.clients.s3.get_public_access_block, Bucket=patient.bucket) or {}
    except (NotChecked, BotoCoreError, ClientError):
        return False
    return bool(answer.get("PublicAccessBlockConfiguration", {}).get(BLOCK_PUBLIC_ACLS))


def _refuses_encryption(patient: Patient, exc: AppError) -> bool:
    """Whether a put with encryption is refused as one that the server does not understand."""
    cause = exc.__cause__
    return patient.config.s3_sse != "none" and (
        isinstance(cause, ClientError) and says_unsupported(status_of(cause), code_of(cause))
    )


@check(probe_put)
def probe_create(patient: Patient) -> Finding:
    """What an upload without a name needs besides: a put that creates its object and never replaces one."""
    probe = patient.probe
    key = probe.key.replace("probe-", "probe-new-")
    try:
        patient.store.put(key, probe.data, content_type=probe.content_type, overwrite=False)
        again = patient.store.put(key, probe.data, content_type=probe.content_type, overwrite=False)
        patient.store.delete(key)
    except AppError as exc:
        return explain(exc)
    if again.created:
        return problem(
            "A put that must not overwrite replaces what is there.",
            "Make the store's put return created=False then, as tests/contracts.py describes",
        )
    return ok("A put that must not overwrite leaves what is there.")


@check(probe_put)
def probe_get(patient: Patient) -> Finding:
    """What every miss needs."""
    probe = patient.probe
    try:
        stored = patient.store.get(probe.key)
        assert stored is not None  # only a conditional get gives None
        with stored:
            probe.came_back, probe.came_back_as = stored.body.read(), stored.facts.content_type
    except NotFound:
        return problem("The image just stored is not there.", "Allow s3:GetObject: flask bucket iam-policy")
    except AppError as exc:
        return explain(exc)
    return ok("It can be read.")


@check(probe_get)
def probe_bytes(patient: Patient) -> Finding:
    """Some compatible servers store checksum trailers inside the file."""
    sent, back = patient.probe.data, patient.probe.came_back
    if sent == back:
        return ok("The bytes are those that were sent.")
    return problem(
        f"{len(sent)} bytes were sent, {len(back)} others came back.",
        "Update the server behind AWS_ENDPOINT_URL_S3, or whatever stands before it and changes bodies",
    )


@check(probe_get)
def content_type(patient: Patient) -> Finding:
    """Browsers show as an image what is marked as one."""
    back = patient.probe.came_back_as
    if back == patient.probe.content_type:
        return ok(f"The type {back} is kept.")
    return problem(
        f"The type {patient.probe.content_type} comes back as {back or 'none'}.",
        "Use a server behind AWS_ENDPOINT_URL_S3 that keeps Content-Type",
    )


@check(probe_put, tidies_up=True)
def probe_delete(patient: Patient) -> Finding:
    """What deleting needs; and nothing is to stay behind."""
    try:
        patient.store.delete(patient.probe.key)
    except StoreRefused as exc:
        if not is_denial(exc):
            return explain(exc)
        return warning(
            f"Images can't be deleted without s3:DeleteObject: {patient.probe.key} stays.",
            "flask bucket iam-policy; or let such objects expire: "
            f"flask bucket setup --mode {patient.mode} --expire doctor/=1",
        )
    return ok("The image was deleted again.")


_REFUSED = {"BadDigest", "InvalidDigest", "InvalidRequest", "XAmzContentChecksumMismatch", "400"}
_UPDATE = "Update the server behind AWS_ENDPOINT_URL_S3"


@check(probe_put)
def checksums(patient: Patient) -> Finding:
    """The bytes of the probe again, with a checksum that is wrong: as if they had changed on the way."""
    answer = _put(patient, **_wrong_checksum(patient))
    if answer in _REFUSED:
        return ok("Bytes that changed on the way are refused.")
    return warning(
        f"Bytes that changed on the way are not noticed ({answer or 'the put succeeds'}).", _UPDATE
    )


@check(probe_put)
def conditional_create(patient: Patient) -> Finding:
    """`If-None-Match: *` on a key that is taken."""
    answer = _put(patient, IfNoneMatch="*")
    if answer == "PreconditionFailed":
        return ok("A put that must not overwrite is refused where the key is taken.")
    return warning(
        f"If-None-Match has no effect ({answer or 'the put succeeds'}): of two uploads at once with "
        "overwrite=false both may succeed.",
        _UPDATE,
    )


def _wrong_checksum(patient: Patient) -> dict[str, str]:
    """Of the kind that the store sends: SHA-256 to AWS, MD5 to other servers."""
    if patient.is_aws:
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(b"other").digest()).decode()}
    return {"ContentMD5": base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()}


def _put(patient: Patient, **condition: Any) -> str:
    """The error code, empty where the put succeeds."""
    probe = patient.probe
    try:
        patient.clients.s3.put_object(
            Bucket=patient.bucket,
            Key=probe.key,
            Body=probe.data,
            ContentType=probe.content_type,
            **condition,
        )
    except ClientError as exc:
        code = code_of(exc)
        if code in DENIED:
            raise NotChecked("can't be checked: needs s3:PutObject") from exc
        if code in UNKNOWN_HERE or code in _REFUSED or code == "PreconditionFailed":
            return code
        raise
    return ""
