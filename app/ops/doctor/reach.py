"""Is there a bucket at all: credentials, connection, name, region, clock, TLS."""

from datetime import UTC, datetime

from app.aws.credentials import CheckedCredentials
from app.aws.session import new_session
from app.ops.doctor.findings import Finding, NotChecked, explain_code, ok, problem, warning
from app.ops.doctor.patient import Patient, check
from app.stores.s3.errors import DENIED, MEANINGS, MISSING, SET_CREDENTIALS

_SKEW_SECONDS = 15 * 60
"""S3 refuses requests that are further off (`RequestTimeTooSkewed`)."""

_DRIFT_SECONDS = 60

_LOOK_BEFORE_S3 = "Look at what stands before S3, or answers in its place"


@check()
def credentials(patient: Patient) -> Finding:
    """boto3 finds some; the finding says where, and never what."""
    found = new_session().get_credentials()
    if found is None:
        return problem("boto3 finds no credentials.", SET_CREDENTIALS)
    frozen = CheckedCredentials(found).get_frozen_credentials()
    return ok(f"{'Temporary' if frozen.token else 'Lasting'} ones, from {found.method}.")


@check()
def dotted_bucket(patient: Patient) -> Finding:
    """S3's certificate covers one label before `s3`: a dotted name does not fit there."""
    if "." in patient.bucket and patient.config.s3_addressing_style == "virtual":
        return problem(
            "TLS fails for a bucket with dots in its name under S3_ADDRESSING_STYLE=virtual.",
            "Set S3_ADDRESSING_STYLE=auto or path",
        )
    return ok("TLS can be used with this bucket's name.")


@check(credentials, dotted_bucket)
def s3_answers(patient: Patient) -> Finding:
    """Any answer to HeadBucket, a refusal too, shows that S3 is there."""
    status = patient.head.status
    if status >= 500:
        return explain_code(str(status))
    return ok(f"{patient.clients.s3.meta.endpoint_url} answers.")


@check(s3_answers)
def clock(patient: Patient) -> Finding:
    """Signatures carry the time, and S3 refuses those that are too far off."""
    if patient.head.date is None:
        raise NotChecked("can't be checked: the server sends no date")
    off = abs((datetime.now(UTC) - patient.head.date).total_seconds())
    if off < _DRIFT_SECONDS:
        return ok("This machine and S3 agree about the time.")
    finding = problem if off >= _SKEW_SECONDS else warning
    return finding(f"This machine's clock is {off:,.0f} s off.", MEANINGS["RequestTimeTooSkewed"].fix)


@check(s3_answers)
def bucket_exists(patient: Patient) -> Finding:
    """S3 knows the name; whether it is ours is `bucket-owner`."""
    if patient.head.status == 404:
        return problem(f"There is no bucket {patient.bucket}.", MEANINGS["NoSuchBucket"].fix)
    if patient.head.status == 400:
        raise NotChecked("can't be checked: S3 answers 400, credentials-accepted says why")
    return ok(f"There is a bucket {patient.bucket}.")


@check(bucket_exists)
def region(patient: Patient) -> Finding:
    """HeadBucket tells the region whatever the permissions are; URLs carry ours."""
    found = patient.head.region or patient.region_named
    if not found:
        raise NotChecked("can't be checked: the server names no region")
    if found != patient.clients.region:
        return problem(
            f"The bucket lies in {found}, the server looks for it in {patient.clients.region}.",
            f"Set AWS_REGION={found}",
        )
    return ok(f"The bucket lies in {found}.")


@check(bucket_exists, region)
def credentials_accepted(patient: Patient) -> Finding:
    """A signed request is answered by yes or no, not by a complaint about who asks."""
    code = patient.answer_to_missing
    if code in MEANINGS:
        return explain_code(code)
    if code.isdecimal() and code not in MISSING | DENIED:
        return problem(f"{code} without a code is no answer of S3's.", _LOOK_BEFORE_S3)
    return ok("S3 accepts the credentials.")


@check(credentials_accepted)
def missing_or_forbidden(patient: Patient) -> Finding:
    """Without s3:ListBucket, S3 answers 403 where there is no object."""
    code = patient.answer_to_missing
    if code in MISSING:
        return ok("A missing image is answered by 404.")
    if code in DENIED:
        return warning(
            "A missing image is answered by 403, like a forbidden one, and images can't be listed.",
            "Allow s3:ListBucket on the bucket: flask bucket iam-policy",
        )
    return problem(f"A missing image is answered by {code or 'an object'}.", _LOOK_BEFORE_S3)
