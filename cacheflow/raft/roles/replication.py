"""Replication: what the leader sends to each follower next.

What a follower gets depends on the state of its progress (``peers.py``). Bytes in flight are capped a peer, so that one
slow follower costs memory to nobody (audit 32).

An entry goes at once to the followers that are *ahead*: those whose answers have committed the latest one. The others get
it when it is committed, with the commit in the same message, and so have no need to hurry with its flush. Once a heartbeat,
and when an entry is not committed soon, all voters get everything until the next commit shows who is quick now.

Who does not vote gets only what is committed, and so never has an uncommitted table that takes its vote: with a longer log than
those who still vote it would elect none of them, and could not be elected itself (Raft dissertation 4.2.2 lets it campaign).

While entries wait for a slow link, heartbeats overtake them: these then refer to what the follower has verified already, not to
what is on its way, and tell up to where that goes.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from cacheflow.raft import guards
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.message_types import AppendEntries, Commit, Sent
from cacheflow.raft.peers import PROBE, REPLICATE, SNAPSHOT, Peers, Progress

# One message: small enough to share the link with heartbeats, large enough to amortise a frame.
BATCH_BYTES = 256 * 1024
# Ahead of the acknowledgements: covers 100 MB/s at 40 ms.
INFLIGHT_BYTES_MAX = 4 * 1024 * 1024


class Leader(Protocol):
    """Interface: what replication needs of the leader: its commit index, and the ids of the other voters."""

    commit_index: int
    voter_ids: list[str]


class Replicator:
    """The part of a leader that sends its followers log entries, commit indexes and heartbeats.

    send: called with (node id, message); sends it and returns whether the network has taken it.  backlog: returns, for a node
    id, how many bytes wait in this process to be sent to that node.
    header: returns the fields of append messages that are the same for all followers.  message_for: returns the append
    message for one follower, made of these fields.
    leader: knows the commit index and the voters.  peers: knows how far each follower's log has come.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        send: Callable[[str, Sent], bool],
        backlog: Callable[[str], int],
        header: Callable[[], dict[str, Any]],
        message_for: Callable[[dict[str, Any], Progress], AppendEntries],
        leader: Leader,
        peers: Peers,
    ) -> None:
        self._journal = journal
        self._send = send
        self._backlog = backlog
        self._header = header
        self._message_for = message_for
        self._leader = leader
        self._peers = peers
        # The voters that get an entry before it is committed; None: all of them, from an index on.
        self.ahead: frozenset[str] | None = None
        self._everybody_from = 0

    def begin(self, incarnations: Mapping[str, str]) -> None:
        """Begin to replicate as a new leader: forget what was known of every follower.

        incarnations: the followers, as {node id: incarnation}.
        """
        self._peers.progress = {}
        self.set_followers(incarnations)

    def set_followers(self, incarnations: Mapping[str, str]) -> None:
        """Set who the leader's followers are, {node id: incarnation}; what is known of those that stay followers is kept."""
        self.choose_anew()
        self._peers.set_followers(incarnations, self._journal.last_index + 1)

    def reconnected(self, node_id: str) -> None:
        """Find out anew where a follower's log ends: its connection was replaced, and messages on the old one may be lost."""
        progress = self._peers.progress.get(node_id)
        if progress is not None:
            progress.sent_commit = 0
            progress.probe_from(max(progress.match_index + 1, min(progress.next_index, self._journal.last_index + 1)))

    def choose_anew(self) -> None:
        """Let the leader's next log entry go to every voter; its commit then shows which voters answer quickly."""
        self.ahead = None
        self._everybody_from = self._journal.last_index + 1

    def hurry(self) -> None:
        """Send every voter all log entries that it lacks, because an entry is not committed as soon as it should be."""
        self.ahead = None
        self._everybody_from = self._leader.commit_index + 1
        self.send_news()

    def choose_ahead(self, voter_ids: Sequence[str]) -> None:
        """After a commit, choose the followers that get the next entries first: just enough voters for a majority.

        Only voters that have acknowledged the committed entry are chosen.
        """
        commit_index = self._leader.commit_index
        if self.ahead is None and commit_index >= self._everybody_from:
            having = [node_id for node_id in voter_ids if self._peers.progress[node_id].match_index >= commit_index]
            self.ahead = frozenset(having[: (len(voter_ids) + 1) // 2])

    def replicate(self) -> None:
        """Send each follower the log entries that it lacks, or a heartbeat if none can be sent to it."""
        header = self._header()
        for node_id, progress in self._peers.progress.items():
            self._replicate_to(node_id, progress, header)

    def send_news(self, answering: Collection[str] = ()) -> None:
        """Send each follower the log entries that it should get now, or, if there are none, a new commit index.

        answering: ids of followers whose clients are answered once they know of the commit. They come last, because such
        a client may ask any other node next.
        """
        commit_index = self._leader.commit_index
        header: dict[str, Any] | None = None
        commit: Commit | None = None
        followers: Iterable[tuple[str, Progress]] = self._peers.progress.items()
        if answering:
            followers = sorted(followers, key=lambda each: each[0] in answering)
        for node_id, progress in followers:
            if progress.state != REPLICATE:
                # While a snapshot waits to leave, heartbeats are enough: more of them would leave no room for it.
                if progress.state != SNAPSHOT or not self._backlog(node_id):
                    header = header or self._header()
                    self._replicate_to(node_id, progress, header)
            elif progress.next_index <= self._last_for(node_id):
                header = header or self._header()
                self._replicate_to(node_id, progress, header, heartbeat=False)
            elif progress.sent_commit < commit_index:
                commit = commit or self._commit_message(commit_index)
                if self._send(node_id, commit):
                    progress.sent_commit = commit_index

    def _last_for(self, node_id: str) -> int:
        """Return the index of the last log entry that the follower ``node_id`` may get now.

        That is the log's end for the voters in ``ahead``, which are quick, and the commit index for the others.
        """
        leader = self._leader
        is_ahead = node_id in leader.voter_ids if self.ahead is None else node_id in self.ahead
        return self._journal.last_index if is_ahead else leader.commit_index

    def _commit_message(self, commit_index: int) -> Commit:
        """Return the message that tells a follower ``commit_index``, and the term of the entry there, without any entries.

        A follower whose log has that entry has the same log as the leader up to it (log matching).
        """
        journal = self._journal
        return {
            "type": "commit",
            "term": journal.getCurrentTerm(),
            "index": commit_index,
            "index_term": journal.term_at(commit_index),
        }

    def push(self, node_id: str) -> None:
        """Send a follower, after its acknowledgement, the log entries that it still lacks; send nothing if there are none."""
        progress = self._peers.progress[node_id]
        # The others get no entries: they would answer heartbeats with acknowledgements for ever.
        if progress.state == REPLICATE and progress.next_index <= self._last_for(node_id):
            self._replicate_to(node_id, progress, self._header(), heartbeat=False)

    def _replicate_to(
        self, node_id: str, progress: Progress, header: dict[str, Any], *, heartbeat: bool = True
    ) -> None:
        """Send the follower ``node_id`` the log entries that the follower lacks, as many as may be in flight to it at once.

        header: the fields that all followers get.  heartbeat: send a message without entries if none can be sent.
        """
        journal = self._journal
        last_index = self._last_for(node_id)
        has_room = True
        while True:
            prev_index = progress.next_index - 1
            if prev_index < journal.first_index and progress.state != SNAPSHOT:
                progress.need_snapshot()
            if progress.state == SNAPSHOT:
                # The message below still tells who leads; the follower will reject it or know it already.
                prev_index = journal.first_index
            entries: list[tuple[bytes, int, int]] = []
            has_room &= progress.state == REPLICATE and progress.inflight_bytes < INFLIGHT_BYTES_MAX
            if has_room and progress.next_index <= last_index:
                entries = journal.entries(progress.next_index, BATCH_BYTES, last_index)
            if not entries and not heartbeat:
                return
            message = self._message_for(header, progress)
            if not entries and progress.inflight and self._backlog(node_id):
                # Overtakes the entries on their way, and so must not refer to them; an acknowledgement of it says nothing new.
                message["under_way"] = prev_index
                prev_index = progress.match_index
            prev_term = journal.term_at(prev_index)
            if prev_term is None:
                # The log was trimmed behind what this follower has acknowledged: every follower has its beginning.
                prev_index = prev_term = 0
            message["prevLogIdx"] = prev_index
            message["prevLogTerm"] = prev_term
            message["entries"] = entries
            if not self._send(node_id, message):
                if not entries or not heartbeat:
                    return
                has_room = False
                continue
            progress.sent_commit = max(progress.sent_commit, header["commit_index"])
            if not entries:
                progress.asked(header["at"])
                return
            heartbeat = False
            size = sum(len(entry[0]) for entry in entries)
            sent_index = entries[-1][1]
            progress.inflight.append((sent_index, size))
            progress.inflight_bytes += size
            progress.next_index = sent_index + 1

    def acknowledged(self, node_id: str, message: dict[str, Any]) -> int | None:
        """Note a follower's answer to an append message; return up to which index that follower's log is verified and durable.

        Returns None if the answer is a rejection. Raises BadMessage.
        """
        progress = self._peers.progress[node_id]
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
                # The follower has lost what it acknowledged: power failed, and its fsync is not "always".
                progress.match_index = 0
            progress.probe_from(guards.next_after_reject(self._journal, message, progress.match_index))
            # Only a rejection that says something new is answered at once; else they multiply.
            self._replicate_to(node_id, progress, self._header())
        return None
