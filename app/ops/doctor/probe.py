"""Checks with a small image: put, read, compared and deleted through the store, as the server does it.

Puts through boto3 then show whether S3 refuses damaged bytes and keys that are taken.
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
    explain,
    is_denial,
    ok,
    problem,
    query,
    warning,
)
from app.stores.s3.errors import DENIED, NO_ENCRYPTION, code_of, status_of


@check(credentials_accepted)
def probe_put(context: CheckContext) -> Finding:
    """Every upload needs to put an object."""
    probe = context.probe
    try:
        caching = cache_control(immutable=False)
        context.store.put(probe.key, probe.data, content_type=probe.content_type, cache_control=caching)
    except AppError as exc:
        if is_denial(exc):
            return _explain_denied_put(context, exc)
        cause = exc.__cause__
        if (
            context.config.s3_sse != "none"
            and isinstance(cause, ClientError)
            and says_unsupported(status_of(cause), code_of(cause))
        ):
            return problem(*NO_ENCRYPTION)
        return explain(exc)
    return ok(f"An image was stored as {probe.key}.")


_DENIED_PUT_WITH_ACL = (
    "S3 denies the put: s3:PutObject is missing or, since it carries an ACL, s3:PutObjectAcl; "
    "or Block Public Access refuses the ACL, or the bucket belongs to another account.",
    "flask bucket iam-policy; flask bucket setup --mode public; or S3_ACL=none for a private bucket",
)


def _explain_denied_put(context: CheckContext, exc: AppError) -> Finding:
    """Return the problem. A denial by Block Public Access has no code of its own, so look at that setting."""
    sends_acl = context.config.object_acl != "none"
    finding = problem(*_DENIED_PUT_WITH_ACL) if sends_acl else explain(exc)
    if (context.is_aws and not sends_acl) or not _are_public_acls_blocked(context):
        return finding
    if context.is_aws:
        fix = "BlockPublicAcls is on for the bucket, which denies puts with an ACL: set S3_ACL=none"
    else:
        fix = (
            "BlockPublicAcls is on for the bucket, with which Ceph RGW denies every put (fixed in 2025): "
            f"flask bucket setup --mode {context.mode} turns it off"
        )
    return replace(finding, fix=f"{fix}. If that is not the reason: {finding.fix}")


def _are_public_acls_blocked(context: CheckContext) -> bool:
    """Return whether `BlockPublicAcls` is on. If that can't be found out, assume not."""
    try:
        response: Any = query(context.clients.s3.get_public_access_block, Bucket=context.bucket) or {}
    except (NotChecked, BotoCoreError, ClientError):
        return False
    return bool(response.get("PublicAccessBlockConfiguration", {}).get(BLOCK_PUBLIC_ACLS))


@check(probe_put)
def probe_create(context: CheckContext) -> Finding:
    """An upload without a name needs a put that creates an object and never replaces one."""
    probe = context.probe
    key = probe.key.replace("probe-", "probe-new-")
    try:
        context.store.put(key, probe.data, content_type=probe.content_type, overwrite=False)
        again = context.store.put(key, probe.data, content_type=probe.content_type, overwrite=False)
        context.store.delete(key)
    except AppError as exc:
        return explain(exc)
    if again.created:
        return problem(
            "A put with overwrite=False replaces an existing object.",
            "Make the store's put return created=False instead, as tests/contracts.py describes",
        )
    return ok("A put with overwrite=False keeps an existing object.")


@check(probe_put)
def probe_get(context: CheckContext) -> Finding:
    """Every cache miss needs to read an object."""
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
        return explain(exc)
    return ok("The image can be read.")


@check(probe_get)
def probe_bytes(context: CheckContext) -> Finding:
    """Some compatible servers store checksum trailers inside the object."""
    sent, returned = context.probe.data, context.probe.returned_data
    if sent == returned:
        return ok("The bytes that come back are those that were sent.")
    return problem(
        f"{len(sent)} bytes were sent, {len(returned)} different bytes came back.",
        "Update the server at AWS_ENDPOINT_URL_S3, or the proxy in front of it that changes bodies",
    )


@check(probe_get)
def content_type(context: CheckContext) -> Finding:
    """Browsers show only what is marked as an image."""
    returned = context.probe.returned_content_type
    if returned == context.probe.content_type:
        return ok(f"The type {returned} is kept.")
    return problem(
        f"The type {context.probe.content_type} comes back as {returned or 'none'}.",
        "Use a server at AWS_ENDPOINT_URL_S3 that keeps Content-Type",
    )


@check(probe_put, cleans_up=True)
def probe_delete(context: CheckContext) -> Finding:
    """Deleting an image needs a permission. This also removes the probe."""
    try:
        context.store.delete(context.probe.key)
    except StoreRefused as exc:
        if not is_denial(exc):
            return explain(exc)
        return warning(
            f"Images can't be deleted without s3:DeleteObject: {context.probe.key} stays.",
            "flask bucket iam-policy; or let such objects expire: "
            f"flask bucket setup --mode {context.mode} --expire doctor/=1",
        )
    return ok("The image was deleted again.")


_BAD_CHECKSUM_CODES = {"BadDigest", "InvalidDigest", "InvalidRequest", "XAmzContentChecksumMismatch", "400"}
_UPDATE_SERVER = "Update the server at AWS_ENDPOINT_URL_S3"


@check(probe_put)
def checksums(context: CheckContext) -> Finding:
    """A put with a wrong checksum, as if its bytes had changed on the way, must be refused."""
    code = _put_again(context, **_wrong_checksum(context))
    if code in _BAD_CHECKSUM_CODES:
        return ok("Bytes that changed on the way are refused.")
    return warning(
        f"Bytes that changed on the way are not detected ({code or 'the put succeeds'}).", _UPDATE_SERVER
    )


def _wrong_checksum(context: CheckContext) -> dict[str, str]:
    """Return a checksum of the kind that the store sends: SHA-256 to AWS, MD5 to other servers."""
    if context.is_aws:
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(b"other").digest()).decode()}
    return {"ContentMD5": base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()}


@check(probe_put)
def conditional_create(context: CheckContext) -> Finding:
    """A put with `If-None-Match: *` on an existing key must be refused."""
    code = _put_again(context, IfNoneMatch="*")
    if code == "PreconditionFailed":
        return ok("A put with If-None-Match is refused if the key exists.")
    return warning(
        f"If-None-Match has no effect ({code or 'the put succeeds'}): of two simultaneous uploads with "
        "overwrite=false both may succeed.",
        _UPDATE_SERVER,
    )


def _put_again(context: CheckContext, **parameters: Any) -> str:
    """Put the probe with boto3. Return the error code, "" if the put succeeds."""
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
