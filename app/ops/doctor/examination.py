"""Runs the checks one after the other, within bounded time.

All checks, in the order in which they are made: causes before what follows from them.

Examines settings, bucket and cache: what `flask bucket doctor` runs.

A check is a function of a `Patient` that gives a `Finding`; `catalogue` lists them all, `docs/doctor.md` too.
"""

import queue
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Thread

from app.ops.bucket.errors import describe_unexpected
from app.ops.doctor import access, probe, reach, server, upkeep, visitors
from app.ops.doctor import access as identity
from app.ops.doctor import probe as writing
from app.ops.doctor import server as cachedir
from app.ops.doctor import visitors as urls
from app.ops.doctor.findings import (
    Finding,
    NotChecked,
    Status,
    explain,
    is_explained,
    is_silence,
    ok,
    problem,
    skipped,
    unchecked,
    words_of,
)
from app.ops.doctor.patient import Check, Patient
from app.ops.doctor.patient import check as as_check
from app.ops.doctor.server import GENERATOR_CHECKS
from app.stores.s3.errors import CHECK_NETWORK

TOTAL_SECONDS = 45.0
"""After this only what tidies up is begun; together with the last check's own time that is below a minute."""

CHECK_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Result:
    """A check's name and what it found."""

    check: str
    finding: Finding


def examine(patient: Patient, checks: Iterable[Check]) -> Iterator[Result]:
    """Give each check's result as soon as it is there; checks whose needs failed are skipped."""
    ends = time.monotonic() + TOTAL_SECONDS
    blocking: dict[Check, str] = {}
    for check in checks:
        left = CHECK_SECONDS if check.tidies_up else min(CHECK_SECONDS, ends - time.monotonic())
        hindered = next((blocking[need] for need in check.needs if need in blocking), "")
        if hindered:
            finding = skipped(f"not checked: {hindered} comes first")
            blocking[check] = hindered
        elif left <= 0:
            finding = skipped(f"not checked: {TOTAL_SECONDS:.0f} seconds are used up")
            blocking[check] = check.name
        else:
            finding = _within(left, check, patient)
            if finding.hinders or (check.elsewhere and finding.status is Status.SKIPPED):
                blocking[check] = check.name
        yield Result(check.name, finding)


def _within(seconds: float, check: Check, patient: Patient) -> Finding:
    """The finding, or that there was none in time. A thread that hangs ends with the process."""
    found: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    Thread(target=lambda: found.put(_run(check, patient)), daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return _silence(check, f"No answer within {seconds:.0f} seconds.")


def _run(check: Check, patient: Patient) -> Finding:
    try:
        return check.examine(patient)
    except NotChecked as exc:
        return skipped(str(exc))
    except Exception as exc:  # one check that fails must not keep the others from being seen
        if not is_explained(exc):
            return unchecked(describe_unexpected(exc))
        return _silence(check, words_of(exc)) if is_silence(exc) else explain(exc)


def _silence(check: Check, text: str) -> Finding:
    """A problem where S3 was asked; where another service was, no more than a check that can't be made."""
    return skipped(f"can't be checked: {text}") if check.elsewhere else problem(text, CHECK_NETWORK)


@as_check()
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
