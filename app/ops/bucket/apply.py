"""Carrying out a plan, step by step, with patience for what S3 takes a while to notice.

Servers compatible with S3 get less trust than AWS: a setting that they don't know is skipped, one that they
accept without effect counts as unknown, and one after which they refuse uploads is undone.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from botocore import xform_name

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import (
    OTHER_ANSWER,
    BucketError,
    CallDenied,
    CallUnsupported,
    errors_mapped,
    says_unsupported,
)
from app.ops.bucket.plan import Outcome, Result, Step
from app.ops.bucket.state import Answer, read_setting, refusal_of_uploads

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries of a call that S3 is not ready for."""

_MALFORMED = 400
"""What servers answer that know the setting, but not all of what it may hold."""

_NO_BLOCK = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False
)
_UNDONE_BY = {
    "PutBucketOwnershipControls": ("OwnershipControls", "DeleteBucketOwnershipControls"),
    "PutBucketPolicy": ("Policy", "DeleteBucketPolicy"),
    "PutBucketEncryption": ("ServerSideEncryptionConfiguration", "DeleteBucketEncryption"),
}
"""Of steps that may make uploads fail: the parameter to set to what was there, or how to delete it."""


def carry_out(clients: AwsClients, steps: Iterable[Step]) -> Iterator[Result]:
    """Make each call, and give what became of it at once.

    A step that fails does not keep the others from being tried, unless it is vital. A step that is skipped or
    undone is followed by its fallback.
    """
    work = _Work(clients)
    halted = False
    for step in steps:
        if halted:
            yield Result(step, Outcome.NOT_TRIED)
            continue
        result = work.attempt(step)
        halted = step.vital and result.outcome is Outcome.FAILED
        yield result
        if step.fallback and result.calls_for_less:
            yield work.attempt(step.fallback)
    if work.unexplained is not None:
        yield work.unexplained


