"""Company: whether the next entry should wait for more commands.

An entry costs every node a flush and some wake-ups, whatever is in it. Clients that wait for their answers
come again together: the nodes whose crowds were answered by the last entries are about to send their next blocks, and one
entry for all of them costs no more than one for the first. (PostgreSQL's commit_siblings and commit_delay.)

1. Only the block of a node with a crowd lets the leader wait: the entry of lone clients never does.
2. It waits until all who are expected are here, and for COMPANY_S at most. Who stays away is soon expected no more.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

# Somebody whose block was not in one of so many entries is not about to come.
ENTRIES = 2
# What a crowd needs to be answered and to ask again, on one machine or in one room.
COMPANY_S = 0.0015


class Company:
    """now: seconds.  wake_after: lets the leader look again after that many seconds."""

    def __init__(self, now: Callable[[], float], wake_after: Callable[[float], None]) -> None:
        self._now = now
        self._wake_after = wake_after
        # The last index of the log when its latest crowded block came, by its origin.
        self.crowds: dict[str, int] = {}
        self._index = 0
        self._until_s = 0.0

    def came(self, origin: str, last_index: int) -> None:
        """A crowded block of ``origin`` came."""
        self.crowds[origin] = last_index

    def forget(self) -> None:
        """Another leadership: nobody is known."""
        self.crowds.clear()

    def is_awaited(self, present: Iterable[str], last_index: int) -> bool:
        """Whether the entry behind ``last_index`` should wait for more than the blocks of those who are ``present``."""
        here = {*present}
        if not self._lacks_some(here):
            return False
        if self._index != last_index:
            self._index = last_index
            for origin in [origin for origin, seen in self.crowds.items() if seen < last_index - ENTRIES]:
                del self.crowds[origin]
            self._until_s = self._now() + COMPANY_S
            self._wake_after(COMPANY_S)
            return self._lacks_some(here)
        return self._now() < self._until_s

    def _lacks_some(self, here: set[str]) -> bool:
        """One crowd is here, and another is not."""
        crowds = self.crowds.keys()
        return not (crowds <= here or crowds.isdisjoint(here))
