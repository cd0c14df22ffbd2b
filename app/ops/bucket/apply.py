"""Carry out the steps of a plan.

A call is retried if S3 is not ready for it yet. On compatible servers, the effect of each optional step is
checked. A setting that the server does not support, or accepts without any effect, is reported as
unsupported. If the server refuses uploads after a step, the step is undone.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore import xform_name

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import (
    UNRELATED_RESPONSE,
    BucketError,
    CallDenied,
    CallUnsupported,
    errors_mapped,
    says_unsupported,
)
from app.ops.bucket.plan import ACL_BLOCKS, POLICY_BLOCKS, Step
from app.ops.bucket.state import S3Response, read_setting, try_upload

RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0)

_BAD_REQUEST = 400
"""The status that a server returns if it supports the setting, but not all of its elements."""

_BLOCK_NOTHING = dict.fromkeys((*ACL_BLOCKS, *POLICY_BLOCKS), False)

_UNDO_BY = {
    "PutBucketOwnershipControls": ("OwnershipControls", "DeleteBucketOwnershipControls"),
    "PutBucketPolicy": ("Policy", "DeleteBucketPolicy"),
    "PutBucketEncryption": ("ServerSideEncryptionConfiguration", "DeleteBucketEncryption"),
}
"""How to undo steps that may make uploads fail.

Maps each operation to a pair: the parameter whose previous value is put back, and the operation that deletes
the setting if it had no value before.
"""


class StepStatus(StrEnum):
    """The outcome of a step."""

    DONE = "done"
    UNSUPPORTED = "not supported by this server"
    REVERTED = "undone, since uploads failed after it"
    FAILED = "failed"
    WARNING = "warning"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class StepResult:
    """The outcome of a step.

    If the step did not succeed, `message` says why and what to do. `try_fallback` is True if the step's
    fallback may succeed.
    """

    step: Step
    status: StepStatus
    message: str = ""
    try_fallback: bool = False


def apply_steps(clients: AwsClients, steps: Iterable[Step]) -> Iterator[StepResult]:
    """Carry out each step, and yield its result immediately.

    If a step fails, the remaining steps are still tried, unless the failed step is vital. If the server
    doesn't support a step, or a step was undone because uploads failed after it, its fallback may be tried
    next. If uploads fail regardless of the steps, the last result says so.
    """
    run = _Run(clients)
    halted = False
    for step in steps:
        if halted:
            yield StepResult(step, StepStatus.NOT_TRIED)
            continue
        result = run.attempt(step)
        halted = step.vital and result.status is StepStatus.FAILED
        yield result
        if step.fallback and result.try_fallback:
            yield run.attempt(step.fallback)
    if run.upload_warning is not None:
        yield run.upload_warning


class _Run:
    """The state of an `apply_steps` call. `upload_warning` is set if uploads fail regardless of the steps."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._done: set[str] = set()
        self.upload_warning: StepResult | None = None

    def attempt(self, step: Step) -> StepResult:
        """Carry out the step and return its result.

        On a compatible server, check that the setting has changed and that uploads still succeed.
        """
        try:
            if self._clients.is_compatible_server and step.optional:
                result = self._attempt_checked(step)
            else:
                self._call(step)
                result = StepResult(step, StepStatus.DONE)
        except BucketError as exc:
            result = self._failure(step, exc)
        if result.status is StepStatus.DONE:
            self._done.add(step.operation)
        return result

    def _attempt_checked(self, step: Step) -> StepResult:
        before = self._read_before(step)
        self._call(step)
        has_effect = self._has_effect(step, before)
        if has_effect is False:
            message = f"The server accepts {step.operation} but ignores it."
            return StepResult(step, StepStatus.UNSUPPORTED, message)
        undo = _undo_step(step, before)
        if undo is None or self.upload_warning is not None:
            return StepResult(step, StepStatus.DONE)
        refusal = try_upload(self._clients, step.parameters["Bucket"])
        if refusal is None:
            return StepResult(step, StepStatus.DONE)
        if has_effect is None:
            # Don't undo the step: a server that ignores the subresource in a DELETE would delete the bucket.
            message = (
                f"The server refuses uploads ({_summary(refusal)}). If this step is the reason, undo it: "
                f"{_as_command(undo)}"
            )
            return StepResult(step, StepStatus.WARNING, message)
        return self._undo(step, undo, refusal)

    def _read_before(self, step: Step) -> S3Response:
        """Return the setting as it is before the step, or an empty response if it can't be read."""
        try:
            return read_setting(self._clients, step.parameters["Bucket"], _read_operation(step))
        except BucketError as exc:
            if isinstance(exc, CallDenied) or exc.aws_code == "NoSuchBucket":
                return {}
            raise

    def _has_effect(self, step: Step, before: S3Response) -> bool | None:
        """Return whether the setting differs from `before`, or None if it can't be read."""
        for delay in (0.0, RETRY_DELAYS_SECONDS[0]):
            time.sleep(delay)
            try:
                after = read_setting(self._clients, step.parameters["Bucket"], _read_operation(step))
            except BucketError:
                return None
            if after != before:
                return True
        return False

    def _undo(self, step: Step, undo: Step, refusal: BucketError) -> StepResult:
        """Undo the step after which uploads were refused.

        If uploads are still refused for the same reason, the step was not the cause, so repeat it. A step
        with a fallback is not repeated, because the fallback is the safer choice.
        """
        try:
            self._call(undo)
        except BucketError as exc:
            return StepResult(
                step,
                StepStatus.FAILED,
                f"The server refuses every upload after this step ({_summary(refusal)}), and the step could "
                f"not be undone: {exc.message} Undo it by hand: {_as_command(undo)}",
            )
        remaining = self._refusal_after_undo(step, refusal)
        if remaining is not None:
            upload = Step(
                "Put a small image, as uploads do", "PutObject", {"Bucket": step.parameters["Bucket"]}
            )
            message = f"{remaining.message.rstrip('.')}. The steps above are not the reason."
            self.upload_warning = StepResult(upload, StepStatus.WARNING, message)
            if _summary(remaining) == _summary(refusal) and step.fallback is None:
                self._call(step)
                return StepResult(step, StepStatus.DONE)
        message = f"The server refused every upload after this step ({_summary(refusal)})."
        return StepResult(step, StepStatus.REVERTED, message, try_fallback=True)

    def _refusal_after_undo(self, step: Step, before: BucketError) -> BucketError | None:
        """Return why uploads are still refused after the step was undone, or None if they succeed.

        `before` is the reason why they were refused before. The upload is retried until the response changes,
        because a server may need some time to apply a changed setting.
        """
        for delay in (0.0, *RETRY_DELAYS_SECONDS):
            time.sleep(delay)
            refusal = try_upload(self._clients, step.parameters["Bucket"])
            if refusal is None or _summary(refusal) != _summary(before):
                return refusal
        return before

    def _failure(self, step: Step, exc: BucketError) -> StepResult:
        if step.operation == "CreateBucket" and exc.aws_code == "BucketAlreadyOwnedByYou":
            return StepResult(step, StepStatus.DONE)
        unsupported = isinstance(exc, CallUnsupported) or (
            self._clients.is_compatible_server and says_unsupported(exc.http_status, exc.aws_code)
        )
        if step.optional and unsupported:
            message = f"The server responded with {_summary(exc)}."
            try_fallback = exc.http_status == _BAD_REQUEST
            return StepResult(step, StepStatus.UNSUPPORTED, message, try_fallback=try_fallback)
        if isinstance(exc, CallDenied):
            return StepResult(step, StepStatus.FAILED, f"{exc.message} {step.denied_hint}".rstrip())
        return StepResult(step, StepStatus.FAILED, exc.message)

    def _call(self, step: Step) -> None:
        """Make the call. Retry it a few times if S3 is not ready for it yet. Raises `BucketError`."""
        for delay in RETRY_DELAYS_SECONDS:
            try:
                return _call_once(self._clients, step)
            except BucketError as exc:
                if not self._is_temporary(exc, step):
                    raise
            time.sleep(delay)
        return _call_once(self._clients, step)

    def _is_temporary(self, exc: BucketError, step: Step) -> bool:
        """Return whether a retry may succeed.

        A retry may succeed if another change to the bucket is in progress, or if an earlier step is not
        visible everywhere yet.
        """
        if isinstance(exc, CallDenied):
            return step.operation == "PutBucketPolicy" and "PutPublicAccessBlock" in self._done
        if exc.aws_code == "OperationAborted":
            return True
        return exc.aws_code == "NoSuchBucket" and "CreateBucket" in self._done


