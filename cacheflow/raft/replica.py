"""Replica: one node's copy of the cache, and whether it may be used. Not safe for concurrent use: the loop owns it."""

from __future__ import annotations

import logging

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.core import Core
from cacheflow.raft.ticks import Ticks

logger = logging.getLogger(__name__)


class Replica:
    """A node's state machine, and the reasons, if any, for which the node or the machine may not be used."""

    def __init__(self, machine: CacheMachine, core: Core, ticks: Ticks) -> None:
        self.machine = machine
        # Why this node takes no further part in the cluster; None while it does.
        self.failure: str | None = None
        # Why the machine applies no more and may not be read; None while it works.
        self.stumbled: str | None = None
        # Why the contents may be wrong: until that is known nothing is applied, no read is answered, and this node stands for
        # no election. None while there is no doubt.
        self.doubt: str | None = None
        self._core = core
        self._ticks = ticks

    def fail(self, reason: str) -> None:
        """Stop this node's part in the cluster because of ``reason``, such as a failed disk. Reads may go on."""
        if self.failure is None:
            self.failure = reason
            logger.error("this node takes no further part in the cluster: %s", reason)
            self._core.step_down()
            self._ticks.wake()

    def outdated(self, error: NewerCacheFlow) -> None:
        """Stop the node: the cluster uses what only a newer build than this one knows. Nothing is damaged."""
        self.stumbled = f"the cluster goes on at a level that is not known here: {error}"
        self.fail(self.stumbled)

    def stumble(self, reason: str) -> None:
        """Stop the state machine until a restart, for ``reason``: its state may be wrong, as an entry may be half applied."""
        self.stumbled = f"{reason}, a defect of CacheFlow: keep the data directory for a report, and start it again"
        logger.critical("%s", self.stumbled)
        self.fail(self.stumbled)
