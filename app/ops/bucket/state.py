"""The bucket's current state, as read from S3, and the target state for `flask bucket setup`."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

from botocore import xform_name
from PIL import Image

from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError, CallDenied, CallUnsupported, errors_mapped, says_unsupported
from app.ops.bucket.policy import Policy

_OK = 200
_NOT_FOUND = 404
_NOT_IMPLEMENTED = 501

_LISTING_OPERATIONS = ("ListObjectsV2", "ListObjects")
"""The operations that list objects, in the order in which they are tried. Old servers lack the first."""

_PROBE_KEY = "doctor/setup-probe.png"
"""The key of the test upload.

It is always the same, so that at most one object is left behind if the server refuses to delete it.
"""

_TEMPORARY_STATUSES = (404, 409, 429, 503)
"""Statuses of failed uploads that are not refusals, because the reason is temporary.

They occur if the bucket is not visible everywhere yet, if a conflicting change is in progress, or if the
server is busy.
"""

Mode = Literal["public", "private"]

S3Response = dict[str, Any]
"""A response of boto3, without its metadata."""


@dataclass(frozen=True)
class Target:
    """The bucket that `flask bucket setup` creates or changes, and its settings.

    If `mode` is public, everyone may read the objects. `partition` is the partition in the bucket's ARN.
    `cors` contains origins such as `https://example.org`. `expire` maps key prefixes to the number of days
    after which S3 deletes the objects.
    """

    bucket: str
    region: str
    mode: Mode
    partition: str = "aws"
    cors: tuple[str, ...] = ()
    expire: Mapping[str, int] = field(default_factory=dict)

    @property
    def objects_arn(self) -> str:
        """The ARN of all objects in the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}/*"


@dataclass(frozen=True)
class BucketState:
    """The current settings of the bucket.

    `settings` maps each operation that reads a setting, such as `GetBucketCors`, to its response, which is
    empty if nothing is configured. `unsupported` names the operations that the server does not support.
    `refuses_uploads` is True if a test upload was denied.
    """

    exists: bool
    settings: dict[str, S3Response] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()
    refuses_uploads: bool = False

    @property
    def policy(self) -> Policy | None:
        """The bucket policy, or None if there is none."""
        text = self.settings.get("GetBucketPolicy", {}).get("Policy")
        policy: Policy | None = json.loads(text) if text else None
        return policy

    @property
    def public_access_block(self) -> dict[str, bool]:
        """The Block Public Access settings of the bucket itself, or an empty dict if it has none."""
        response = self.settings.get("GetPublicAccessBlock", {})
        block: dict[str, bool] = response.get("PublicAccessBlockConfiguration", {})
        return block


def read_state(clients: AwsClients, target: Target) -> BucketState:
    """Read every setting that a plan for `target` depends on.

    Raises `BucketError` if permissions are missing, or if the bucket is in a different region or may belong
    to someone else. The message lists all missing permissions.
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


def read_setting(clients: AwsClients, bucket: str, operation: str) -> S3Response:
    """Return the response to an operation such as `GetBucketCors`. It is empty if nothing is configured.

    S3 returns 404 for a setting that is not configured, with a different error code for each setting. Raises
    `CallUnsupported` if the server does not support the operation, and `BucketError` for other failures.
    """
    try:
        response = _call(clients, bucket, operation)
    except BucketError as exc:
        if exc.http_status == _NOT_FOUND and exc.aws_code != "NoSuchBucket":
            return {}
        if clients.is_compatible_server and says_unsupported(exc.http_status, exc.aws_code):
            raise CallUnsupported(exc.message, aws_code=exc.aws_code, http_status=exc.http_status) from exc
        raise
    response.pop("ResponseMetadata", None)
    return response


def holds_objects(clients: AwsClients, bucket: str) -> bool | None:
    """Return whether the bucket contains objects, or None if the server refuses to list the bucket.

    Raises `BucketError` if there is no response.
    """
    for operation in _LISTING_OPERATIONS:
        try:
            page = _call(clients, bucket, operation, MaxKeys=1)
        except BucketError as exc:
            if not exc.http_status:
                raise
        else:
            # Some servers don't send KeyCount. Some send pages without keys before the last page.
            return bool(page.get("Contents") or page.get("IsTruncated"))
    return None


def try_upload(clients: AwsClients, bucket: str) -> BucketError | None:
    """Put a small image as an upload does, and delete it. Return the error if the server refuses the upload.

    Return None if the upload succeeds, or if it fails for a temporary reason.
    """
    data = random_png()
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
    try:
        with errors_mapped("PutObject"):
            clients.s3.put_object(
                Bucket=bucket, Key=_PROBE_KEY, Body=data, ContentType="image/png", ContentMD5=md5
            )
    except BucketError as exc:
        return exc if exc.http_status and exc.http_status not in _TEMPORARY_STATUSES else None
    try:
        with errors_mapped("DeleteObject"):
            clients.s3.delete_object(Bucket=bucket, Key=_PROBE_KEY)
    except BucketError:
        pass  # only the upload matters here; the doctor reports refused deletes
    return None


def random_png() -> bytes:
    """Return a small PNG. Its pixels are random, so it can't come from a cache in front of the bucket."""
    written = BytesIO()
    Image.frombytes("RGB", (8, 8), secrets.token_bytes(192)).save(written, "PNG")
    return written.getvalue()


def _read(clients: AwsClients, target: Target) -> BucketState:
    operations = (
        "GetBucketOwnershipControls",
        "GetBucketAcl",
        "GetPublicAccessBlock",
        "GetBucketPolicy",
        *(("GetBucketCors",) if target.cors else ()),
        "GetBucketLifecycleConfiguration",
        "GetBucketEncryption",
    )
    status = _head_bucket(clients, target)
    if status == _NOT_FOUND:
        return BucketState(exists=False, settings={operation: {} for operation in operations})
    settings: dict[str, S3Response] = {}
    unsupported: list[str] = []
    denied: list[CallDenied] = []
    for operation in operations:
        try:
            settings[operation] = read_setting(clients, target.bucket, operation)
        except CallUnsupported as exc:
            if status != _OK and exc.http_status not in (_OK, _NOT_IMPLEMENTED):
                raise  # HeadBucket failed too, so the operation is not the reason
            unsupported.append(operation)
        except CallDenied as exc:
            denied.append(exc)
    if denied:
        actions = ", ".join(dict.fromkeys(exc.action for exc in denied))
        raise BucketError(
            f"The bucket {target.bucket} exists, but the credentials are not allowed to read its settings: "
            f"they need {actions} on arn:{target.partition}:s3:::{target.bucket}. If the bucket belongs to "
            "someone else, choose a different name."
        ) from denied[0]
    return BucketState(exists=True, settings=settings, unsupported=tuple(unsupported))


def _head_bucket(clients: AwsClients, target: Target) -> int:
    """Return the status of HeadBucket. Raises `BucketError` if the bucket is in a different region.

    Responses to HEAD have no body, so a refusal does not say why. The responses to later calls do.
    """
    try:
        with errors_mapped("HeadBucket"):
            response = clients.s3.head_bucket(Bucket=target.bucket)
    except BucketError as exc:
        if not exc.http_status:
            raise
        return exc.http_status
    region = response.get("BucketRegion", target.region)
    if not clients.is_compatible_server and region != target.region:
        raise BucketError(f"The bucket {target.bucket} is in {region}: set AWS_REGION={region}.")
    return _OK


def _wrong_region(clients: AwsClients, target: Target) -> BucketError | None:
    named = clients.region_named
    if named in ("", target.region):
        return None
    return BucketError(f"The server is in the region {named}, not {target.region}: set AWS_REGION={named}.")


def _call(clients: AwsClients, bucket: str, operation: str, **parameters: Any) -> S3Response:
    with errors_mapped(operation):
        response: S3Response = getattr(clients.s3, xform_name(operation))(Bucket=bucket, **parameters)
    return response
