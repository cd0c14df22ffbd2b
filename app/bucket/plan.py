"""The plan: the calls that still lie between a bucket as it is and as it is to become."""

from dataclasses import dataclass, replace
from typing import Any

from app.bucket.access import BLOCK_IN_THE_WAY, access_steps, would_open
from app.bucket.clients import AwsClients
from app.bucket.errors import CallDenied
from app.bucket.rules import rule_steps
from app.bucket.state import BucketState, holds_objects, read_state
from app.bucket.steps import Step
from app.bucket.target import Target
from app.bucket.uploads import refusal_of_uploads

_HOME_REGION = "us-east-1"
_OPENING = ("PutPublicAccessBlock", "PutBucketPolicy")


@dataclass(frozen=True)
class Plan:
    """Steps in their order, none where there is nothing to do.

    `publishes` says that carrying them out lets everybody read objects which the bucket holds already, and
    `unlisted` that those are presumed, since it can't be listed. `unsupported` are the operations for which
    the server has no answer, so that nothing is planned there.
    """

    steps: tuple[Step, ...]
    publishes: bool
    unsupported: tuple[str, ...]
    unlisted: bool = False


def make_plan(clients: AwsClients, target: Target, *, may_upload: bool = True) -> Plan:
    """Look at the bucket, and change nothing; raises `BucketError` if that is not possible.

    If the server lacks settings, and the bucket blocks public ACLs, a small image is put and deleted again:
    some such servers refuse every upload then. `may_upload=False` spares that.
    """
    state = read_state(clients, target)
    if may_upload and state.unsupported and state.public_access_block.get(BLOCK_IN_THE_WAY):
        refused = isinstance(refusal_of_uploads(clients, target.bucket), CallDenied)
        state = replace(state, refuses_uploads=refused)
    steps = (*_creation_steps(target, state), *access_steps(target, state), *rule_steps(target, state))
    opening = any(step.operation in _OPENING for step in steps)
    opens = state.exists and opening and would_open(target, state)
    shown = holds_objects(clients, target) if opens else False
    return Plan(steps, shown is not False, state.unsupported, unlisted=shown is None)


def _creation_steps(target: Target, state: BucketState) -> list[Step]:
    if state.exists:
        return []
    # us-east-1 is where buckets go without a constraint, and is refused as one.
    place: dict[str, Any] = (
        {"CreateBucketConfiguration": {"LocationConstraint": target.region}}
        if target.region != _HOME_REGION
        else {}
    )
    parameters = {"Bucket": target.bucket, **place}
    title = f"Create the bucket {target.bucket} in {target.region}"
    return [Step(title, "CreateBucket", parameters, vital=True, optional=False)]
