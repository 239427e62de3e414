"""Following: what a node does with its leader's messages and learns from them: time, freshness, which members are down.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.hung_disk import DiskWatch
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.log.records import LogEntry
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.message_types import AppendAck
from cacheflow.raft.peers import Peers
from cacheflow.raft.roles.elections import Elections
from cacheflow.raft.roles.freshness import Freshness
from cacheflow.raft.seams import Clock
from cacheflow.raft.snapshots.divergence import Divergence
from cacheflow.raft.transport.network import Peer

# The random origin of clock readings is below this: more than any clock shows, and a reading still fits into a message.
CLOCK_ORIGIN_MAX = 2**61
# The clocks of two machines agree on how long something took to one part in so many: ten times worse than clocks that are not
# disciplined at all, each up to 100 ppm off.
CLOCKS_APART = 500
# While the disk hangs, records of more bytes than this that wait for it let this node hear its leader and take nothing.
WAITING_BYTES_MAX = 16 * 1024 * 1024


class Following:
    """The part of a node that acts when the node follows: it takes a leader's entries and commit index, and answers.

    random: returns a number of at least 0 and below 1.  build_level: the highest feature level that this build knows.
    """

    def __init__(
        self,
        core: Core,
        journal: Journal,
        clock: Clock,
        random: Callable[[], float],
        *,
        links: Links,
        peers: Peers,
        membership: Membership,
        elections: Elections,
        freshness: Freshness,
        divergence: Divergence,
        disk: DiskWatch,
        build_level: int,
    ) -> None:
        self._core = core
        self._journal = journal
        self._clock = clock
        self._links = links
        self._peers = peers
        self._membership = membership
        self._elections = elections
        self._freshness = freshness
        self._divergence = divergence
        self._disk = disk
        self._build_level = build_level
        # (leader's id, newest answer): the answer for entries that came already committed, which waits until they are durable.
        self._relaxed: tuple[str, AppendAck] | None = None
        # The index up to which entries of the leader's are on their way here, as it has said last; 0 if it has said nothing.
        self.under_way = 0
        # The commit index that a leader has told last, also where this node lacks the entries up to there.
        self.told_commit_index = 0
        # (term, the leader's clock) of the latest message whose header was heard: one that it has overtaken says nothing new,
        # and its time is long past.
        self._heard = (0, 0)
        # The random origin of the clock readings that leaders are told. It tells one start of this node from another: a
        # leader may still hold a reading of the last start, and after a reboot that was of another clock.
        self._clock_origin_ms = int(random() * CLOCK_ORIGIN_MAX)
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "append_entries": self._on_append,
            "commit": self._on_commit,
            "term": self._on_term,
        }

    def hear_leader(self, peer: Peer, message: dict[str, Any]) -> None:
        """Take ``peer`` as the leader of the term in its ``message``, and take nothing else from that message."""
        self._hand_over(peer, message["term"], 0, self._journal.last_index, self._journal.last_term, [])

    def _hand_over(
        self, peer: Peer, term: int, commit_index: int, prev_index: int, prev_term: int, entries: list[LogEntry]
    ) -> None:
        self._core.receive(
            peer.node_id,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit_index,
                "prevLogIdx": prev_index,
                "prevLogTerm": prev_term,
                "entries": entries,
            },
        )
        self._elections.leader_heard()

    def _on_append(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        if term < core.term:
            self._links.send(peer.node_id, {"type": "term", "term": core.term})
            return
        if core.is_leader and term == core.term:
            raise guards.SafetyViolation(f"{peer.node_id} leads term {term} too")
        if self._disk.hung and self._journal.waiting_bytes > WAITING_BYTES_MAX:
            # Without an answer the leader sends no more than its window; the first rejection afterwards sets it right.
            self.hear_leader(peer, message)
            return
        at_ms, clock_ms = guards.natural(message, "at"), self._links.now_ms() + self._clock_origin_ms
        verdict = guards.check_append(self._journal, core.commit_index, message, self._build_level)
        self.told_commit_index = message["commit_index"]
        if isinstance(verdict, guards.Reject):
            self.hear_leader(peer, message)
            rejection: AppendAck = {
                "type": "append_ack",
                "at": at_ms,
                "clock": clock_ms,
                "term": core.term,
                "ok": False,
                "prev": message["prevLogIdx"],
                "last": verdict.last_index,
                "conflict_term": verdict.conflict_term,
                "conflict_index": verdict.conflict_index,
            }
            self._links.send(peer.node_id, rejection)
            return
        if verdict.entries and not self._journal.cluster_id:
            # Whose log it is comes before what is in it: a recovered cluster's has tables of an older cluster.
            self._journal.enter_cluster(peer.cluster_id)
        if not verdict.truncates and core.extend(peer.node_id, term, verdict.commit_index, verdict.entries):
            self._elections.leader_heard()
        else:
            self._hand_over(peer, term, verdict.commit_index, verdict.prev_index, verdict.prev_term, verdict.entries)
        self._membership.follow(verdict)
        self._hear_header(message)
        if (
            self._freshness.catch_up_to is None
            and self._clock.heard
            and self._journal.term_at(message["commit_index"]) == term
        ):
            # Only a leader that has committed in its own term knows what is committed (dissertation 6.4); and by a late
            # message's time a read would find what has expired.
            self._freshness.catch_up_to = message["commit_index"]
        node_id = peer.node_id
        reply: AppendAck = {
            "type": "append_ack",
            "at": at_ms,
            "clock": clock_ms,
            "term": core.term,
            "ok": True,
            "match": verdict.verified,
        }
        if not verdict.entries:
            # At once, however long the disk takes: the leader learns that this node lives, and what is durable already.
            reply["match"] = min(verdict.verified, self._journal.durable_index)
            self._links.send(node_id, reply)
        elif verdict.verified <= verdict.commit_index:
            self._answer_relaxed(node_id, reply)
        else:
            self._links.hold_message(node_id, reply)

    def _answer_relaxed(self, node_id: str, reply: AppendAck) -> None:
        """Send the leader ``reply``, which acknowledges committed entries, once these entries are durable on this node.

        No client waits for this reply, so one reply may answer several messages.
        """
        held, self._relaxed = self._relaxed, (node_id, reply)
        if held is None:
            self._links.hold(self._send_relaxed)

    def _send_relaxed(self) -> None:
        assert self._relaxed is not None
        (node_id, reply), self._relaxed = self._relaxed, None
        durable = self._journal.durable_index
        if reply["term"] == self._core.term:
            self._links.send(node_id, reply | {"match": min(reply["match"], durable)})
            if durable < reply["match"] <= self._journal.last_index:
                # The entries of the latest message came after that flush had begun: answer for them after the next flush.
                self._answer_relaxed(node_id, reply)

    def _on_commit(self, peer: Peer, message: dict[str, Any]) -> None:
        """Raise this node's commit index to the one in the leader's message, if the log has the leader's entry there.

        The log then has all of the leader's entries before that one, too (log matching).
        """
        index = self.told_commit_index = guards.natural(message, "index")
        if self._journal.term_at(index) == guards.natural(message, "index_term"):
            if self._core.extend(peer.node_id, guards.natural(message, "term"), index, ()):
                self._elections.leader_heard()

    def _hear_header(self, message: dict[str, Any]) -> None:
        sent = message["term"], message["at"]
        if sent < self._heard:
            return
        self._heard = sent
        now_ms, late_ms = self._links.now_ms(), None
        clock_ms = guards.natural(message, "clock")
        if clock_ms:
            # The leader sent the message at this time of our own clock or later. Each number was rounded.
            hold_ms, age_ms = guards.natural(message, "hold"), guards.natural(message, "age")
            sent_at_ms = clock_ms - self._clock_origin_ms + hold_ms
            if 0 < sent_at_ms <= now_ms + 2:
                late_ms = now_ms - sent_at_ms
                # Both were measured by the leader's clock, which may run faster or slower than this one.
                unsure_ms = -(-(hold_ms + age_ms) // CLOCKS_APART)
                self._freshness.note_mark(message["commit_index"], sent_at_ms - age_ms - unsure_ms)
        self._clock.hear(guards.natural(message, "time"), late_ms)
        seen = message.get("seen")
        if type(seen) is dict:
            self._peers.seen_at_ms = {
                node_id: now_ms - ago_ms for node_id, ago_ms in seen.items() if type(ago_ms) is int
            }
        down = message.get("down")
        if type(down) is list:
            self._peers.set_down([node_id for node_id in down if type(node_id) is str])
        under_way = message.get("under_way")
        self.under_way = under_way if type(under_way) is int else 0
        self._divergence.compare(message.get("digest"))

    def _on_term(self, peer: Peer, message: dict[str, Any]) -> None:
        self._core.adopt_term(guards.natural(message, "term"))
