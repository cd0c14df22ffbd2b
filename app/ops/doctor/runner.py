"""Run all checks in order, within a time limit."""

import queue
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Thread

from app.aws.errors import CHECK_NETWORK
from app.ops.bucket.errors import describe_unexpected
from app.ops.doctor import anonymous, bucket_settings, connection, permissions, probe, server
from app.ops.doctor.context import Check, CheckContext
from app.ops.doctor.findings import (
    Finding,
    NotChecked,
    Status,
    finding_for,
    is_expected,
    is_no_response,
    problem,
    safe_message,
    skipped,
)

TOTAL_SECONDS = 45.0
"""Time limit for all checks together. Afterwards, only checks that clean up are started.

A check that cleans up has the time limit of a single check, so the command takes less than a minute.
"""

CHECK_SECONDS = 12.0
"""Time limit of a single check."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The name of a check and its finding."""

    check: str
    finding: Finding


def run_checks(context: CheckContext, checks: Iterable[Check]) -> Iterator[CheckResult]:
    """Yield the result of each check as soon as the check is done. Skip checks that need a failed check."""
    deadline = time.monotonic() + TOTAL_SECONDS
    failed: dict[Check, str] = {}  # maps checks that did not pass to the check to fix first
    for check in checks:
        left = CHECK_SECONDS if check.cleans_up else min(CHECK_SECONDS, deadline - time.monotonic())
        if blocker := next((failed[need] for need in check.needs if need in failed), ""):
            finding = skipped(f"not checked: {blocker} must pass first")
            failed[check] = blocker
        elif left <= 0:
            finding = skipped(f"not checked: the time limit of {TOTAL_SECONDS:.0f} seconds was reached")
            failed[check] = check.name
        else:
            finding = _run_with_timeout(check, context, left)
            if finding.blocks_dependents or (check.is_remote and finding.status is Status.SKIPPED):
                failed[check] = check.name
        yield CheckResult(check.name, finding)


def _run_with_timeout(check: Check, context: CheckContext, seconds: float) -> Finding:
    """Run the check in a thread. After the timeout the thread is abandoned, and ends with the process."""
    found: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    name = f"doctor {check.name}"
    Thread(target=lambda: found.put(_run(check, context)), daemon=True, name=name).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return _no_response(check, f"No response within {seconds:.0f} seconds.")


def _run(check: Check, context: CheckContext) -> Finding:
    """Run the check and return its finding. An exception becomes a finding too, so other checks still run."""
    try:
        return check.run(context)
    except NotChecked as exc:
        return skipped(str(exc))
    except Exception as exc:
        if not is_expected(exc):
            text = f"can't be checked: unexpected error {describe_unexpected(exc)}"
            return Finding(Status.SKIPPED, text, blocks_dependents=True)
        return _no_response(check, safe_message(exc)) if is_no_response(exc) else finding_for(exc)


def _no_response(check: Check, text: str) -> Finding:
    return skipped(f"can't be checked: {text}") if check.is_remote else problem(text, CHECK_NETWORK)


SERVER_CHECKS: tuple[Check, ...] = (
    server.api_keys,
    server.env_file_mode,
    server.setting_names,
    server.upload_limits,
    server.https_urls,
    server.generator,
    server.generator_model,
    server.cache_writable,
    server.cache_local_disk,
    server.cache_space,
    server.cache_access_times,
    server.store,
)

PROBE_CHECKS: tuple[Check, ...] = (probe.probe_put, probe.probe_get, probe.probe_bytes, probe.content_type)

BUCKET_CHECKS: tuple[Check, ...] = (
    connection.credentials,
    connection.dotted_bucket,
    connection.s3_answers,
    connection.clock,
    connection.bucket_exists,
    connection.region,
    connection.credentials_accepted,
    connection.missing_or_forbidden,
    permissions.caller_identity,
    permissions.not_root,
    *PROBE_CHECKS,
    permissions.bucket_owner,
    connection.url_format,
    permissions.object_ownership,
    permissions.block_public_access,
    permissions.account_public_access,
    permissions.bucket_policy,
    permissions.public_writes,
    anonymous.anonymous_get,
    anonymous.public_objects,
    anonymous.image_url,
    anonymous.anonymous_list,
    anonymous.anonymous_put,
    probe.conditional_create,
    probe.checksums,
    bucket_settings.cors,
    bucket_settings.lifecycle,
    bucket_settings.encryption,
    bucket_settings.access_logs,
    probe.probe_delete,
)


def checks_for(store: str) -> tuple[Check, ...]:
    """Return the checks for a value of `STORE`. The causes of problems are checked before their effects."""
    if store == "s3":
        return (*SERVER_CHECKS, *BUCKET_CHECKS)
    return (*SERVER_CHECKS, *PROBE_CHECKS, probe.probe_create, probe.probe_delete)
