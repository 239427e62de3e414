"""Votes: who is given a vote and who gives one back, as the leader decides it without being asked.

1. While fewer than ``replicas`` + 1 members vote, a spare that has caught up is given a vote.
2. While more vote, one gives its vote back: first those that are down, then the one furthest behind, of equal ones the
   last by id; the leader never does. It is a spare from then on.
3. A voter that the leader has not heard for ``replace_after_s`` gives its vote back when a spare is ready for it, which
   rule 1 gives it then. In this order, since a vote that a dead voter has lost is missed by nobody, while a voter more
   makes the majority larger, and the newcomer may die before the dead one has given its vote back.
4. Nobody gives a vote back by rules 2 and 3 unless a majority is up and has caught up, of those who vote now and of those
   who would then.

Each is one member's vote and one member table, so any two majorities have a node in common (dissertation 4.1).

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from cacheflow.machine.state.settings import Member
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.peers import REPLICATE, Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.leader import Leading
from cacheflow.raft.seams import Timing

logger = logging.getLogger(__name__)

# The most heartbeats that count as silence between two looks: a process that stood still has heard nobody, and all are well.
LOOK_HEARTBEATS = 2


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What people are told of a change of one member's vote that the leader works at.

    what: "catching up" with what is committed, for a vote, or "replacement" of a voter that is down.
    since_ms: for how long already.  due_ms: how long it may still take until the member is replaced; None if that is unknown.
    """

    what: str
    since_ms: int
    due_ms: int | None = None


