"""Whether browsers can read objects at S3 itself: found out by reading one as a browser would.

Neither an ACL that was accepted nor a policy tells: Block Public Access may overrule both, on the bucket or
on the account, and reading those settings needs permissions that the server can do without.
"""

import time
from collections.abc import Callable
from http import HTTPStatus

from app.errors import AppError
from app.stores.s3.anonymous import NoAnswer, visit

_ASK_SECONDS = 3.0
_REMEMBER_SECONDS = 600.0
_PAUSE_SECONDS = 60.0
"""After an anonymous request that got no answer: perhaps the server has no way to the public endpoint."""

_REMEMBERED = 1_000


class PublicAccess:
    """Asks for one object of each top folder, which policies usually go by, and remembers the answer."""

    def __init__(self, url_of: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._url_of = url_of
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}
        self._paused_until = 0.0

    def is_public(self, key: str) -> bool:
        """Whether anybody can read the object `key`, which exists. False where that can't be found out."""
        folder = key.partition("/")[0] if "/" in key else ""
        public, until = self._known.get(folder, (False, 0.0))
        now = self._clock()
        if now < until:
            return public
        if now < self._paused_until:
            return False
        try:
            public = _answers_everybody(self._url_of(key))
        except (NoAnswer, AppError):
            self._paused_until = now + _PAUSE_SECONDS
            return False
        self._remember(folder, public, now)
        return public

    def _remember(self, folder: str, public: bool, now: float) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[folder] = (public, now + _REMEMBER_SECONDS)


def _answers_everybody(url: str) -> bool:
    """Raises `NoAnswer` where there is no clear answer."""
    status = visit("HEAD", url, seconds=_ASK_SECONDS).status
    if status != HTTPStatus.OK and (not 400 <= status < 500 or status == HTTPStatus.TOO_MANY_REQUESTS):
        raise NoAnswer(f"{status} is no clear answer.")
    return status == HTTPStatus.OK  # 400 is what S3 says to strangers of an object encrypted by KMS
