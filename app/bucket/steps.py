"""A step of a plan: one call that changes the bucket, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class Step:
    """A call to S3 that is still to be made.

    `parameters` are boto3's, but a bucket policy is the document itself. Without a `vital` step those
    behind it make no sense. `if_denied` tells why AWS may deny it apart from a missing permission.
    """

    title: str
    operation: str
    parameters: dict[str, Any]
    vital: bool = False
    if_denied: str = ""


class Outcome(StrEnum):
    """What became of a step."""

    DONE = "done"
    UNSUPPORTED = "not supported by this server"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Result:
    """A step with its outcome; `message` says what to do where it failed."""

    step: Step
    outcome: Outcome
    message: str = ""
