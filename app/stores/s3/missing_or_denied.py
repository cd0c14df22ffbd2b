"""What a 403 on a read means: that the object is missing, or that reading is forbidden.

Without `s3:ListBucket` S3 answers 403 AccessDenied for a missing object, too
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html). Taken for missing, a permission that was
revoked would empty the cache of named images; taken for forbidden, every missing image would be an outage.
"""

import secrets
import time
from collections.abc import Callable

from botocore.exceptions import ClientError

from app.aws.errors import is_about_credentials
from app.stores.s3.client import Connection
from app.stores.s3.errors import code_of, denied_action, status_of

_LEARNED_SECONDS = 300.0
"""How long the bucket's answer for a key that can't exist is remembered: policies change."""

_PROVED_SECONDS = 60.0
"""How long one read that succeeded shows that reading is allowed."""


class Denials:
    """Tells the two apart by what AWS says, by a key that can't exist, and by an object known to exist."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._hides_missing = False
        self._learned_until = 0.0
        self._proved_until = 0.0
        self._witness = ""

    def note_read(self, key: str) -> None:
        """`key` was just read: reading is allowed."""
        self._witness = key
        self._proved_until = self._clock() + _PROVED_SECONDS

    def note_written(self, key: str) -> None:
        """`key` exists, whether or not it may be read."""
        self._witness = key

    def note_deleted(self, key: str) -> None:
        """`key` is no witness any more."""
        if self._witness == key:
            self._witness = ""

    def means_missing(self, key: str, exc: ClientError, *, was_there: bool) -> bool:
        """Whether `exc`, S3's answer to reading `key`, says that there is no such object.

        `was_there` says that the object has been read before: then only a proof makes it missing.
        """
        if (status_of(exc), code_of(exc)) != (403, "AccessDenied") or is_about_credentials(exc):
            return False
        action = denied_action(exc)
        if action:
            return action == "s3:ListBucket"
        if not self._bucket_hides_missing(key):
            return False
        if self._clock() < self._proved_until:
            return True
        if not self._witness:
            return not was_there
        return self._witness != key and self._may_read(self._witness)

    def _bucket_hides_missing(self, key: str) -> bool:
        """Whether a random neighbour of `key`, to which the same policies apply, is answered with 403."""
        if self._clock() >= self._learned_until:
            folder, slash, name = key.rpartition("/")
            neighbour = f"{folder}{slash}{secrets.token_hex(16)}.{name.rpartition('.')[2]}"
            self._hides_missing = not self._is_answered_404(neighbour)
            self._learned_until = self._clock() + _LEARNED_SECONDS
        return self._hides_missing

    def _is_answered_404(self, key: str) -> bool:
        try:
            self._connection.client().head_object(Bucket=self._connection.bucket, Key=key)
        except ClientError as exc:
            if status_of(exc) not in (403, 404):
                raise
            return status_of(exc) == 404
        return False

    def _may_read(self, key: str) -> bool:
        try:
            self._connection.client().head_object(Bucket=self._connection.bucket, Key=key)
        except ClientError as exc:
            if status_of(exc) not in (403, 404):
                raise
            return False
        self.note_read(key)
        return True
