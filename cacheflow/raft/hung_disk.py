"""DiskWatch: whether this node's disk has stopped answering, and whether the other voters go on without it.

A flush that does not return is no error: nothing is lost, and it may return at any moment. Until it does this node can
promise nothing. A leader would hold everybody up, for it never commits what it has not flushed itself; so it steps down,
but only when the others have flushed what it has not: where all disks stall together nobody would do better.

Looks are counted, not seconds: a process that stood still must not take its own pause for one of the disk.

Not safe for concurrent use: the event loop owns it. ``hung``, ``outrun`` and ``waits_s`` may be read by any thread.
"""

from __future__ import annotations

import logging

from cacheflow.raft.core import Core
from cacheflow.raft.log.journal import Journal

logger = logging.getLogger(__name__)


class DiskWatch:
    """Watches whether the disk still flushes a node's journal, or hangs.

    patience_s: when a flush has taken more than this number of seconds, the disk counts as hung.
    """

    def __init__(self, core: Core, journal: Journal, *, heartbeat_s: float, patience_s: float) -> None:
        # Whether a record has waited for its flush for ``patience_s`` and longer.
        self.hung = False
        # Whether a majority without this node has had, for as long, an entry that this node has not flushed.
        self.outrun = False
        self._core = core
        self._journal = journal
        self._heartbeat_s = heartbeat_s
        self._patience_s = patience_s
        # The durable position at the last look, and how many looks since have found it there with records behind it.
        self._position = 0
        self._waits = 0
        # How many of these looks in a row have found the others ahead.
        self._behind = 0

    @property
    def state(self) -> str:
        """The state of this node's disk as text for people: that it works, or for how long it has not answered, and why."""
        if not self.hung:
            return "works"
        return f"has not answered for {self.waits_s:.1f} s: {self._journal.trouble or 'a flush waits'}"

    @property
    def waits_s(self) -> float:
        """The number of seconds for which the disk has flushed nothing although journal records wait; 0 when none waits."""
        return self._waits * self._heartbeat_s

    def look(self) -> None:
        """Note whether the disk has flushed more of the journal since the last call; without that for too long, it is hung.

        Called once a heartbeat.
        """
        core, journal = self._core, self._journal
        position = journal.durable_position
        if position != self._position or position == journal.position:
            self._position = position
            self._waits = self._behind = 0
            if self.hung:
                self.hung = self.outrun = False
                logger.info("the disk answers again")
                core.postpone_election()
            return
        self._waits += 1
        elsewhere = max(core.commit_index, core.acknowledged_by_others if core.is_leader else 0)
        self._behind = self._behind + 1 if elsewhere > journal.durable_index else 0
        self.outrun = self._behind * self._heartbeat_s >= self._patience_s
        if not self.hung and self.waits_s >= self._patience_s:
            self.hung = True
            logger.error("the disk %s", self.state)
