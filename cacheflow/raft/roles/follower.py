"""The follower: what it does with its leader's messages, and learns from them: time, freshness, which members are down.

Not safe for concurrent use: the event loop owns it. ``caught_up`` and ``fresh_at_ms`` are plain values that any thread
reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.log.records import LogEntry
from cacheflow.raft.transport.network import Network, Peer

if TYPE_CHECKING:
    from cacheflow.raft.node import RaftNode
    from cacheflow.raft.seams import Clock


# Freshness marks that may wait for their index to be applied; the limit bounds their memory.
FRESH_MARKS_MAX = 64
# A leader sets a mark for its own contents this often: a turn takes a tenth of it under load, and a mark each is too many.
MARK_EVERY_MS = 5
# The random origin of clock readings is below this: more than any clock shows, and a reading still fits into a message.
CLOCK_ORIGIN_MAX = 2**61


class Following:
    """The follower's side of a node. random: gives a number of at least 0 and below 1."""

    def __init__(
        self,
        node: RaftNode,
        core: Core,
        journal: Journal,
        network: Network,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        # Whether this node has applied what the leader had committed in its own term, at least once since the start.
        self.caught_up = False
        # This process's monotonic milliseconds at which the contents were certainly the newest; 0 is never.
        self.fresh_at_ms = 0
        # The ids of the members that do not answer the leader, as it says.
        self.down: list[str] = []
        # {node id: when the leader last heard that member, by this process's clock}.
        self.seen_at_ms: dict[str, int] = {}
        self._node = node
        self._core = core
        self._journal = journal
        self._network = network
        self._clock = clock
        # The index that must be applied before reads are answered; None until the leader has said it.
        self._catch_up_to: int | None = None
        # (index, moment): contents that have applied that index were the newest at that moment.
        self._fresh_marks: deque[tuple[int, int]] = deque()
        # When this node, as leader, last set a mark for its own contents.
        self._marked_at_ms = 0
        # (leader's id, newest answer): the answer for entries that came already committed, which waits until they are durable.
        self._relaxed: tuple[str, dict[str, Any]] | None = None
        # The random origin of the clock readings that leaders are told. It tells one start of this node from another: a
        # leader may still hold a reading of the last start, and after a reboot that was of another clock.
        self._clock_origin_ms = int(random() * CLOCK_ORIGIN_MAX)
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "append_entries": self._on_append,
            "commit": self._on_commit,
            "term": self._on_term,
        }

    def note_progress(self) -> None:
        """Update ``caught_up`` and ``fresh_at_ms``, which reads look at; called once a turn."""
        core = self._core
        if core.is_leader:
            now_ms = self._node.now_ms()
            if now_ms - self._marked_at_ms >= MARK_EVERY_MS and core.has_settled:
                self.caught_up = True
                # The mark is at the commit index, not at the applied one: a committed entry may wait here while a
                # follower has acknowledged it already.
                self._marked_at_ms = now_ms
                self._note_mark(core.commit_index, self._node.leading.replicator.quorum_at_ms(core.voter_ids, now_ms))
        applied = core.last_applied
        if not self.caught_up and self._catch_up_to is not None:
            self.caught_up = applied >= self._catch_up_to
        while self._fresh_marks and self._fresh_marks[0][0] <= applied:
            self.fresh_at_ms = max(self.fresh_at_ms, self._fresh_marks.popleft()[1])

    def _note_mark(self, index: int, at_ms: int) -> None:
        """Add a mark. When there are many the newest is replaced, not the oldest, which is the next to be reached."""
        if len(self._fresh_marks) >= FRESH_MARKS_MAX:
            self._fresh_marks.pop()
        self._fresh_marks.append((index, at_ms))

    def goes_back(self) -> None:
        """Answer no reads until this node is where it was: its contents were wrong and an older snapshot replaces them."""
        self._catch_up_to = max(self._catch_up_to or 0, self._core.last_applied)
        self.caught_up = False
        self.fresh_at_ms = 0

    def hear_leader(self, peer: Peer, message: dict[str, Any]) -> None:
        """Follow the sender of a leader's message: PySyncObj gets its term and no entries."""
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
        self._node.elections.leader_heard()

    def _on_append(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        if term < core.term:
            self._network.send(peer.node_id, {"type": "term", "term": core.term})
            return
        if core.is_leader and term == core.term:
            raise guards.SafetyViolation(f"{peer.node_id} leads term {term} too")
        reply: dict[str, Any] = {
            "type": "append_ack",
            "at": guards.natural(message, "at"),
            "clock": self._node.now_ms() + self._clock_origin_ms,
        }
        verdict = guards.check_append(self._journal, core.commit_index, message)
        if isinstance(verdict, guards.Reject):
            self.hear_leader(peer, message)
            reply |= {
                "term": core.term,
                "ok": False,
                "prev": message["prevLogIdx"],
                "last": verdict.last_index,
                "conflict_term": verdict.conflict_term,
                "conflict_index": verdict.conflict_index,
            }
            self._network.send(peer.node_id, reply)
            return
        if not verdict.truncates and core.extend(peer.node_id, term, verdict.commit_index, verdict.entries):
            self._node.elections.leader_heard()
        else:
            self._hand_over(peer, term, verdict.commit_index, verdict.prev_index, verdict.prev_term, verdict.entries)
        self._node.follow_configuration(verdict)
        self._hear_header(message)
        if self._catch_up_to is None and self._journal.term_at(message["commit_index"]) == term:
            # Only a leader that has committed in its own term knows what is committed (dissertation 6.4).
            self._catch_up_to = message["commit_index"]
        reply |= {"term": core.term, "ok": True, "match": verdict.verified}
        node_id = peer.node_id
        if verdict.entries and verdict.verified <= verdict.commit_index:
            self._answer_relaxed(node_id, reply)
        else:
            self._node.hold(lambda: self._network.send(node_id, reply))

    def _answer_relaxed(self, node_id: str, reply: dict[str, Any]) -> None:
        """Answer once the entries are durable. Nobody waits for that, so one answer may stand for several messages."""
        held, self._relaxed = self._relaxed, (node_id, reply)
        if held is None:
            self._node.hold(self._send_relaxed)

    def _send_relaxed(self) -> None:
        assert self._relaxed is not None
        (node_id, reply), self._relaxed = self._relaxed, None
        durable = self._journal.durable_index
        if reply["term"] == self._core.term:
            self._network.send(node_id, reply | {"match": min(reply["match"], durable)})
            if durable < reply["match"] <= self._journal.last_index:
                # The entries of the latest message came after that flush had begun: answer for them after the next flush.
                self._answer_relaxed(node_id, reply)

    def _on_commit(self, peer: Peer, message: dict[str, Any]) -> None:
        """Take the leader's commit index. A log that has the entry there has all entries before it, too (log matching)."""
        index = guards.natural(message, "index")
        if self._journal.term_at(index) == guards.natural(message, "index_term"):
            if self._core.extend(peer.node_id, guards.natural(message, "term"), index, ()):
                self._node.elections.leader_heard()

    def _hear_header(self, message: dict[str, Any]) -> None:
        self._clock.hear(guards.natural(message, "time"))
        clock_ms = guards.natural(message, "clock")
        if clock_ms:
            # The leader sent the message at this time of our own clock or later. Each number was rounded.
            sent_at_ms = clock_ms - self._clock_origin_ms + guards.natural(message, "hold")
            if 0 < sent_at_ms <= self._node.now_ms() + 2:
                self._note_mark(message["commit_index"], sent_at_ms - guards.natural(message, "age"))
        seen = message.get("seen")
        if type(seen) is dict:
            now_ms = self._node.now_ms()
            self.seen_at_ms = {node_id: now_ms - ago_ms for node_id, ago_ms in seen.items() if type(ago_ms) is int}
        down = message.get("down")
        if type(down) is list:
            self.down = [node_id for node_id in down if type(node_id) is str]
        self._node.snapshotting.compare_digest(message.get("digest"))

    def _on_term(self, peer: Peer, message: dict[str, Any]) -> None:
        self._core.adopt_term(guards.natural(message, "term"))
