"""Replica: one node's copy of the cache, and whether it may still be used. Not safe for concurrent use: the loop owns it."""

from __future__ import annotations

import logging

from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.core import Core
from cacheflow.raft.ticks import Ticks

logger = logging.getLogger(__name__)


class Replica:
    """The machine with the applied contents, and the reasons why this node stopped taking part or applying."""

    def __init__(self, machine: CacheMachine, core: Core, ticks: Ticks) -> None:
        self.machine = machine
        # Why this node takes no further part in the cluster; None while it does.
        self.failure: str | None = None
        # Why the machine applies no more and may not be read; None while it works.
        self.stumbled: str | None = None
        self._core = core
        self._ticks = ticks

    def fail(self, reason: str) -> None:
        """Stop leading and promising for ``reason``: the disk failed, or safety was violated. Reads may go on."""
        if self.failure is None:
            self.failure = reason
            logger.error("this node takes no further part in the cluster: %s", reason)
            self._core.step_down()
            self._ticks.wake()

    def stumble(self, reason: str) -> None:
        """Stop the machine for good: it cannot go on nor be trusted, for it may hold a part of an entry."""
        self.stumbled = f"{reason}, a defect of CacheFlow: keep the data directory for a report, and start it again"
        logger.critical("%s", self.stumbled)
        self.fail(self.stumbled)
