"""Keys that the store has said are not there: remembered for a short time, in bounded memory."""

from collections.abc import Callable

_REMEMBERED = 10_000


class NegativeCache:
    """Keys known to be missing for `ttl` seconds, unless they are changed through any worker of this machine.

    What was changed is told by the key's epoch, which all processes share.
    """

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._missing: dict[str, tuple[float, int]] = {}

    def note(self, key: str, epoch: int) -> None:
        """The store has no such object; `epoch` is from before it was asked."""
        if len(self._missing) >= _REMEMBERED:
            self._missing.clear()
        self._missing[key] = (self._clock() + self._ttl, epoch)

    def holds(self, key: str, epoch: Callable[[str], int]) -> bool:
        """Whether `key` is known to be missing still; `epoch` tells the present one."""
        noted = self._missing.get(key)
        if noted is None:
            return False
        until, then = noted
        if self._clock() < until and epoch(key) == then:
            return True
        self._missing.pop(key, None)
        return False
