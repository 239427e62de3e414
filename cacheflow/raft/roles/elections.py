"""Elections: pre-votes and votes.

1. Before a campaign a node asks whether it would be elected, without raising its term: one that comes back from a
   partition does not depose a working leader (dissertation 9.6).
2. A node that hears a leader grants nothing and takes no later term (4.2.3), unless that leader asked for the election
   itself (3.10).
3. A vote counts once, from a voter of the latest configuration with its incarnation (3.4); a node whose disk was
   emptied has another one.
4. Voters tell their estimate of the cluster's time with each answer to a candidate (``voters_time.py``). A candidate whose
   answers differ waits for the others' a moment, before its campaign and not as leader: nobody waits for it yet.
5. Of two with equal logs that first ask for pre-votes at the same moment only the one whose id comes first goes on: both would
   campaign, vote for themselves, and wait for another election timeout. Who asks again does so at a random moment and stands
   in nobody's way: it may be cut off from too many to win, and its id may come first for ever.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.hung_disk import DiskWatch
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.message_types import PreVoteReply
from cacheflow.raft.peers import Peers
from cacheflow.raft.roles.voters_time import VotersTime
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.transport.network import Peer

# A leader whose connection broke is taken for dead. Within this time each survivor has a moment of its own to campaign:
# survivors with equal logs that began together would split the vote, which costs an election timeout.
LEADER_LOST_WITHIN_S = 0.1
# A node that grants a pre-vote does not campaign for this long: enough for that candidate's votes to be flushed and counted. And
# for this many election timeouts at most, half of the shortest pause between two rounds: a node that asks for pre-votes again
# and again and cannot win, because it reaches too few voters, must not keep one from campaigning that can.
GIVE_WAY_S = 0.15
GIVE_WAY = 0.15
# How long a candidate waits for the time of voters that have not answered, in election timeouts: all that run have
# answered by then, and where one is down the cluster is back half a second later.
DISPUTE = 0.5


class Elections:
    """A node's rules for elections, beside those of PySyncObj (the Raft library): pre-votes, who may vote, quick campaigns."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        voters_time: VotersTime,
        *,
        links: Links,
        ticks: Ticks,
        peers: Peers,
        membership: Membership,
        disk: DiskWatch,
    ) -> None:
        self._core = core
        self._journal = journal
        self._voters_time = voters_time
        self._links = links
        self._ticks = ticks
        self._peers = peers
        self._membership = membership
        self._disk = disk
        self._leader_heard_s = -math.inf
        self._give_way_s = min(GIVE_WAY_S, GIVE_WAY * core.conf.raftMinTimeout)
        # The term that this node asks pre-votes for, and the ids that have granted one; the ids that have voted for it, and in
        # which term.
        self._pre_vote_term = 0
        self._pre_votes: set[str] = set()
        self._votes: set[str] = set()
        self._votes_term = 0
        # What this node has asked pre-votes for: the term, and when it had heard its last leader; and when it first asked.
        self._asked_for = 0, 0.0
        self._first_asked_s = -math.inf
        # The term whose campaign waits for more voters' time, and until when.
        self._disputed_term = 0
        self._disputed_until_s = 0.0
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "pre_vote": self._on_pre_vote,
            "pre_vote_reply": self._on_pre_vote_reply,
            "request_vote": self._on_request_vote,
            "response_vote": self._on_response_vote,
            "timeout_now": self._on_timeout_now,
        }

    @property
    def leader_silent_s(self) -> float:
        """The number of seconds since this node has heard from its leader; 0 on the leader itself."""
        return 0.0 if self._core.is_leader else self._core.now() - self._leader_heard_s

    def leader_heard(self) -> None:
        """Note that a valid message of the current term's leader has come: this node gives up its own pre-vote or campaign."""
        self._leader_heard_s = self._core.now()
        self._pre_vote_term = 0
        self._core.withdraw()

    def leader_lost(self) -> None:
        """Prepare this node to campaign, because its connection to the leader broke.

        Each of the remaining voters first waits for a different short time, so that they do not campaign together.
        """
        core, node_id = self._core, self._membership.node_id
        survivors = sorted({*core.voter_ids, node_id} - {core.leader_id})
        turn = (survivors.index(node_id) + core.term) % len(survivors)
        wait_s = LEADER_LOST_WITHIN_S * (turn + 0.5) / len(survivors)
        self._leader_heard_s = -math.inf
        self._asked_for = 0, 0.0
        core.expect_election(wait_s)
        # The timer comes once a heartbeat, at which the survivors would begin together.
        self._ticks.wake_after(wait_s + 0.001)

    def start_pre_vote(self) -> None:
        """Begin a pre-vote: ask all other voters whether they would elect this node; campaign at once if there are none."""
        core = self._core
        self._pre_vote_term = core.term + 1
        asked_for = self._pre_vote_term, self._leader_heard_s
        if self._asked_for != asked_for:
            self._asked_for, self._first_asked_s = asked_for, core.now()
        self._pre_votes = {self._membership.node_id}
        for node_id in core.voter_ids:
            self._peers.asked(node_id)
            self._links.send(
                node_id,
                {
                    "type": "pre_vote",
                    "term": self._pre_vote_term,
                    "last_log_index": self._journal.last_index,
                    "last_log_term": self._journal.last_term,
                },
            )
        self._consider_campaign()

    def complete(self, message: dict[str, Any]) -> None:
        """Add to ``message``, a vote request or answer that PySyncObj, the Raft library, has made, what this program needs.

        A request gets whether the old leader asked this node to campaign.
        """
        if message["type"] == "request_vote":
            message["transfer"] = self._core.asked_to_lead
            if self._votes_term != message["term"]:
                self._votes_term = message["term"]
                self._votes = set()

    def date(self, message: dict[str, Any]) -> None:
        """Add to ``message``, if it is an answer to a vote request, this node's estimate of the cluster's time, as of now."""
        if message["type"] == "response_vote":
            message["time"], message["heard"] = self._voters_time.own()

    def _consider_campaign(self) -> None:
        """Start this node's election if a majority of the voters has granted its pre-vote.

        While the voters that answered disagree about the cluster's time, this node first waits a moment for more answers.
        """
        core, term = self._core, self._pre_vote_term
        if core.is_leader or term != core.term + 1 or not self._is_majority(self._pre_votes):
            return
        if self._voters_time.is_disputed(len(core.voter_ids) + 1):
            if self._disputed_term != term:
                wait_s = DISPUTE * core.conf.raftMinTimeout
                self._disputed_term, self._disputed_until_s = term, core.now() + wait_s
                self._ticks.call_after(wait_s, self._consider_campaign)
            if core.now() < self._disputed_until_s:
                return
        self._pre_vote_term = 0
        core.campaign()
        self._ticks.wake()

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
            and not (self._asks_too(term) and self._goes_first(peer, message))
        )
        if granted:
            if self._asks_too(term):
                self._pre_vote_term = 0
            core.give_way(self._give_way_s)
        time_ms, heard = self._voters_time.own()
        reply: PreVoteReply = {
            "type": "pre_vote_reply",
            "term": term,
            "current": core.term,
            "granted": granted,
            "time": time_ms,
            "heard": heard,
        }
        self._links.send(peer.node_id, reply)

    def _asks_too(self, term: int) -> bool:
        """True if this node has itself asked for pre-votes for this ``term``, just now and for the first time."""
        return self._pre_vote_term == term and self._core.now() - self._first_asked_s < self._give_way_s

    def _goes_first(self, peer: Peer, message: dict[str, Any]) -> bool:
        """True if this node's log ends like the log of ``peer``, as the peer's ``message`` tells, and its id is the lower."""
        ends = message["last_log_term"], message["last_log_index"]
        return (self._journal.last_term, self._journal.last_index) == ends and self._membership.node_id < peer.node_id

    def _on_pre_vote_reply(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term, current = guards.natural(message, "term"), guards.natural(message, "current")
        is_voter = self._membership.is_voter(peer)
        if is_voter and term >= core.term:
            self._voters_time.note(peer.node_id, message)
        if message.get("granted") is not True:
            core.adopt_term(current)
        elif is_voter and term == self._pre_vote_term:
            self._pre_votes.add(peer.node_id)
        self._consider_campaign()

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
        """True if the node ``peer`` may get this node's vote: the member table makes it a voter, or the peer's log is longer.

        A longer log may hold a newer table (Raft dissertation 4.2.1). False if the table lists the peer with another
        incarnation: then the peer's disk was emptied.
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
            self._voters_time.note(peer.node_id, message)
            self._core.receive(peer.node_id, message)

    def _on_timeout_now(self, peer: Peer, message: dict[str, Any]) -> None:
        guards.natural(message, "term")
        if peer.node_id == self._core.leader_id and self._membership.may_campaign():
            self._core.receive(peer.node_id, message)
