"""Carrying out a plan, step by step, with patience for what S3 takes a while to notice."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from botocore import xform_name

from app.bucket.clients import AwsClients
from app.bucket.errors import BucketError, CallDenied, CallUnsupported, errors_mapped
from app.bucket.steps import Outcome, Result, Step

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries of a call that S3 is not ready for."""


def carry_out(clients: AwsClients, steps: Iterable[Step]) -> Iterator[Result]:
    """Make each call and tell what became of it, as it goes.

    A step that fails does not keep the others from being tried, unless it is vital.
    """
    done: set[str] = set()
    halted = False
    for step in steps:
        result = Result(step, Outcome.NOT_TRIED) if halted else _attempt(clients, step, done)
        if result.outcome is Outcome.DONE:
            done.add(step.operation)
        halted = halted or (step.vital and result.outcome is Outcome.FAILED)
        yield result


def _attempt(clients: AwsClients, step: Step, done: set[str]) -> Result:
    try:
        _call_patiently(clients, step, done)
    except CallUnsupported:
        return Result(step, Outcome.UNSUPPORTED)
    except CallDenied as exc:
        return Result(step, Outcome.FAILED, f"{exc.message} {step.if_denied}".rstrip())
    except BucketError as exc:
        if exc.aws_code != "BucketAlreadyOwnedByYou":
            return Result(step, Outcome.FAILED, exc.message)
    return Result(step, Outcome.DONE)


def _call_patiently(clients: AwsClients, step: Step, done: set[str]) -> None:
    for wait in WAITS:
        try:
            return _call(clients, step)
        except BucketError as exc:
            if not _passes(exc, step, done):
                raise
        time.sleep(wait)
    return _call(clients, step)


def _call(clients: AwsClients, step: Step) -> None:
    parameters: dict[str, Any] = dict(step.parameters)
    if "Policy" in parameters:
        parameters["Policy"] = json.dumps(parameters["Policy"])
    with errors_mapped(step.operation):
        getattr(clients.s3, xform_name(step.operation))(**parameters)


def _passes(exc: BucketError, step: Step, done: set[str]) -> bool:
    """Whether a refusal goes away by itself: a change is under way, or ours is not known everywhere yet."""
    if isinstance(exc, CallDenied):
        return step.operation == "PutBucketPolicy" and "PutPublicAccessBlock" in done
    return exc.aws_code == "OperationAborted" or (exc.aws_code == "NoSuchBucket" and "CreateBucket" in done)
