"""Elections: pre-votes, votes, and the estimates of the cluster's time that travel with them.

1. Before a campaign a node asks whether it would be elected, without raising its term: one that comes back from a
   partition does not depose a working leader (dissertation 9.6).
2. A node that hears a leader grants nothing and takes no later term (4.2.3), unless that leader asked for the election
   itself (3.10).
3. A vote counts once, from a voter of the latest configuration with its incarnation (3.4); a node whose disk was
   emptied has another one.
4. Voters tell their estimate of the cluster's time: a node that is elected before it ever heard a leader takes the
   latest estimate of the voters that did, and the latest of all when none did.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import CANDIDATE, Core
from cacheflow.raft.hung_disk import DiskWatch
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.message_types import PreVoteReply
from cacheflow.raft.seams import Clock
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Peer

# A leader whose connection broke is taken for dead. Within this time each survivor has a moment of its own to campaign:
# survivors with equal logs that began together would split the vote, which costs an election timeout.
LEADER_LOST_WITHIN_S = 0.1
# A node that grants a pre-vote does not campaign for this long: enough for that candidate's votes to be flushed and counted.
GIVE_WAY_S = 0.15


class Elections:
    """The election rules that are added to PySyncObj's own."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        clock: Clock,
        *,
        links: Links,
        ticks: Ticks,
        membership: Membership,
        disk: DiskWatch,
    ) -> None:
        self._core = core
        self._journal = journal
        self._clock = clock
        self._links = links
        self._ticks = ticks
        self._membership = membership
        self._disk = disk
        self._leader_heard_s = -math.inf
        # The term that this node asks pre-votes for, and the ids that have granted one; the ids that have voted for it, and
        # in which term.
        self._pre_vote_term = 0
        self._pre_votes: set[str] = set()
        self._votes: set[str] = set()
        self._votes_term = 0
        # The latest estimate of the cluster's time by voters that have heard no leader since their start (False), and
        # by those that have (True).
        self._latest_voter_ms = {False: 0, True: 0}
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "pre_vote": self._on_pre_vote,
            "pre_vote_reply": self._on_pre_vote_reply,
            "request_vote": self._on_request_vote,
            "response_vote": self._on_response_vote,
            "timeout_now": self._on_timeout_now,
        }

    @property
    def latest_voter_ms(self) -> tuple[int, bool]:
        """The latest estimate of the cluster's time by this term's voters, and whether its author has heard a leader.

        The estimate is 0 when this node has heard a leader and no voter has: then this node's own is better.
        """
        if self._votes_term != self._core.term:
            return 0, False
        heard_ms = self._latest_voter_ms[True]
        if heard_ms or self._clock.heard:
            return heard_ms, bool(heard_ms)
        return self._latest_voter_ms[False], False

    @property
    def leader_silent_s(self) -> float:
        """Seconds since the leader was heard; 0 on the leader itself."""
        return 0.0 if self._core.is_leader else self._core.now() - self._leader_heard_s

    def leader_heard(self) -> None:
        """Note that the leader of the current term has sent something valid."""
        self._leader_heard_s = self._core.now()
        self._core.withdraw()

    def leader_lost(self) -> None:
        """Prepare to campaign at this node's turn among the survivors, because the connection to the leader broke."""
        core, node_id = self._core, self._membership.node_id
        survivors = sorted({*core.voter_ids, node_id} - {core.leader_id})
        turn = (survivors.index(node_id) + core.term) % len(survivors)
        wait_s = LEADER_LOST_WITHIN_S * (turn + 0.5) / len(survivors)
        self._leader_heard_s = -math.inf
        core.expect_election(wait_s)
        # The timer comes once a heartbeat, at which the survivors would begin together.
        self._ticks.wake_after(wait_s + 0.001)

    def start_pre_vote(self) -> None:
        """Ask the voters whether a campaign would succeed."""
        core = self._core
        self._pre_vote_term = core.term + 1
        self._pre_votes = {self._membership.node_id}
        voter_ids = core.voter_ids
        if self._is_majority(self._pre_votes):
            core.campaign()
            self._ticks.wake()
            return
        for node_id in voter_ids:
            self._links.send(
                node_id,
                {
                    "type": "pre_vote",
                    "term": self._pre_vote_term,
                    "last_log_index": self._journal.last_index,
                    "last_log_term": self._journal.last_term,
                },
            )

    def complete(self, message: dict[str, Any]) -> None:
        """Add the fields that PySyncObj's own vote messages lack: the time, and whether a transfer is under way."""
        if message["type"] == "response_vote":
            message["time"] = self._clock.now_ms() if self._clock.known else 0
            message["heard"] = self._clock.heard
        elif message["type"] == "request_vote":
            message["transfer"] = self._core.asked_to_lead
            self._begin_count(message["term"])

    def _begin_count(self, term: int) -> None:
        if self._votes_term != term:
            self._votes_term = term
            self._votes = set()
            self._latest_voter_ms = {False: 0, True: 0}

    def _is_majority(self, node_ids: set[str]) -> bool:
        return len(node_ids) > (len(self._core.voter_ids) + 1) // 2

    def _hears_leader(self) -> bool:
        core = self._core
        return core.is_leader or core.now() - self._leader_heard_s < core.conf.raftMinTimeout

    def _on_pre_vote(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        granted = (
            term > core.term
            and not self._hears_leader()
            # Its vote could not follow.
            and not self._disk.hung
            and self._may_be_elected(peer, message)
            and guards.is_up_to_date(self._journal.last_index, self._journal.last_term, message)
        )
        if granted:
            core.give_way(GIVE_WAY_S)
        reply: PreVoteReply = {"type": "pre_vote_reply", "term": term, "current": core.term, "granted": granted}
        self._links.send(peer.node_id, reply)

    def _on_pre_vote_reply(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term, current = guards.natural(message, "term"), guards.natural(message, "current")
        if message.get("granted") is not True:
            core.adopt_term(current)
            return
        if core.is_leader or (core.role == CANDIDATE and term <= core.term):
            return
        if term == self._pre_vote_term == core.term + 1 and self._membership.is_voter(peer):
            self._pre_votes.add(peer.node_id)
            if self._is_majority(self._pre_votes):
                self._pre_vote_term = 0
                core.campaign()

    def _on_request_vote(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        guards.is_up_to_date(0, 0, message)
        if term < core.term:
            self._links.send(peer.node_id, {"type": "term", "term": core.term})
            return
        if self._hears_leader() and message.get("transfer") is not True:
            return
        if self._may_be_elected(peer, message):
            core.receive(peer.node_id, message)

    def _may_be_elected(self, peer: Peer, message: dict[str, Any]) -> bool:
        """True if the peer may be a voter: by our configuration, or by entries that it has and we lack (4.2.1).

        A member with another incarnation may not: its disk was emptied.
        """
        member = self._membership.configurations.latest.members.get(peer.node_id)
        if member is None:
            return guards.natural(message, "last_log_index") > self._journal.last_index
        return member.incarnation == peer.incarnation and (
            member.voter or guards.natural(message, "last_log_index") > self._journal.last_index
        )

    def _on_response_vote(self, peer: Peer, message: dict[str, Any]) -> None:
        term = guards.natural(message, "term")
        if term != self._core.term or term != self._votes_term or not self._membership.is_voter(peer):
            return
        if peer.node_id not in self._votes:
            self._votes.add(peer.node_id)
            heard, latest_ms = message.get("heard") is True, guards.natural(message, "time")
            self._latest_voter_ms[heard] = max(self._latest_voter_ms[heard], latest_ms)
            self._core.receive(peer.node_id, message)

    def _on_timeout_now(self, peer: Peer, message: dict[str, Any]) -> None:
        guards.natural(message, "term")
        if peer.node_id == self._core.leader_id and self._membership.may_campaign():
            self._core.receive(peer.node_id, message)
