"""What the leader knows of each follower, and what it sends next.

A follower is in one of three states. PROBE: after a change of leader, a rejection or a new connection it gets empty
messages until one of them is verified. REPLICATE: entries are streamed, several messages ahead of their acknowledgements
(dissertation 10.2.1). SNAPSHOT: it needs what the log no longer has, or its contents are wrong; it gets no entries until it
has a snapshot. Bytes in flight are capped a peer, so that one slow follower costs memory to nobody (audit 32).

An entry goes at once to the followers that are *ahead*: those whose answers have committed the latest one. The others get
it when it is committed, with the commit in the same message, and so have no need to hurry with its flush. Once a heartbeat,
and when an entry is not committed soon, everybody gets everything until the next commit shows who is quick now.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cacheflow.raft import guards
from cacheflow.raft.log.journal import Journal

# One message: small enough to share the link with heartbeats, large enough to amortise a frame.
BATCH_BYTES = 256 * 1024
# Ahead of the acknowledgements: covers 100 MB/s at 40 ms.
INFLIGHT_BYTES_MAX = 4 * 1024 * 1024

# The states of a follower (see the module).
PROBE, REPLICATE, SNAPSHOT = "probe", "replicate", "snapshot"


@dataclass(slots=True)
class Progress:
    """One follower as the leader sees it. Times are the leader's monotonic milliseconds.

    Always 0 <= match_index < next_index, and nothing is in flight but in REPLICATE. match_index: the follower has the
    leader's log up to there, durably.  next_index: the first entry that it was not sent, or not since the last probe.
    """

    next_index: int
    match_index: int = 0
    state: str = PROBE
    inflight: deque[tuple[int, int]] = field(default_factory=deque)
    inflight_bytes: int = 0
    # When the newest message that it has answered was sent.
    acked_at_ms: int = 0
    # Its own clock in its newest answer, and when that came: lets it bound how old its contents are.
    peer_clock_ms: int = 0
    peer_clock_at_ms: int = 0
    # When it was last told how long ago the other followers were heard.
    told_seen_at_ms: int = 0
    # The newest commit index that it was sent.
    sent_commit: int = 0
    # In SNAPSHOT: its contents are wrong, whatever its log has, and only a snapshot from this index on helps. 0: they are not.
    snapshot_from: int = 0
    # Another incarnation is another disk: nothing of what the one before had verified holds for it.
    incarnation: str = ""

    def probe_from(self, next_index: int) -> None:
        """Forget what is in flight and find the point of agreement again; a follower that waits for a snapshot still waits."""
        self.next_index = next_index
        if self.state != SNAPSHOT:
            self.state = PROBE
        self.inflight.clear()
        self.inflight_bytes = 0

    def need_snapshot(self, from_index: int = 0) -> None:
        """Send the follower a snapshot and no entries. from_index: above 0 if its contents are wrong: the least that helps."""
        self.state = SNAPSHOT
        self.snapshot_from = max(self.snapshot_from, from_index)
        self.inflight.clear()
        self.inflight_bytes = 0

    def installed(self, index: int) -> None:
        """Note that the follower holds a snapshot at ``index``, and probe behind it."""
        self.state = PROBE
        self.snapshot_from = 0
        self.match_index = max(self.match_index, index)
        self.probe_from(self.match_index + 1)

    def verified(self, match_index: int, first_index: int) -> None:
        """Note that the follower has everything up to ``match_index``. first_index: where the leader's log begins."""
        # A follower that waits for a snapshot because of a hole may have got the entries themselves, from another leader.
        if self.state != SNAPSHOT or (match_index >= first_index and not self.snapshot_from):
            self.state = REPLICATE
        self.match_index = max(self.match_index, match_index)
        # Never back on an acknowledgement: what follows is in flight already (audit 1).
        self.next_index = max(self.next_index, match_index + 1)
        while self.inflight and self.inflight[0][0] <= match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]


class Leader(Protocol):
    """The core, as replication sees it."""

    commit_index: int


