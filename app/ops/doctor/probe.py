"""Checks that put, read, compare and delete a small image, the probe. They use the store, as the server does.

Two more checks put the probe with boto3, to find out whether S3 refuses bytes that don't match their
checksum, and conditional puts to existing keys.
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
from app.ops.doctor.connection import credentials_accepted
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import (
    UNSUPPORTED_CODES,
    Finding,
    NotChecked,
    finding_for,
    is_denial,
    ok,
    problem,
    query,
    warning,
)
from app.stores.s3.errors import DENIED, NO_ENCRYPTION, code_of, status_of


@check(credentials_accepted)
def probe_put(context: CheckContext) -> Finding:
    """Uploads need permission to put objects."""
    probe = context.probe
    try:
        caching = cache_control(immutable=False)
        context.store.put(probe.key, probe.data, content_type=probe.content_type, cache_control=caching)
    except AppError as exc:
        if is_denial(exc):
            return _finding_for_denied_put(context, exc)
        cause = exc.__cause__
        if (
            context.config.s3_sse != "none"
            and isinstance(cause, ClientError)
            and says_unsupported(status_of(cause), code_of(cause))
        ):
            return problem(*NO_ENCRYPTION)
        return finding_for(exc)
    return ok(f"An image was stored as {probe.key}.")


_DENIED_PUT_WITH_ACL = (
    "S3 denies the put. Either s3:PutObject is missing or, since the put has an ACL, s3:PutObjectAcl; or "
    "Block Public Access refuses the ACL; or the bucket belongs to a different account.",
    "flask bucket iam-policy; flask bucket setup --mode public; or S3_ACL=none for a private bucket",
)


def _finding_for_denied_put(context: CheckContext, exc: AppError) -> Finding:
    """Return the problem for a denied put, with its fix.

    If Block Public Access is the reason, the error code doesn't say so. So this function reads that setting.
    """
    sends_acl = context.config.object_acl != "none"
    finding = problem(*_DENIED_PUT_WITH_ACL) if sends_acl else finding_for(exc)
    if (context.is_aws and not sends_acl) or not _are_public_acls_blocked(context):
        return finding
    if context.is_aws:
        fix = "Set S3_ACL=none, since BlockPublicAcls is on for the bucket, so S3 denies puts with an ACL"
    else:
        fix = (
            f"Run flask bucket setup --mode {context.mode} to turn BlockPublicAcls off for the bucket, with "
            "which Ceph RGW denies every put (fixed in 2025)"
        )
    return replace(finding, fix=f"{fix}. If that is not the reason: {finding.fix}")


def _are_public_acls_blocked(context: CheckContext) -> bool:
    """Return whether `BlockPublicAcls` is on, or False if the setting can't be read."""
    try:
        response: Any = query(context.clients.s3.get_public_access_block, Bucket=context.bucket) or {}
    except (NotChecked, BotoCoreError, ClientError):
        return False
    return bool(response.get("PublicAccessBlockConfiguration", {}).get(BLOCK_PUBLIC_ACLS))


@check(probe_put)
def probe_create(context: CheckContext) -> Finding:
    """A put with `overwrite=False` must create a new object, and must never replace an existing object.

    Uploads without a name rely on this.
    """
    probe = context.probe
    key = probe.key.replace("probe-", "probe-new-")
    try:
        context.store.put(key, probe.data, content_type=probe.content_type, overwrite=False)
        again = context.store.put(key, probe.data, content_type=probe.content_type, overwrite=False)
        context.store.delete(key)
    except AppError as exc:
        return finding_for(exc)
    if again.created:
        return problem(
            "A put with overwrite=False replaces an existing object.",
            "Make the store's put return created=False instead, as tests/contracts.py describes",
        )
    return ok("A put with overwrite=False keeps an existing object.")


@check(probe_put)
def probe_get(context: CheckContext) -> Finding:
    """Cache misses need permission to read objects."""
    probe = context.probe
    try:
        stored = context.store.get(probe.key)
        assert stored is not None  # only a conditional get returns None
        with stored:
            probe.returned_data = stored.body.read()
            probe.returned_content_type = stored.facts.content_type
    except NotFound:
        return problem(
            "The image that was just stored is missing.", "Allow s3:GetObject: flask bucket iam-policy"
        )
    except AppError as exc:
        return finding_for(exc)
    return ok("The image can be read.")


