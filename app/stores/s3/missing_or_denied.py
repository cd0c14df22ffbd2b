"""Find out whether a 403 in response to a read means that the object is missing or that reading is forbidden.

Without `s3:ListBucket`, S3 returns 403 AccessDenied even for a missing object
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html). If we mistook a revoked permission for a
missing object, the cache would drop images that it only wanted to revalidate. If we mistook a missing object
for a denied read, a mistyped URL would look like an outage.
"""

import secrets
import time
from collections.abc import Callable

from botocore.exceptions import ClientError

from app.aws.errors import is_about_credentials
from app.stores.s3.client import BucketClient
from app.stores.s3.errors import code_of, denied_action, status_of

_PROBE_SECONDS = 300.0
"""How many seconds we remember the response for a random key. Policies may change, so this is limited."""

_READABLE_SECONDS = 60.0
"""For how many seconds a successful read proves that reading is allowed."""


class Denials:
    """Decides what a 403 in response to a read means.

    This uses AWS's message, the response for a random key, and the response for an object that is known to
    exist.
    """

    def __init__(self, client: BucketClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._hides_missing = False
        self._probed_until = 0.0
        self._readable_until = 0.0
        self._known_key = ""

    def note_read(self, key: str) -> None:
        """Record that `key` was read, so it exists and reading is allowed."""
        self._known_key = key
        self._readable_until = self._clock() + _READABLE_SECONDS

    def note_written(self, key: str) -> None:
        """Record that `key` exists, whether or not it can be read."""
        self._known_key = key

    def note_deleted(self, key: str) -> None:
        """Record that `key` no longer exists."""
        if self._known_key == key:
            self._known_key = ""

    def means_missing(self, key: str, exc: ClientError, *, was_read_before: bool) -> bool:
        """Return whether `exc`, S3's response to reading `key`, means that there is no such object.

        If the object was read before, return True only if AWS's message or a successful read shows that
        reading is allowed. This method may call S3, so it may raise botocore's errors.
        """
        if (status_of(exc), code_of(exc)) != (403, "AccessDenied") or is_about_credentials(exc):
            return False
        action = denied_action(exc)
        if action:
            return action == "s3:ListBucket"
        if not self._bucket_hides_missing(key):
            return False
        if self._clock() < self._readable_until:
            return True
        known = self._known_key
        if not known:
            return not was_read_before
        if known == key or self._head_status(known) != 200:
            return False
        self.note_read(known)
        return True

    def _bucket_hides_missing(self, key: str) -> bool:
        """Return whether S3 returns 403 instead of 404 for missing objects.

        This requests a random key in the same folder as `key`, since the same policies apply to both keys.
        The result is remembered.
        """
        if self._clock() >= self._probed_until:
            folder, slash, name = key.rpartition("/")
            neighbour = f"{folder}{slash}{secrets.token_hex(16)}.{name.rpartition('.')[2]}"
            self._hides_missing = self._head_status(neighbour) != 404
            self._probed_until = self._clock() + _PROBE_SECONDS
        return self._hides_missing

    def _head_status(self, key: str) -> int:
        """Send HeadObject and return the status: 200, 403 or 404. Raises `ClientError` for other statuses."""
        try:
            self._client.call("head_object", Key=key)
        except ClientError as exc:
            if status_of(exc) not in (403, 404):
                raise
            return status_of(exc)
        return 200
