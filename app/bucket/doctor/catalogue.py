"""All checks, in the order in which they are made: causes before what follows from them."""

from app.bucket.doctor import (
    access,
    cachedir,
    identity,
    probe,
    reach,
    server,
    upkeep,
    urls,
    visitors,
    writing,
)
from app.bucket.doctor.check import Check, check
from app.bucket.doctor.finding import Finding, NotChecked, ok
from app.bucket.doctor.generator import GENERATOR_CHECKS
from app.bucket.doctor.patient import Patient


@check()
def store(patient: Patient) -> Finding:
    """Where images are kept; says so where checks of a bucket don't apply."""
    if patient.config.store != "s3":
        raise NotChecked(f"STORE={patient.config.store} is no bucket: checks of a bucket don't apply")
    return ok(f"Images are kept in the bucket {patient.bucket}.")


SERVER_CHECKS: tuple[Check, ...] = (
    server.api_keys,
    server.env_file_mode,
    server.setting_names,
    server.upload_limits,
    server.unguessable_keys,
    urls.https_urls,
    *GENERATOR_CHECKS,
    cachedir.cache_writable,
    cachedir.cache_local_disk,
    cachedir.cache_space,
    cachedir.cache_access_times,
    store,
)

PROBE_CHECKS: tuple[Check, ...] = (probe.probe_put, probe.probe_get, probe.probe_bytes, probe.content_type)

BUCKET_CHECKS: tuple[Check, ...] = (
    reach.credentials,
    reach.dotted_bucket,
    reach.s3_answers,
    reach.clock,
    reach.bucket_exists,
    reach.region,
    reach.credentials_accepted,
    reach.missing_or_forbidden,
    identity.caller_identity,
    identity.not_root,
    *PROBE_CHECKS,
    identity.bucket_owner,
    urls.url_format,
    access.object_ownership,
    access.block_public_access,
    access.account_public_access,
    access.bucket_policy,
    access.public_writes,
    visitors.anonymous_get,
    visitors.public_objects,
    visitors.image_url,
    visitors.anonymous_list,
    visitors.anonymous_put,
    writing.conditional_create,
    writing.checksums,
    upkeep.cors,
    upkeep.lifecycle,
    upkeep.encryption,
    upkeep.access_logs,
    probe.probe_delete,
)


def checks_for(kind: str) -> tuple[Check, ...]:
    """The checks that apply to `STORE=kind`; every store can put, get and delete."""
    if kind == "s3":
        return (*SERVER_CHECKS, *BUCKET_CHECKS)
    return (*SERVER_CHECKS, *PROBE_CHECKS, probe.probe_create, probe.probe_delete)
