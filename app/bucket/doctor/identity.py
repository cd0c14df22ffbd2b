"""Who the credentials belong to, and whether the bucket belongs to them."""

from botocore.exceptions import ClientError

from app.bucket.doctor.asking import ask
from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.probe import probe_put
from app.bucket.doctor.reach import credentials_accepted
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