def _call_once(clients: AwsClients, step: Step) -> None:
    parameters: dict[str, Any] = dict(step.parameters)
    if not isinstance(parameters.get("Policy", ""), str):
        parameters["Policy"] = json.dumps(parameters["Policy"])
    with errors_mapped(step.operation):
        getattr(clients.s3, xform_name(step.operation))(**parameters)


def _summary(exc: BucketError) -> str:
    if exc.aws_code == UNRELATED_RESPONSE:
        return "200 and the response to a different request"
    return f"{exc.http_status} {exc.aws_code}"


def _as_command(step: Step) -> str:
    return f"{step.operation} {json.dumps(step.parameters)}"


def _read_operation(step: Step) -> str:
    return f"Get{step.operation.removeprefix('Put')}"


def _undo_step(step: Step, before: S3Response) -> Step | None:
    """Return the step that restores the setting, or None if uploads don't depend on the setting."""
    bucket = {"Bucket": step.parameters["Bucket"]}
    if step.operation == "PutPublicAccessBlock":
        block = _BLOCK_NOTHING | before.get("PublicAccessBlockConfiguration", {})
        return Step(step.title, step.operation, bucket | {"PublicAccessBlockConfiguration": block})
    if step.operation not in _UNDO_BY:
        return None
    parameter, delete_operation = _UNDO_BY[step.operation]
    if before.get(parameter):
        return Step(step.title, step.operation, bucket | {parameter: before[parameter]})
    return Step(step.title, delete_operation, bucket)
