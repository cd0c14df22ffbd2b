"""Presigned URLs that stay the same for a while, so that browsers can cache what they show.

A URL is signed as of the beginning of a window of time and is good for two windows: whoever gets it has at
least one of them left. What temporary credentials have signed, those of a role too, ends with them, and once
they are renewed the URL is another one.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
"""

from datetime import UTC, datetime

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials


def presigned(url: str, credentials: ReadOnlyCredentials, region: str, *, seconds: int, now: float) -> str:
    """`url` signed for GET, good until at most `seconds` after `now` (epoch seconds), at least half of that.

    Signature version 4 in the query string:
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    window = max(seconds // 2, 1)
    request = AWSRequest(method="GET", url=url)
    start = datetime.fromtimestamp(now // window * window, UTC)
    _SignerAt(start, credentials, region, 2 * window).add_auth(request)
    return str(request.url)


class _SignerAt(S3SigV4QueryAuth):
    """botocore's signer takes the time from the clock; this one takes it from its maker."""

    def __init__(self, start: datetime, credentials: ReadOnlyCredentials, region: str, seconds: int) -> None:
        super().__init__(credentials, "s3", region, expires=seconds)
        self._start = start

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._start.strftime("%Y%m%dT%H%M%SZ")
        super()._modify_request_before_signing(request)  # type: ignore[misc]
