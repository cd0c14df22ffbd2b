"""The bucket as it is now, read from S3, and as `flask bucket setup` shall make it."""

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
"""In the order to try them. Old servers know only the second."""

_PROBE_KEY = "doctor/setup-probe.png"
"""Always the same, so that at most one object stays behind if deleting is refused."""

_TEMPORARY_STATUSES = (404, 409, 429, 503)
"""Responses of a bucket that is not visible everywhere yet, during a conflicting change, or of a busy
server."""

Mode = Literal["public", "private"]

S3Response = dict[str, Any]
"""A response of boto3, without its metadata."""


@dataclass(frozen=True)
class Target:
    """The bucket that `flask bucket setup` shall create or change.

    If `mode` is public, everybody may read its objects. `cors` holds origins such as `https://example.org`.
    `expire` maps key prefixes to the number of days after which S3 deletes the objects. `partition` is that
    of its ARNs.
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
    """The bucket's settings.

    `settings` maps each operation that reads a setting, such as `GetBucketCors`, to its response; to an empty
    one if nothing is configured. `unsupported` lists the operations that the server does not know.
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
        """The bucket's own Block Public Access; empty if nothing is blocked."""
        response = self.settings.get("GetPublicAccessBlock", {})
        block: dict[str, bool] = response.get("PublicAccessBlockConfiguration", {})
        return block


def read_state(clients: AwsClients, target: Target) -> BucketState:
    """Read every setting that a plan for `target` depends on. Change nothing.

    Raises `BucketError` that lists all missing permissions, or says that the bucket is in another region or
    belongs to somebody else.
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
    """Return the response to an operation such as `GetBucketCors`; an empty one if nothing is configured.

    S3 answers 404 for settings that are not configured, with a different code for each. Raises
    `CallUnsupported` if the server does not know the setting, and `BucketError` for other failures.
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
    """Return True if there is at least one object; None if the server refuses to list the bucket.

    Raises `BucketError` if there is no response.
    """
    for operation in _LISTING_OPERATIONS:
        try:
            page = _call(clients, bucket, operation, MaxKeys=1)
        except BucketError as exc:
            if not exc.http_status:
                raise
        else:
            # Some servers send no KeyCount; some send no keys in a page that is not the last.
            return bool(page.get("Contents") or page.get("IsTruncated"))
    return None


def try_upload(clients: AwsClients, bucket: str) -> BucketError | None:
    """Put a small image as the server does, and delete it. Return the error if the server refuses the upload.

    Return None if the upload succeeds, or fails only temporarily.
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
        pass  # only the upload matters here; doctor reports refused deletes
    return None


def random_png() -> bytes:
    """Return a small PNG with random pixels, so that no cache can answer for the bucket."""
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
                raise  # the error that HEAD could not explain
            unsupported.append(operation)
        except CallDenied as exc:
            denied.append(exc)
    if denied:
        actions = ", ".join(dict.fromkeys(exc.action for exc in denied))
        raise BucketError(
            f"The bucket {target.bucket} exists, but the credentials may not read its settings: they need "
            f"{actions} on arn:{target.partition}:s3:::{target.bucket}. If the bucket is somebody else's, "
            "choose another name."
        ) from denied[0]
    return BucketState(exists=True, settings=settings, unsupported=tuple(unsupported))


def _head_bucket(clients: AwsClients, target: Target) -> int:
    """Return the status of HeadBucket. Raises `BucketError` if the bucket is in another region.

    The response to HEAD has no body, so it does not say why it is refused. Later calls do.
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
