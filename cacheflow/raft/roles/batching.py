"""Batching: decides whether the leader's next entry should wait for more commands.

An entry costs every node a flush and some wake-ups, whatever is in it. Clients that wait for their answers
come again together: the nodes whose crowds were answered by the last entries are about to send their next blocks, and one
entry for all of them costs no more than one for the first. (PostgreSQL's commit_siblings and commit_delay.)

1. Only the block of a node with a crowd lets the leader wait: the entry of lone clients never does.
2. The leader waits until the blocks of all crowds are here, and for WAIT_S at most. A node whose crowd stays away is
   soon waited for no more.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

# A node whose block was missing from more entries than this is not waited for: its crowd is not about to come.
ABSENT_ENTRIES_MAX = 2
# The longest wait for other crowds: what a crowd needs to get its answers and to ask again, on one machine or in one room.
WAIT_S = 0.0015


class Batching:
    """The leader's decision whether to append the blocks in its queue now, or to wait first for blocks of other nodes.

    now: a function that returns the time in seconds.  wake_after: a function, called with the number of seconds after which
    the leader is to decide once more.
    """

    def __init__(self, now: Callable[[], float], wake_after: Callable[[float], None]) -> None:
        self._now = now
        self._wake_after = wake_after
        # {node id: the last index of the log when that node's latest crowded block came}.
        self.crowds: dict[str, int] = {}
        # The last index of the log when the present wait began, and the time at which it ends.
        self._index = 0
        self._until_s = 0.0

    def note_crowd(self, origin: str, last_index: int) -> None:
        """Note that the node ``origin`` has just sent a block that many callers wait for.

        last_index: the index of the log's last entry now.
        """
        self.crowds[origin] = last_index

    def forget_crowds(self) -> None:
        """Forget which nodes have many callers waiting for their blocks; called when this node becomes the leader."""
        self.crowds.clear()

    def should_wait(self, present: Iterable[str], last_index: int) -> bool:
        """True if the leader should wait for blocks of more nodes before it appends the entry behind ``last_index``.

        present: the ids of the nodes whose blocks are queued.
        """
        here = {*present}
        if not self._misses_a_crowd(here):
            return False
        if self._index != last_index:
            self._index = last_index
            for origin in [origin for origin, seen in self.crowds.items() if seen < last_index - ABSENT_ENTRIES_MAX]:
                del self.crowds[origin]
            self._until_s = self._now() + WAIT_S
            self._wake_after(WAIT_S)
            return self._misses_a_crowd(here)
        return self._now() < self._until_s

    def _misses_a_crowd(self, here: set[str]) -> bool:
        """True if a node with many waiting callers has a block in the leader's queue, and another such node has none.

        here: the ids of the nodes whose blocks are queued.
        """
        crowds = self.crowds.keys()
        return not (crowds <= here or crowds.isdisjoint(here))
