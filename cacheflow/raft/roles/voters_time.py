"""Voters' time: what time it is when a leader is elected that has heard none since its start, from what its voters say.

1. A voter that has heard a leader goes on by its own monotonic clock, which can only be late: of those the latest counts.
2. Without any, all nodes have started anew and each estimate rests on a wall clock, which somebody may have set. The
   median counts, so that a minority of wrong clocks moves nothing.
3. A node waits a moment with its campaign while other voters may still change the median.
4. Of two in the middle the earlier one counts. A clock that is slow prolongs a TTL by the time for which no node ran at
   most, and a clock that is fast ends every TTL.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.seams import Clock

# Estimates that differ by no more agree: a wall clock drifts by less while a machine is down for hours.
AGREE_MS = 1000
# What a voter said longer ago belongs to another election.
OLD_MS = 10_000


class VotersTime:
    """The other voters' estimates of the cluster's time, and what a new leader concludes from them and its own clock."""

    def __init__(self, clock: Clock, now_ms: Callable[[], int]) -> None:
        self._clock = clock
        self._now_ms = now_ms
        # {voter id: (cluster ms - this process's monotonic ms or None, whether it has heard a leader, when it said so)}.
        self._told: dict[str, tuple[int | None, bool, int]] = {}

    def own(self) -> tuple[int, bool]:
        """Return what this node tells a candidate: its estimate of the cluster's time, and whether it has heard a leader.

        The estimate is in milliseconds, 0 for none. Only a leader heard since this node's start counts.
        """
        return self._clock.now_ms() if self._clock.known else 0, self._clock.heard

    def note(self, node_id: str, message: dict[str, Any]) -> None:
        """Note the estimate of the cluster's time in ``message``, an answer of the voter ``node_id``. Raises BadMessage."""
        now_ms, told_ms = self._now_ms(), guards.natural(message, "time")
        offset_ms = told_ms - now_ms if told_ms else None
        heard = message.get("heard") is True
        self._told = {voter: told for voter, told in self._told.items() if now_ms - told[2] < OLD_MS}
        before = self._told.get(node_id)
        if before is not None and before[0] is not None and offset_ms is not None and before[1] == heard:
            # An answer is late by what it was under way and waited here, so the highest estimate is the best.
            offset_ms = max(offset_ms, before[0])
        self._told[node_id] = (offset_ms, heard, now_ms)

    def estimate_ms(self) -> int:
        """Return the cluster's time in ms by the voters' estimates; 0 if this node's own is better, or nobody has one."""
        heard = self._offsets(heard=True)
        if heard:
            # All are whole milliseconds, cut off: without the 1 this could be ahead of the voter, and end TTLs early.
            return self._now_ms() + heard[-1] - 1
        if self._clock.heard:
            return 0
        offsets = self._with_own()
        return self._now_ms() + offsets[(len(offsets) - 1) // 2] if offsets else 0

    def is_disputed(self, voters: int) -> bool:
        """True if the estimate of the cluster's time rests on wall clocks, and no majority of all voters agrees on that time.

        voters: the number of all voters, this node included. False once all voters have answered: nothing better will come.
        """
        if self._clock.heard or self._offsets(heard=True) or len(self._told) + 1 >= voters:
            return False
        offsets = self._with_own()
        others = voters // 2
        agreeing = zip(offsets, offsets[others:], strict=False)
        return bool(offsets) and not any(last - first <= AGREE_MS for first, last in agreeing)

    def _offsets(self, *, heard: bool) -> list[int]:
        return sorted(told[0] for told in self._told.values() if told[0] is not None and told[1] is heard)

    def _with_own(self) -> list[int]:
        offsets = self._offsets(heard=False)
        if self._clock.known:
            offsets.append(self._clock.now_ms() - self._now_ms())
        return sorted(offsets)
