"""What S3 does for a put besides storing it: refuse damaged bytes, and names that are taken."""

import base64
import hashlib
from typing import Any

from botocore.exceptions import ClientError

from app.bucket.doctor.asking import UNKNOWN_HERE
from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, NotChecked, ok, warning
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.probe import probe_put
from app.stores.s3.errors import DENIED, code_of

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
