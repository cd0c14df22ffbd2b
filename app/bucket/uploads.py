"""Tries whether the bucket takes uploads: a small image is put as the server does it, and deleted again."""

import base64
import hashlib
import secrets
from io import BytesIO

from PIL import Image

from app.bucket.clients import AwsClients
from app.bucket.errors import BucketError, errors_mapped

_KEY = "doctor/setup-probe.png"
"""Always the same, so that no more than one stays behind if deleting is refused."""

_PASSING = (404, 409, 429, 503)
"""Statuses of a bucket that is not known everywhere yet, of a conflict, and of a server that is busy."""


def small_picture() -> bytes:
    """Return a small PNG unlike any other, so that no cache can answer for the bucket."""
    written = BytesIO()
    Image.frombytes("RGB", (8, 8), secrets.token_bytes(192)).save(written, "PNG")
    return written.getvalue()


def refusal_of_uploads(clients: AwsClients, bucket: str) -> BucketError | None:
    """Return the answer by which an upload is refused; None if it succeeds, or fails for the moment only."""
    data = small_picture()
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