class Replicator:
    """The leader's side of replication.

    send: (node id, message) -> whether it was taken.  header: what every append message carries beside the log's own.
    message_for: makes one follower's message of it.  leader: knows the commit index.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        send: Callable[[str, dict[str, Any]], bool],
        header: Callable[[], dict[str, Any]],
        message_for: Callable[[dict[str, Any], Progress], dict[str, Any]],
        leader: Leader,
    ) -> None:
        self._journal = journal
        self._send = send
        self._header = header
        self._message_for = message_for
        self._leader = leader
        self.progress: dict[str, Progress] = {}
        # The followers that get an entry before it is committed; None: all of them, from an index on.
        self.ahead: frozenset[str] | None = None
        self._everybody_from = 0

    def begin(self, incarnations: Mapping[str, str]) -> None:
        """Begin a leadership: forget what was known of every follower."""
        self.progress = {}
        self.set_followers(incarnations)

    def set_followers(self, incarnations: Mapping[str, str]) -> None:
        """Take the other members, each with the incarnation of its disk; what is known of those that stay is kept."""
        self.choose_anew()
        next_index = self._journal.last_index + 1
        before, self.progress = self.progress, {}
        for node_id, incarnation in incarnations.items():
            progress = before.get(node_id)
            if progress is None or progress.incarnation != incarnation:
                progress = Progress(next_index, incarnation=incarnation)
            self.progress[node_id] = progress

    def reconnected(self, node_id: str) -> None:
        """Probe a follower anew whose connection was replaced: what was in flight may be lost."""
        progress = self.progress.get(node_id)
        if progress is not None:
            progress.sent_commit = 0
            progress.probe_from(max(progress.match_index + 1, min(progress.next_index, self._journal.last_index + 1)))

    def choose_anew(self) -> None:
        """Send the next entry to every follower, until its commit shows which of them are quick."""
        self.ahead = None
        self._everybody_from = self._journal.last_index + 1

    def hurry(self) -> None:
        """Send every follower everything: an entry is not committed as soon as it should be."""
        self.ahead = None
        self._everybody_from = self._leader.commit_index + 1
        self.send_news()

    def choose_ahead(self, voter_ids: Sequence[str]) -> None:
        """Choose the followers ahead after a commit: as many of the voters that have the entry as make a majority."""
        commit_index = self._leader.commit_index
        if self.ahead is None and commit_index >= self._everybody_from:
            having = [node_id for node_id in voter_ids if self.progress[node_id].match_index >= commit_index]
            self.ahead = frozenset(having[: (len(voter_ids) + 1) // 2])

    def replicate(self) -> None:
        """Send each follower what it lacks, or at least a heartbeat."""
        header = self._header()
        for node_id, progress in self.progress.items():
            self._replicate_to(node_id, progress, header)

    def send_news(self, answering: Collection[str] = ()) -> None:
        """Send the followers what was appended and committed since they were sent something.

        answering: those that answer their clients once they know of the commit. They come last, because such a client may
        ask any other node next.
        """
        commit_index = self._leader.commit_index
        header: dict[str, Any] | None = None
        commit: dict[str, Any] | None = None
        followers: Iterable[tuple[str, Progress]] = self.progress.items()
        if answering:
            followers = sorted(followers, key=lambda each: each[0] in answering)
        for node_id, progress in followers:
            if progress.state != REPLICATE or progress.next_index <= self._last_for(node_id):
                header = header or self._header()
                self._replicate_to(node_id, progress, header)
            elif progress.sent_commit < commit_index:
                commit = commit or self._commit_message(commit_index)
                if self._send(node_id, commit):
                    progress.sent_commit = commit_index

    def _last_for(self, node_id: str) -> int:
        """Return the index up to which a follower gets entries now."""
        return self._journal.last_index if self.ahead is None or node_id in self.ahead else self._leader.commit_index

    def _commit_message(self, commit_index: int) -> dict[str, Any]:
        """Return the message that tells a commit alone. A follower that has that entry has the log up to it (log matching)."""
        journal = self._journal
        return {
            "type": "commit",
            "term": journal.getCurrentTerm(),
            "index": commit_index,
            "index_term": journal.term_at(commit_index),
        }

    def push(self, node_id: str) -> None:
        """Send a follower what it lacks after an acknowledgement; nothing when it lacks nothing."""
        progress = self.progress[node_id]
        # The others get no entries: they would answer heartbeats with acknowledgements for ever.
        if progress.state == REPLICATE and progress.next_index <= self._last_for(node_id):
            self._replicate_to(node_id, progress, self._header())

    def _replicate_to(self, node_id: str, progress: Progress, header: dict[str, Any]) -> None:
        journal = self._journal
        last_index = self._last_for(node_id)
        heartbeat = True
        while True:
            prev_index = progress.next_index - 1
            if prev_index < journal.first_index and progress.state != SNAPSHOT:
                progress.need_snapshot()
            if progress.state == SNAPSHOT:
                # The message below still tells who leads; the follower will reject it or know it already.
                prev_index = journal.first_index
            entries: list[tuple[bytes, int, int]] = []
            has_room = progress.state == REPLICATE and progress.inflight_bytes < INFLIGHT_BYTES_MAX
            if has_room and progress.next_index <= last_index:
                entries = journal.entries(progress.next_index, BATCH_BYTES, last_index)
            if not entries and not heartbeat:
                return
            message = self._message_for(header, progress)
            message["prevLogIdx"] = prev_index
            message["prevLogTerm"] = journal.term_at(prev_index)
            message["entries"] = entries
            if not self._send(node_id, message):
                return
            progress.sent_commit = max(progress.sent_commit, header["commit_index"])
            if not entries:
                return
            heartbeat = False
            size = sum(len(entry[0]) for entry in entries)
            sent_index = entries[-1][1]
            progress.inflight.append((sent_index, size))
            progress.inflight_bytes += size
            progress.next_index = sent_index + 1

    def acknowledged(self, node_id: str, message: dict[str, Any]) -> int | None:
        """Take a follower's answer; return its verified and durable index, None when it rejected. Raises BadMessage."""
        progress = self.progress[node_id]
        progress.acked_at_ms = max(progress.acked_at_ms, guards.natural(message, "at"))
        if message.get("ok") is True:
            match_index = guards.natural(message, "match")
            if match_index > self._journal.last_index:
                raise guards.BadMessage(f"append_ack: {match_index} is beyond the log")
            progress.verified(match_index, self._journal.first_index)
            return match_index
        prev_index = guards.natural(message, "prev")
        if progress.state == SNAPSHOT:
            return None
        probing = progress.state == PROBE
        stale = prev_index != progress.next_index - 1 if probing else prev_index <= progress.match_index
        if not stale:
            if prev_index <= progress.match_index:
                # It has lost what it acknowledged: power failed, and its fsync is not "always".
                progress.match_index = 0
            progress.probe_from(guards.next_after_reject(self._journal, message, progress.match_index))
            # Only a rejection that says something new is answered at once; else they multiply.
            self._replicate_to(node_id, progress, self._header())
        return None

    def quorum_at_ms(self, voter_ids: Iterable[str], now_ms: int) -> int:
        """Return the latest moment after which a majority of the voters, this node among them, has answered."""
        times = [now_ms]
        for node_id in voter_ids:
            progress = self.progress.get(node_id)
            times.append(progress.acked_at_ms if progress is not None else 0)
        times.sort(reverse=True)
        return times[len(times) // 2]
