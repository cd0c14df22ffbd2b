"""A small image is put, read, compared and deleted, through the store as the server itself does it."""

from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.reach import credentials_accepted
from app.bucket.doctor.refusals import explain, is_denial
from app.errors import AppError, NotFound, StoreRefused
from app.keys import cache_control

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
        if is_denial(exc) and patient.config.object_acl != "none":
            return problem(*_ACL_DENIED)
        return explain(exc)
    return ok(f"An image was stored as {probe.key}.")


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