class Votes:
    """The part of a leader that gives votes to members and takes votes back, so that ``replicas`` + 1 living members vote.

    replicas: a setting of the cluster, kept in its log.
    """

    def __init__(
        self,
        core: Core,
        *,
        links: Links,
        peers: Peers,
        replica: Replica,
        membership: Membership,
        leading: Leading,
        timing: Timing,
    ) -> None:
        self._core = core
        self._links = links
        self._peers = peers
        self._replica = replica
        self._membership = membership
        self._leading = leading
        self._replace_after_ms = round(timing.replace_after_s * 1000)
        self._look_ms_max = round(LOOK_HEARTBEATS * timing.heartbeat_s * 1000)
        # The term in which this leader looks, and when it has looked last.
        self._term = 0
        self._looked_ms = 0
        # {voter id: for how many ms this leader has not heard that voter}; those that are heard are not in it.
        self.silent_ms: dict[str, int] = {}
        # {member id: since when this leader has that spare catch up for a vote}.
        self._learning_since_ms: dict[str, int] = {}

    def look(self) -> None:
        """As leader, note how long each voter has been silent, and which members catch up to get a vote.

        Called once a heartbeat.
        """
        latest, down = self._membership.configurations.latest, self._peers.down
        is_new = self._term != self._core.term
        if not (is_new or down or self.silent_ms or latest.spares or self._learning_since_ms):
            return  # as nearly always
        now_ms = self._links.now_ms()
        if is_new:
            self._term, self._looked_ms = self._core.term, now_ms
            self.silent_ms, self._learning_since_ms = {}, {}
        passed_ms = min(now_ms - self._looked_ms, self._look_ms_max)
        self._looked_ms = now_ms
        self.silent_ms = {
            node_id: self.silent_ms.get(node_id, 0) + passed_ms for node_id in latest.voters if node_id in down
        }
        learning = latest.spares if self._missing(latest) > 0 else []
        self._learning_since_ms = {
            member.id: self._learning_since_ms.get(member.id, now_ms) for member in learning if member.id not in down
        }

    def is_wanted(self, latest: Configuration) -> bool:
        """True if the number of voters should change and may change in any turn. latest: the member table in force.

        False if a voter is missing and all members that could get a vote are down: those are looked at once a heartbeat.
        """
        replicas = self._replica.machine.settings.replicas
        if replicas is None:
            return False
        votes, spares = len(latest.voters), latest.spares
        if votes > replicas:
            return votes > replicas + 1
        return bool(spares) and any(member.id not in self._peers.down for member in spares)

    def next_table(self, latest: Configuration) -> Configuration | None:
        """Return the next member table, in which one member gets or loses its vote; None if no vote is to change now.

        latest: the member table in force.
        """
        missing = self._missing(latest)
        if missing > 0:
            ready = self._ready_spare(latest)
            return None if ready is None else latest.with_member(replace(ready, voter=True))
        leaving = self._surplus(latest) if missing < 0 else self._dead(latest)
        if leaving is None:
            return None
        after = latest.with_member(replace(latest.members[leaving], voter=False))
        if not self._stands(latest) or not self._stands(after):
            return None
        logger.log(
            logging.INFO if missing < 0 else logging.WARNING,
            "%s gives its vote back: %s",
            leaving,
            "more vote than replicas says" if missing < 0 else "it is down, and another node takes its place",
        )
        return after

    def lack_of(self, node_id: str) -> str:
        """Return, for people, why the member ``node_id`` is not ready to vote yet; "" if it is.

        The member may lack at most what was committed in one heartbeat, its round (Raft dissertation 4.2.1).
        """
        if node_id == self._membership.node_id:
            return ""
        progress = self._peers.progress.get(node_id)
        if progress is None or node_id in self._peers.down_ids():
            return "it is down"
        lacks = self._leading.committed_lately - progress.match_index
        if progress.state != REPLICATE or lacks > 0:
            return f"it is still catching up: it lacks {max(lacks, 1)} entries of the log"
        return ""

    def replicas(self) -> int | None:
        """Return how many members shall vote beside the leader, a setting of the cluster; None until the log holds that."""
        return self._replica.machine.settings.replicas

    def under_way(self) -> dict[str, UnderWay]:
        """Return {member id: change of its vote that this leader works at}; an empty dict where this node does not lead."""
        if not self._core.is_leader:
            return {}
        latest, now_ms = self._membership.configurations.latest, self._links.now_ms()
        told = {
            node_id: UnderWay("catching up", now_ms - since_ms) for node_id, since_ms in self._learning_since_ms.items()
        }
        if self._replace_after_ms:
            for node_id, silent_ms in self.silent_ms.items():
                due_ms = max(0, self._replace_after_ms - silent_ms) if latest.spares else None
                told[node_id] = UnderWay("replacement", silent_ms, due_ms)
        return told

    def _missing(self, latest: Configuration) -> int:
        """Return how many voters ``latest``, a member table, has too few for the setting ``replicas``; negative: too many."""
        replicas = self.replicas()
        return 0 if replicas is None else replicas + 1 - len(latest.voters)

    def _ready_spare(self, latest: Configuration) -> Member | None:
        return next((member for member in latest.spares if not self.lack_of(member.id)), None)

    def _surplus(self, latest: Configuration) -> str:
        """Return the id of the voter, never the leader, to lose its vote first: one that is down, or the one furthest behind.

        latest: the member table in force.
        """
        down = self._peers.down_ids()

        def order(node_id: str) -> tuple[bool, int, str]:
            progress = self._peers.progress.get(node_id)
            return node_id in down, -(progress.match_index if progress is not None else 0), node_id

        return max([node_id for node_id in latest.voters if node_id != self._membership.node_id], key=order)

    def _dead(self, latest: Configuration) -> str | None:
        """Return the id of the voter that has been silent for longest and for too long; None if nobody is to be replaced."""
        if not self._replace_after_ms or not self.silent_ms:
            return None
        dead = [
            (silent_ms, node_id)
            for node_id, silent_ms in self.silent_ms.items()
            if silent_ms >= self._replace_after_ms and node_id in latest.voters and node_id in self._peers.down
        ]
        return max(dead)[1] if dead and self._ready_spare(latest) is not None else None

    def _stands(self, table: Configuration) -> bool:
        """True if a majority of the voters of ``table`` is up and has caught up."""
        return 2 * sum([not self.lack_of(node_id) for node_id in table.voters]) > len(table.voters)
