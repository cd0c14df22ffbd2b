"""Tries whether the bucket takes uploads: a small image is put as the server does it, and deleted again.

The bucket as it is: what S3 answers when asked for each of its settings.
"""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from botocore import xform_name
from PIL import Image

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError, CallDenied, CallUnsupported, errors_mapped, says_unsupported
from app.ops.bucket.policy import Policy, Target

_OK = 200
_MISSING = 404
_NOT_IMPLEMENTED = 501
_LISTINGS = ("ListObjectsV2", "ListObjects")
"""The second is the first version, which old servers know alone."""

Answer = dict[str, Any]


@dataclass(frozen=True)
class BucketState:
    """What S3 said.

    `answers` holds, by operation, each setting's answer, empty where it is not configured; `unsupported` are
    the operations that the server does not know. `refuses_uploads` says that an upload was tried and denied.
    """

    exists: bool
    answers: dict[str, Answer] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()
    refuses_uploads: bool = False

    @property
    def policy(self) -> Policy | None:
        """The bucket policy, if there is one."""
        text = self.answers.get("GetBucketPolicy", {}).get("Policy")
        policy: Policy | None = json.loads(text) if text else None
        return policy

    @property
    def public_access_block(self) -> dict[str, bool]:
        """The bucket's own Block Public Access; empty where nothing is blocked."""
        answer = self.answers.get("GetPublicAccessBlock", {})
        block: dict[str, bool] = answer.get("PublicAccessBlockConfiguration", {})
        return block


def read_state(clients: AwsClients, target: Target) -> BucketState:
    """Ask S3 for whatever a plan towards `target` depends on; changes nothing.

    Raises `BucketError` that names every permission that is missing, or says that the bucket is in another
    region or somebody else's.
    """
    try:
        state = _read(clients, target)
    except BucketError as exc:
        if wrong := _wrong_region(clients, target):
            raise wrong from exc
        raise
    if wrong := _wrong_region(clients, target):
        raise wrong
    return state


def _wrong_region(clients: AwsClients, target: Target) -> BucketError | None:
    named = clients.region_named
    if named in ("", target.region):
        return None
    return BucketError(f"The server is in the region {named}, not {target.region}: set AWS_REGION={named}.")


def _read(clients: AwsClients, target: Target) -> BucketState:
    operations = _operations(target)
    status = _status(clients, target)
    if status == _MISSING:
        return BucketState(exists=False, answers={operation: {} for operation in operations})
    answers: dict[str, Answer] = {}
    unsupported: list[str] = []
    denied: list[CallDenied] = []
    for operation in operations:
        try:
            answers[operation] = read_setting(clients, target.bucket, operation)
        except CallUnsupported as exc:
            if status != _OK and exc.http_status not in (_OK, _NOT_IMPLEMENTED):
                raise  # it is what HEAD was refused for
            unsupported.append(operation)
        except CallDenied as exc:
            denied.append(exc)
    if denied:
        raise _unreadable(target, denied) from denied[0]
    return BucketState(exists=True, answers=answers, unsupported=tuple(unsupported))


def holds_objects(clients: AwsClients, target: Target) -> bool | None:
    """Whether there is any object; None where each listing is refused.

    Not every server counts the keys of a page, nor puts any into one that is not the last. Raises
    `BucketError` where there is no answer.
    """
    for operation in _LISTINGS:
        try:
            page = _call(clients, target.bucket, operation, MaxKeys=1)
        except BucketError as exc:
            if not exc.http_status:
                raise
        else:
            return bool(page.get("Contents") or page.get("IsTruncated"))
    return None


def _operations(target: Target) -> tuple[str, ...]:
    return (
        "GetBucketOwnershipControls",
        "GetBucketAcl",
        "GetPublicAccessBlock",
        "GetBucketPolicy",
        *(("GetBucketCors",) if target.cors else ()),
        "GetBucketLifecycleConfiguration",
        "GetBucketEncryption",
    )


def _status(clients: AwsClients, target: Target) -> int:
    """Return the status of HeadBucket. Raises `BucketError` if the bucket is not where we think that it is.

    S3 answers HEAD without a body, and so without the reason of a refusal: that comes with later calls.
    """
    try:
        with errors_mapped("HeadBucket"):
            answer = clients.s3.head_bucket(Bucket=target.bucket)
    except BucketError as exc:
        if not exc.http_status:
            raise
        return exc.http_status
    region = answer.get("BucketRegion", target.region)
    if not clients.is_compatible_server and region != target.region:
        raise BucketError(f"The bucket {target.bucket} is in {region}: set AWS_REGION={region}.")
    return _OK


def read_setting(clients: AwsClients, bucket: str, operation: str) -> Answer:
    """Return the answer; empty if nothing is configured, which S3 says by a 404 with codes of many names.

    Raises `CallUnsupported` if the server does not know the setting, and `BucketError` for anything else.
    """
    try:
        answer = _call(clients, bucket, operation)
    except BucketError as exc:
        if exc.http_status == _MISSING and exc.aws_code != "NoSuchBucket":
            return {}
        if clients.is_compatible_server and says_unsupported(exc.http_status, exc.aws_code):
            raise CallUnsupported(exc.message, aws_code=exc.aws_code, http_status=exc.http_status) from exc
        raise
    answer.pop("ResponseMetadata", None)
    return answer


def _call(clients: AwsClients, bucket: str, operation: str, **parameters: Any) -> Answer:
    with errors_mapped(operation):
        answer: Answer = getattr(clients.s3, xform_name(operation))(Bucket=bucket, **parameters)
    return answer


def _unreadable(target: Target, denied: list[CallDenied]) -> BucketError:
    actions = ", ".join(dict.fromkeys(exc.action for exc in denied))
    return BucketError(
        f"The bucket {target.bucket} is there, but the credentials may not read its settings: they need "
        f"{actions} on arn:{target.partition}:s3:::{target.bucket}. If the bucket is somebody else's, "
        "choose another name."
    )


_KEY = "doctor/setup-probe.png"
"""Always the same, so that no more than one stays behind if deleting is refused."""

_PASSING = (404, 409, 429, 503)
"""Statuses of a bucket that is not known everywhere yet, of a conflict, and of a server that is busy."""


def random_png() -> bytes:
    """Return a small PNG unlike any other, so that no cache can answer for the bucket."""
    written = BytesIO()
    Image.frombytes("RGB", (8, 8), secrets.token_bytes(192)).save(written, "PNG")
    return written.getvalue()


def refusal_of_uploads(clients: AwsClients, bucket: str) -> BucketError | None:
    """Return the answer by which an upload is refused; None if it succeeds, or fails for the moment only."""
    data = random_png()
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
    try:
        with errors_mapped("PutObject"):
            clients.s3.put_object(Bucket=bucket, Key=_KEY, Body=data, ContentType="image/png", ContentMD5=md5)
    except BucketError as exc:
        return exc if exc.http_status and exc.http_status not in _PASSING else None
    try:
        with errors_mapped("DeleteObject"):
            clients.s3.delete_object(Bucket=bucket, Key=_KEY)
    except BucketError:
        pass  # uploads are what was asked for; doctor says if deleting is refused
    return None
