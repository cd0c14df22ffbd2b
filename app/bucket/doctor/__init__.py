"""Examines settings, bucket and cache: what `flask bucket doctor` runs.

A check is a function of a `Patient` that gives a `Finding`; `catalogue` lists them all, `docs/doctor.md` too.
"""

from app.bucket.doctor.catalogue import checks_for
from app.bucket.doctor.examination import Result, examine
from app.bucket.doctor.finding import Finding, Status
from app.bucket.doctor.patient import Patient

__all__ = ["Finding", "Patient", "Result", "Status", "checks_for", "examine"]
