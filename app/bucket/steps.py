"""A step of a plan: one call that changes the bucket, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class Step:
    """A call to S3 that is still to be made.

    `parameters` are boto3's, but a bucket policy is the document itself. If a `vital` step fails, those
    after it are not tried. An `optional` one is skipped if a compatible server does not support it, and
    `fallback` may be tried instead; all others must succeed. `if_denied` says why AWS may deny the call apart
    from a missing permission.
    """

    title: str
    operation: str
    parameters: dict[str, Any]
    vital: bool = False
    optional: bool = True
    if_denied: str = ""
    fallback: "Step | None" = None


class Outcome(StrEnum):
    """What became of a step."""

    DONE = "done"
    UNSUPPORTED = "not supported by this server"
    REVERTED = "undone, since uploads failed after it"
    FAILED = "failed"
    WARNING = "warning"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Result:
    """A step with its outcome; `message` says why it did not succeed, and what to do.

    `calls_for_less` says that the step's fallback may succeed.
    """

    step: Step
    outcome: Outcome
    message: str = ""
    calls_for_less: bool = False