@check(probe_get)
def probe_bytes(context: CheckContext) -> Finding:
    """The store must return the bytes that were put. Some servers add checksum trailers to the object."""
    sent, returned = context.probe.data, context.probe.returned_data
    if sent == returned:
        return ok("The store returns the bytes that were put.")
    return problem(
        f"{len(sent)} bytes were put, but the store returns {len(returned)} different bytes.",
        "Update the server at AWS_ENDPOINT_URL_S3, or the proxy in front of it that changes bodies",
    )


@check(probe_get)
def content_type(context: CheckContext) -> Finding:
    """The store must return the type that was put, since browsers show only objects with an image type."""
    returned = context.probe.returned_content_type
    if returned == context.probe.content_type:
        return ok(f"The store returns the type that was put, {returned}.")
    return problem(
        f"The type {context.probe.content_type} was put, but the store returns {returned or 'no type'}.",
        "Use a server at AWS_ENDPOINT_URL_S3 that keeps Content-Type",
    )


@check(probe_put, cleans_up=True)
def probe_delete(context: CheckContext) -> Finding:
    """Deletions need permission to delete objects. This check also removes the probe."""
    try:
        context.store.delete(context.probe.key)
    except StoreRefused as exc:
        if not is_denial(exc):
            return finding_for(exc)
        return warning(
            f"Images can't be deleted without s3:DeleteObject: {context.probe.key} is left in the bucket.",
            "Allow s3:DeleteObject: flask bucket iam-policy; or let such objects expire: "
            f"flask bucket setup --mode {context.mode} --expire doctor/=1",
        )
    return ok("The image was deleted again.")


_BAD_CHECKSUM_CODES = {"BadDigest", "InvalidDigest", "InvalidRequest", "XAmzContentChecksumMismatch", "400"}
_UPDATE_SERVER = "Update the server at AWS_ENDPOINT_URL_S3"


@check(probe_put)
def checksums(context: CheckContext) -> Finding:
    """S3 should refuse a put with a wrong checksum, since its bytes may have been damaged in transit."""
    code = _put_again(context, **_wrong_checksum(context))
    if code in _BAD_CHECKSUM_CODES:
        return ok("Puts whose bytes are damaged in transit are refused.")
    return warning(
        f"Bytes that are damaged in transit are not detected ({code or 'the put succeeds'}).", _UPDATE_SERVER
    )


def _wrong_checksum(context: CheckContext) -> dict[str, str]:
    """Return a parameter for `put_object` that contains a wrong checksum.

    The algorithm is the one that the store uses: SHA-256 for AWS, MD5 for other servers.
    """
    if context.is_aws:
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(b"other").digest()).decode()}
    return {"ContentMD5": base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()}


@check(probe_put)
def conditional_create(context: CheckContext) -> Finding:
    """S3 should refuse a put with `If-None-Match: *` if the key exists."""
    code = _put_again(context, IfNoneMatch="*")
    if code == "PreconditionFailed":
        return ok("Puts with If-None-Match are refused if the key exists.")
    return warning(
        f"If-None-Match has no effect ({code or 'the put succeeds'}), so two simultaneous uploads with "
        "overwrite=false may both succeed.",
        _UPDATE_SERVER,
    )


def _put_again(context: CheckContext, **parameters: Any) -> str:
    """Put the probe with boto3 and these parameters. Return the error code, or "" if the put succeeds."""
    probe = context.probe
    try:
        context.clients.s3.put_object(
            Bucket=context.bucket,
            Key=probe.key,
            Body=probe.data,
            ContentType=probe.content_type,
            **parameters,
        )
    except ClientError as exc:
        code = code_of(exc)
        if code in DENIED:
            raise NotChecked("can't be checked: needs s3:PutObject") from exc
        if code in UNSUPPORTED_CODES | _BAD_CHECKSUM_CODES or code == "PreconditionFailed":
            return code
        raise
    return ""
