"""LogThrottle: lets equal complaints into the log only once in a while, however often there is cause for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

# Seconds between two equal complaints about a peer.
COMPLAINTS_EVERY_S: Final = 30.0
# Complaints remembered at most: a stranger chooses what we complain about and must not choose how much memory that takes.
_KEYS_MAX: Final = 256


class LogThrottle:
    """A memory of logged complaints, which decides whether another may be logged. Not thread-safe.

    every_s: the pause in seconds between two complaints with the same key.
    """

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s = every_s
        self._clock = clock
        self._last_s: dict[Hashable, float] = {}

    def allows(self, key: Hashable) -> bool:
        """True if a complaint with ``key`` may be logged, because none was within the last ``every_s`` seconds.

        If so, a complaint with this key counts as logged now.
        """
        now_s = self._clock()
        last_s = self._last_s.get(key)
        if last_s is not None and now_s - last_s < self._every_s:
            return False
        if last_s is None and len(self._last_s) >= _KEYS_MAX:
            oldest = next(iter(self._last_s))
            if now_s - self._last_s[oldest] < self._every_s:
                return False
            del self._last_s[oldest]
        self._last_s.pop(key, None)  # the order of the dictionary is that of the times: the oldest comes first
        self._last_s[key] = now_s
        return True
