"""Runs the checks one after the other, within bounded time."""

import queue
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Thread

from app.bucket.doctor.check import Check
from app.bucket.doctor.finding import Finding, NotChecked, Status, problem, skipped, unchecked
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.refusals import explain, is_explained, is_silence, words_of
from app.bucket.errors import surprise
from app.stores.s3.meanings import CHECK_NETWORK

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
            return unchecked(surprise(exc))
        return _silence(check, words_of(exc)) if is_silence(exc) else explain(exc)


def _silence(check: Check, text: str) -> Finding:
    """A problem where S3 was asked; where another service was, no more than a check that can't be made."""
    return skipped(f"can't be checked: {text}") if check.elsewhere else problem(text, CHECK_NETWORK)