class _Work:
    """What was done so far; `unexplained` is the last result if uploads fail whatever the settings are."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._done: set[str] = set()
        self.unexplained: Result | None = None

    def attempt(self, step: Step) -> Result:
        """Make the call; on a compatible server see that it has an effect, and that uploads still succeed."""
        try:
            if self._clients.is_compatible_server and step.optional:
                result = self._attempt_watched(step)
            else:
                self._call_patiently(step)
                result = Result(step, Outcome.DONE)
        except BucketError as exc:
            result = self._failed(step, exc)
        if result.outcome is Outcome.DONE:
            self._done.add(step.operation)
        return result

    def _attempt_watched(self, step: Step) -> Result:
        before = self._read(step)
        self._call_patiently(step)
        has_effect = self._has_effect(step, before)
        if has_effect is False:
            return Result(step, Outcome.UNSUPPORTED, f"The server accepts {step.operation}, and ignores it.")
        undo = _undo(step, before)
        if undo is None or self.unexplained is not None:
            return Result(step, Outcome.DONE)
        refusal = refusal_of_uploads(self._clients, step.parameters["Bucket"])
        if refusal is None:
            return Result(step, Outcome.DONE)
        if has_effect is None:  # a server that does not know the setting may take DELETE for the bucket's
            message = (
                f"Uploads are refused ({_said(refusal)}). If this is the reason, undo it: {_by_hand(undo)}"
            )
            return Result(step, Outcome.WARNING, message)
        return self._undone(step, undo, refusal)

    def _undone(self, step: Step, undo: Step, refusal: BucketError) -> Result:
        """Undo the step; make it again if it was not the reason, unless a fallback is the safer choice."""
        try:
            self._call_patiently(undo)
        except BucketError as exc:
            return Result(
                step,
                Outcome.FAILED,
                f"After it the server refuses every upload ({_said(refusal)}), and it can't be undone: "
                f"{exc.message} To be done by hand: {_by_hand(undo)}",
            )
        still = self._refusal_after_undoing(step, refusal)
        if still is not None:
            trial = Step(
                "Put a small image, as uploads do", "PutObject", {"Bucket": step.parameters["Bucket"]}
            )
            message = f"{still.message.rstrip('.')}. It was so before these steps."
            self.unexplained = Result(trial, Outcome.WARNING, message)
            if _said(still) == _said(refusal) and step.fallback is None:
                self._call_patiently(step)
                return Result(step, Outcome.DONE)
        message = f"The server refused every upload after it ({_said(refusal)})."
        return Result(step, Outcome.REVERTED, message, calls_for_less=True)

    def _refusal_after_undoing(self, step: Step, before: BucketError) -> BucketError | None:
        """Try uploads until the answer is another one: a setting may take a while to be undone everywhere."""
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            refusal = refusal_of_uploads(self._clients, step.parameters["Bucket"])
            if refusal is None or _said(refusal) != _said(before):
                return refusal
        return before

    def _read(self, step: Step) -> Answer:
        """The setting before the step; empty for a new bucket's that can't be read."""
        try:
            return read_setting(self._clients, step.parameters["Bucket"], _reading(step))
        except BucketError as exc:
            if isinstance(exc, CallDenied) or exc.aws_code == "NoSuchBucket":
                return {}
            raise

    def _has_effect(self, step: Step, before: Answer) -> bool | None:
        """Whether the setting is another one than before; None if it can't be read."""
        for wait in (0.0, WAITS[0]):
            time.sleep(wait)
            try:
                after = read_setting(self._clients, step.parameters["Bucket"], _reading(step))
            except BucketError:
                return None
            if after != before:
                return True
        return False

    def _failed(self, step: Step, exc: BucketError) -> Result:
        if step.operation == "CreateBucket" and exc.aws_code == "BucketAlreadyOwnedByYou":
            return Result(step, Outcome.DONE)
        unknown = self._clients.is_compatible_server and says_unsupported(exc.http_status, exc.aws_code)
        if step.optional and (unknown or isinstance(exc, CallUnsupported)):
            message = f"The server answers {_said(exc)}."
            return Result(step, Outcome.UNSUPPORTED, message, calls_for_less=exc.http_status == _MALFORMED)
        if isinstance(exc, CallDenied):
            return Result(step, Outcome.FAILED, f"{exc.message} {step.if_denied}".rstrip())
        return Result(step, Outcome.FAILED, exc.message)

    def _call_patiently(self, step: Step) -> None:
        for wait in WAITS:
            try:
                return self._call(step)
            except BucketError as exc:
                if not self._passes(exc, step):
                    raise
            time.sleep(wait)
        return self._call(step)

    def _call(self, step: Step) -> None:
        parameters: dict[str, Any] = dict(step.parameters)
        if not isinstance(parameters.get("Policy", ""), str):
            parameters["Policy"] = json.dumps(parameters["Policy"])
        with errors_mapped(step.operation):
            getattr(self._clients.s3, xform_name(step.operation))(**parameters)

    def _passes(self, exc: BucketError, step: Step) -> bool:
        """Whether a refusal goes away by itself: a change is under way, or is not known everywhere yet."""
        if isinstance(exc, CallDenied):
            return step.operation == "PutBucketPolicy" and "PutPublicAccessBlock" in self._done
        if exc.aws_code == "OperationAborted":
            return True
        return exc.aws_code == "NoSuchBucket" and "CreateBucket" in self._done


def _said(exc: BucketError) -> str:
    if exc.aws_code == OTHER_ANSWER:
        return "200, but not to what was asked"
    return f"{exc.http_status} {exc.aws_code}"


def _by_hand(undo: Step) -> str:
    return f"{undo.operation} {json.dumps(undo.parameters)}"


def _reading(step: Step) -> str:
    """The operation that reads what the step sets."""
    return f"Get{step.operation.removeprefix('Put')}"


def _undo(step: Step, before: Answer) -> Step | None:
    """The step that restores the setting; None if uploads don't depend on it."""
    bucket = {"Bucket": step.parameters["Bucket"]}
    if step.operation == "PutPublicAccessBlock":
        block = _NO_BLOCK | before.get("PublicAccessBlockConfiguration", {})
        return Step(step.title, step.operation, bucket | {"PublicAccessBlockConfiguration": block})
    if step.operation not in _UNDONE_BY:
        return None
    parameter, deletion = _UNDONE_BY[step.operation]
    if before.get(parameter):
        return Step(step.title, step.operation, bucket | {parameter: before[parameter]})
    return Step(step.title, deletion, bucket)
