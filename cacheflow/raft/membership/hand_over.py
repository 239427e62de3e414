"""HandOver: the leader gives leadership to another voter (dissertation 3.10).

A leader that is to be removed or stopped hands leadership over first: PySyncObj counts its own node in every majority.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.peers import Peers
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Peer

logger = logging.getLogger(__name__)

# A hand-over that takes longer than this is given up, because proposals wait meanwhile.
HAND_OVER_MS = 2000


class HandOver:
    """A leader's transfer of its leadership to another voter, at most one at a time."""

    def __init__(self, core: Core, links: Links, ticks: Ticks, peers: Peers) -> None:
        # The voter that is to take over leadership. Nothing is appended meanwhile, so that it can have the whole log.
        self.heir: str | None = None
        self._core = core
        self._links = links
        self._ticks = ticks
        self._peers = peers
        self._asked = False
        self._until_ms = 0
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {"hand_over": self._on_hand_over}

    def begin(self, node_id: str | None) -> str | None:
        """Begin to hand this node's leadership to the voter ``node_id``, if it is connected.

        None stands for the connected voter with the longest log.
        Returns the chosen voter's id; None when this node does not lead or no such voter is connected.
        """
        heir = self._most_complete(node_id)
        if not self._core.is_leader or heir is None:
            return None
        self.heir = heir
        self._asked = False
        self._until_ms = self._links.now_ms() + HAND_OVER_MS
        self._ticks.wake()
        return self.heir

    def since_ms(self, node_id: str) -> int | None:
        """Return for how many ms this node has been handing its leadership to the voter ``node_id``; None if it is not."""
        return None if node_id != self.heir else max(0, HAND_OVER_MS - (self._until_ms - self._links.now_ms()))

    def step_aside(self) -> None:
        """Stop leading at once, as this node's disk delays the cluster, and ask a voter with the whole log to campaign."""
        heir = self._most_complete(None)
        if heir is not None:
            self._core.ask_to_lead(heir)
        self._core.step_down()

    def _on_hand_over(self, peer: Peer, message: dict[str, Any]) -> None:
        heir = message.get("heir")
        if type(heir) is not str:
            raise guards.BadMessage("hand_over: no heir")
        self.begin(heir or None)

    def _most_complete(self, node_id: str | None) -> str | None:
        """Return the id of the connected voter with the longest log; None when there is none.

        node_id: consider only this voter; None: all.
        """
        candidates = [
            (self._match_of(voter_id), voter_id)
            for voter_id in self._core.voter_ids
            if self._links.is_connected(voter_id) and node_id in (None, voter_id)
        ]
        return max(candidates)[1] if candidates else None

    def _match_of(self, node_id: str) -> int:
        progress = self._peers.progress.get(node_id)
        return progress.match_index if progress is not None else 0

    def proceed(self) -> None:
        """Ask the voter that is to become leader to campaign, once it has the whole log; give up after HAND_OVER_MS.

        Called once a turn.
        """
        if self.heir is None:
            return
        if self._links.now_ms() > self._until_ms:
            logger.warning("%s did not take over leadership in time", self.heir)
            self.heir = None
            self._ticks.wake()
        elif not self._asked:
            self._asked = self._core.ask_to_lead(self.heir)
