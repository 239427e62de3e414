"""Raising the level: a leader whose members all know a higher feature level puts it in force, after a while.

Until then the operator may go back to the build before on any node; afterwards a node with that build stops. So the leader
waits until all members, also those that do not vote, have been able to for RAISE_AFTER_MS: long enough to see whether the new
build works. Who is down counts by what its latest start told (``machine/machine.py``, ``level_told``). An operator may raise
the level sooner by the same command; the machine decides in both cases, so a node that goes back in time prevents it.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging

from cacheflow.machine.language import commands
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.leader import Leading

logger = logging.getLogger(__name__)

# For so long all members must have been able to, by the leader's own clock; a new leader begins anew.
RAISE_AFTER_MS = 10 * 60 * 1000


class LevelRaising:
    """The part of a leader that raises the cluster's feature level when the builds of all members know a higher one."""

    def __init__(self, core: Core, *, links: Links, replica: Replica, leading: Leading) -> None:
        self._core = core
        self._links = links
        self._replica = replica
        self._leading = leading
        # The term in which this leader looks, the level that all have known since then, and since when.
        self._able: tuple[int, int] = (0, 0)
        self._since_ms = 0

    def consider(self) -> None:
        """As leader, propose the highest feature level that all members' builds know, if it is above the cluster's.

        All members' builds must have known that level for RAISE_AFTER_MS. Called once a heartbeat if this node's build knows a
        higher level.
        """
        core, machine = self._core, self._replica.machine
        level = machine.build_level
        while level > machine.level and machine.lacks_level(level) is not None:
            level -= 1
        now_ms = self._links.now_ms()
        if not core.has_settled or (core.term, level) != self._able:
            self._able, self._since_ms = (core.term, level), now_ms
        if level > machine.level and now_ms - self._since_ms >= RAISE_AFTER_MS:
            self._since_ms = now_ms
            logger.warning(
                "all members know level %d: it is put in force, and there is no way back to older builds", level
            )
            self._leading.enqueue([commands.encode_block(0, 0, 0, [commands.raise_level(level)])], False, False)
