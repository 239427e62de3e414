"""Announcer: tells the log what becomes of the cluster, on every node: who leads, who is a member, who does not answer.

1. Each thing is said once, when it happens; what a restarted node reads again in its own log is not said again.
2. That a connection has begun or ended is the transport's to tell; here stands what no connection shows.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from cacheflow.machine.state.settings import Member
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.membership.configuration import Configurations
from cacheflow.raft.peers import Peers

logger = logging.getLogger(__name__)

# Milliseconds without a leader after which that is worth a line: elections take a tenth of it.
NO_LEADER_MS: Final = 5000
# Milliseconds for which a member with a connection must be silent: one that has just connected has not answered yet.
SILENT_MS: Final = 1000


class Announcer:
    """Tells the log who leads the cluster, who its members are, and which of them do not answer."""

    def __init__(self, core: Core, links: Links, peers: Peers, configurations: Configurations, node_id: str) -> None:
        self._core = core
        self._links = links
        self._peers = peers
        self._configurations = configurations
        self._node_id = node_id
        # The leader that was told last, its term, and the member table that was told last.
        self._leader_id: str | None = None
        self._term = 0
        self._told = configurations.latest
        # Since when no leader is known, in ms; None while one is.
        self._without_ms: int | None = None
        self._lack_told = False
        # The members whose connection stands and who do not answer this leader: (since when, in ms, whether that was told).
        self._silent: dict[str, tuple[int, bool]] = {}

    def tell_leader(self, leader_id: str) -> bool:
        """Tell that ``leader_id`` leads the cluster, if that is new; return whether it is another one than before."""
        term, is_other = self._core.term, leader_id != self._leader_id
        if (is_other or term != self._term or self._lack_told) and leader_id != self._node_id:
            logger.info("%s leads in term %d", leader_id, term)
        self._leader_id, self._term = leader_id, term
        return is_other

    def look(self) -> None:
        """Tell what has changed since the last call: members, who does not answer, and whether a leader is missing.

        Called once a heartbeat.
        """
        settled = self._configurations.settled
        if settled.index > self._told.index:
            self._tell_members(self._told.members, settled.members)
            self._told = settled
        now_ms = self._links.now_ms()
        if self._core.is_leader or self._silent:
            self._tell_silent(now_ms)
        if self._links.route is not None or not settled.members:
            self._without_ms, self._lack_told = None, False
            return
        if self._without_ms is None:
            self._without_ms = now_ms
        if not self._lack_told and now_ms - self._without_ms >= NO_LEADER_MS:
            self._lack_told = True
            away = sorted(self._peers.down_ids())
            logger.warning(
                "no leader for %g s, so nothing can be written: %s",
                NO_LEADER_MS / 1000,
                f"no connection with {', '.join(away)}" if away else "this node hears none, although all are connected",
            )

    def _tell_members(self, before: Mapping[str, Member], after: Mapping[str, Member]) -> None:
        if not before:
            return  # the first table that this node sees is no change
        for node_id in sorted(before.keys() - after.keys()):
            logger.info("%s is no member of the cluster any more", node_id)
        for node_id, member in sorted(after.items()):
            old = before.get(node_id)
            if old is None or old.incarnation != member.incarnation:
                logger.info("%s is a member of the cluster now, at %s", node_id, member.raft_address)
            elif old.raft_address != member.raft_address:
                logger.info("%s has moved from %s to %s", node_id, old.raft_address, member.raft_address)
            if member.voter != (old is not None and old.voter):
                logger.info("%s %s", node_id, "votes now" if member.voter else "votes no more")

    def _tell_silent(self, now_ms: int) -> None:
        links, before, self._silent = self._links, self._silent, {}
        leads = self._core.is_leader
        for node_id in self._peers.down if leads else ():
            if not links.is_connected(node_id):
                continue
            since_ms, is_told = before.get(node_id, (now_ms, False))
            if not is_told and now_ms - since_ms >= SILENT_MS:
                is_told = True
                logger.warning(
                    "%s does not answer, although its connection stands: does its process hang, or its disk?", node_id
                )
            self._silent[node_id] = since_ms, is_told
        for node_id, (_, is_told) in before.items():
            if is_told and leads and node_id not in self._silent and links.is_connected(node_id):
                logger.info("%s answers again", node_id)
