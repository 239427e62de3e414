"""Leading: what a leader does in each turn and each heartbeat: group commit, heartbeats, due keys, members that are down.

All queued blocks, its own and forwarded ones, become **one** entry, stamped with the cluster's time. While an entry is
on its way to a majority, more blocks gather for the next one.

An entry goes at once to the followers that are quick enough to commit it, and to the others when it is committed
(``replication.py``). A commit travels with the next entry, or at once when there is none, so that what one node has
acknowledged can be read on the others.

Not safe for concurrent use: the event loop owns it.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from cacheflow.machine.language import commands
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.links import Links
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.log.records import CONFIGURATION, NO_OP, REGULAR
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.hand_over import HandOver
from cacheflow.raft.membership.membership import Membership
from cacheflow.raft.membership.recovery import Recovery
from cacheflow.raft.peers import DOWN_AFTER_MS, Peers
from cacheflow.raft.replica import Replica
from cacheflow.raft.roles.batching import Batching
from cacheflow.raft.roles.freshness import Freshness
from cacheflow.raft.roles.origins import check_origin
from cacheflow.raft.roles.replication import Replicator
from cacheflow.raft.seams import Clock
from cacheflow.raft.ticks import Ticks
from cacheflow.raft.timings import Timings
from cacheflow.raft.transport.network import Peer

logger = logging.getLogger(__name__)

# The size up to which blocks are put into one entry: a batch of large values fits, and it is far below a frame's limit.
ENTRY_BYTES_MAX = 1024 * 1024
# Entries that may be on their way to a majority at once. With one, everything else gathers for the next: under load
# there are fewer and larger entries, hence fewer flushes and messages, and each entry carries the commit of the last.
ENTRIES_AHEAD_MAX = 1
# A member whose last answer is older than this is shown as down when its connection is broken.
BROKEN_AFTER_MS = 300
# An entry that is not committed after this time goes to all followers: one of the quick ones has stalled.
HURRY_AFTER_S = 0.005
# The pause between two looks at what is due, while there is something: an entry that removes its fill takes some milliseconds,
# and others need the loop, too.
WORK_OFF_S = 0.002


class Leading:
    """The part of a node that acts when the node leads: it queues blocks and makes log entries of them.

    On a follower this part keeps no blocks."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        clock: Clock,
        initial_settings: dict[str, Any],
        *,
        links: Links,
        ticks: Ticks,
        peers: Peers,
        replica: Replica,
        membership: Membership,
        replicator: Replicator,
        hand_over: HandOver,
        freshness: Freshness,
        timings: Timings,
    ) -> None:
        self._core = core
        self._journal = journal
        self._clock = clock
        self._initial_settings = initial_settings
        self._links = links
        self._ticks = ticks
        self._peers = peers
        self._replica = replica
        self._membership = membership
        self._replicator = replicator
        self._hand_over = hand_over
        self._freshness = freshness
        self._timings = timings
        # (origin node id, block); the origin is "" for blocks that nobody waits for.
        self.queue: deque[tuple[str, bytes]] = deque()
        self._batching = Batching(core.now, ticks.nudge_after)
        self._last_stamp_ms = 0
        # The commit index that the followers were last sent.
        self._sent_commit = 0
        # Whether a timer runs that will hurry an entry that stalls.
        self._watching = False
        # The origins of the blocks in the newest entry: the nodes whose clients wait for it.
        self._waiting: set[str] = set()
        # The commit index at the last heartbeat: a learner that has everything up to it has caught up.
        self.committed_lately = 0
        # Whether a timer runs that proposes entries while something is due.
        self._working_off = False
        # The term in which this leader has proposed its initial settings.
        self._configured_term = 0
        # {node id: since when this leader has listened for that follower}.
        self._watched_since_ms: dict[str, int] = {}
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {
            "append_ack": self._on_append_ack,
            "propose": self._on_propose,
        }

    # Leadership begins and ends ---------------------------------------------------------------------------------------

    def begin(self, told_ms: int) -> None:
        """Prepare this node, which was just elected, to lead: set its cluster clock, and forget what it knew of followers.

        told_ms: the cluster's time in ms, as the voters have told it; 0 if this node's own estimate is to be used.
        """
        others = self._membership.others()
        self._replicator.begin(others)
        # Until this leader has listened for a while, who was silent before is down.
        silent = self._peers.silent_ids() & set(others)
        self._watched_since_ms = dict.fromkeys(silent, 0)
        self._peers.set_down(sorted(silent))
        stamp_ms = self._replica.machine.now_ms
        for command, _, _ in self._journal.entries(self._core.last_applied + 1, None):
            stamp_ms = max(stamp_ms, _stamp_of(command))
        self._clock.lead(stamp_ms, told_ms)
        self._last_stamp_ms = stamp_ms
        self._sent_commit = 0
        self._waiting = set()
        self.committed_lately = self._journal.last_index
        self._batching.forget_crowds()

    def end(self) -> None:
        """Stop leading: drop the queued blocks; the nodes whose clients wait for these blocks send them again."""
        self.queue.clear()
        self._timings.waits_for = 0

    # Proposing --------------------------------------------------------------------------------------------------------

    def enqueue(self, blocks: list[bytes], crowded: bool, again: bool) -> None:
        """Queue ``blocks``, which this node has made of its own commands, for the leader's next entries.

        crowded: whether many callers wait for these blocks.  again: whether all unanswered blocks of this node come once more,
        beginning with ``blocks``; then those of this node that are still queued are dropped first.
        """
        node_id = self._membership.node_id
        if again:
            self._forget(node_id)
        for block in blocks:
            self.queue.append((node_id, block))
        if crowded:
            self._batching.note_crowd(node_id, self._journal.last_index)

    def _forget(self, origin: str) -> None:
        """Remove the blocks of the node ``origin`` from the leader's queue: that node sends all of them again."""
        self.queue = deque([queued for queued in self.queue if queued[0] != origin])

    def may_append(self) -> bool:
        """True if the leader may append the blocks in its queue to the log now. The queue must not be empty."""
        core = self._core
        return (
            core.is_leader
            and self._hand_over.heir is None
            and not (self._membership.recovery is not None and self._membership.is_unlogged)
            # What is applied, not only committed: the level in force may just have been raised.
            and self._journal.last_index - core.last_applied < ENTRIES_AHEAD_MAX
            and not (
                self._batching.crowds
                and self._batching.should_wait([origin for origin, _ in self.queue], self._journal.last_index)
                and sum([len(block) for _, block in self.queue]) < ENTRY_BYTES_MAX
            )
        )

    def propose_queued(self) -> None:
        """As leader, append the queued blocks to the log as one entry (group commit), and send it to the followers.

        If no block may be appended now, tell the followers the commit index if it is new. On a follower, empty the queue.
        """
        core = self._core
        if not core.is_leader:
            self.queue.clear()
            return
        if self._membership.recovery is not None and self._membership.is_unlogged and core.has_settled:
            self._begin_recovered_cluster(self._membership.recovery)
            return
        if not self._replica.machine.settings.version and self._configured_term != core.term:
            # Before any other entry: until it is applied, the cache has no limits.
            self._configured_term = core.term
            configure = commands.configure(self._initial_settings, version=0)
            self.queue.appendleft(("", commands.encode_block(0, 0, 0, [configure])))
        if self.queue and self.may_append():
            blocks: list[bytes] = []
            size = 0
            answering, self._waiting = self._waiting, set()
            while self.queue and (not blocks or size + len(self.queue[0][1]) <= ENTRY_BYTES_MAX):
                origin, block = self.queue.popleft()
                self._waiting.add(origin)
                blocks.append(block)
                size += len(block)
            self._append(REGULAR, blocks)
            self._send_news(answering)
        elif core.commit_index > self._sent_commit:
            self._send_news(self._waiting)

    def _begin_recovered_cluster(self, recovery: Recovery) -> None:
        """As leader, append the entry that begins a recovered cluster; before that entry no client's commands are appended."""
        logger.warning("cluster %s begins here, in the place of %s", recovery.cluster_id, recovery.replaced[-1])
        self._append(CONFIGURATION, [commands.encode_block(0, 0, 0, [recovery.command()])])
        self._send_news()

    def _send_news(self, answering: Collection[str] = ()) -> None:
        """As leader, send new entries and the commit index to those followers that need them now.

        answering: ids of the followers that can answer clients once they know the commit index.
        """
        core = self._core
        if self._replica.failure is None:
            if core.commit_index > self._sent_commit:
                self._sent_commit = core.commit_index
                self._replicator.choose_ahead(core.voter_ids)
            self._replicator.send_news(answering)
            if not self._watching:
                self._watch_for_stall()

    def _watch_for_stall(self) -> None:
        """Start a timer if the leader has sent its last entry to a bare majority of the voters only.

        If that entry is not committed when the timer ends, all followers get it.
        """
        waits = self._replicator.ahead is not None and self._core.commit_index < self._journal.last_index
        if waits:
            self._watching = True
            self._ticks.call_after(HURRY_AFTER_S, functools.partial(self._hurry_if_stalled, self._journal.last_index))

    def _hurry_if_stalled(self, index: int) -> None:
        """Send all followers the entries that they lack if the entry ``index`` is not committed yet.

        Called by a timer that was started when ``index`` was the log's last entry.
        """
        self._watching = False
        if self._core.is_leader and self._replica.failure is None:
            if self._core.commit_index < index:
                self._replicator.hurry()
            else:
                self._watch_for_stall()

    def append_configuration(self, configuration: Configuration) -> int:
        """As leader, append a member table to the log as an entry of its own, send it, and return the entry's index."""
        self._append(CONFIGURATION, [commands.encode_block(0, 0, 0, [configuration.command()])])
        self._send_news()
        return self._journal.last_index

    def replicate(self) -> None:
        """As leader, send every other member the log entries that it lacks, or a heartbeat if it lacks none."""
        if self._replica.failure is None:
            self._replicator.replicate()

    def _append(self, kind: bytes, blocks: list[bytes]) -> None:
        """Append ``blocks`` to the log as one entry of that ``kind``, with the cluster's time and the level in force."""
        self._last_stamp_ms = max(self._clock.now_ms(), self._last_stamp_ms)
        self._membership.append(kind + commands.encode_entry(self._last_stamp_ms, blocks, self._replica.machine.level))
        timings = self._timings
        if not timings.waits_for:
            timings.waits_for, timings.since_s = self._journal.last_index, timings.clock()

    def _on_propose(self, peer: Peer, message: dict[str, Any]) -> None:
        blocks = message.get("blocks")
        if type(blocks) is not list or any(type(block) is not bytes for block in blocks):
            raise guards.BadMessage("propose: no blocks")
        # A node that is no member would never learn the outcome.
        if self._core.is_leader and self._membership.is_member(peer):
            node_id = peer.node_id
            sessions = self._replica.machine.sessions
            is_settled = self._core.has_settled
            for block in blocks:
                check_origin(block, peer, sessions, is_settled)
            if message.get("again") is True:
                self._forget(node_id)
            if message.get("crowded") is True:
                self._batching.note_crowd(node_id, self._journal.last_index)
            self.queue.extend([(node_id, block) for block in blocks])

    def _on_append_ack(self, peer: Peer, message: dict[str, Any]) -> None:
        core = self._core
        term = guards.natural(message, "term")
        if term > core.term:
            core.adopt_term(term)
            self._ticks.wake()
            return
        progress = self._peers.progress.get(peer.node_id)
        if not core.is_leader or term < core.term or progress is None or not self._membership.is_member(peer):
            return
        progress.peer_clock_ms = guards.natural(message, "clock")
        progress.peer_clock_at_ms = self._links.now_ms()
        match_index = self._replicator.acknowledged(peer.node_id, message)
        progress.answered(message["at"], progress.peer_clock_at_ms)
        core.acknowledge(peer.node_id, match_index)
        if match_index is not None:
            self._replicator.push(peer.node_id)
            if match_index > core.commit_index:
                self._ticks.nudge()
        self._freshness.note_progress()

    # Once a heartbeat -------------------------------------------------------------------------------------------------

    def keep_house(self) -> None:
        """As leader, find out which members are down, and queue an entry without writes if keys are due to expire.

        Called once a heartbeat. Keys expire by the time stamps of log entries, and while nobody writes no other entries come.
        """
        self.committed_lately = max(self.committed_lately, self._core.commit_index)
        # The next entry goes to all followers and shows which of them are quick now.
        self._replicator.choose_anew()
        now_ms = self._links.now_ms()
        down = []
        for node_id, progress in self._peers.progress.items():
            connected = self._links.is_connected(node_id)
            # A new leader listens for a while before it calls a member down whose connection stands.
            since_ms = self._watched_since_ms.setdefault(node_id, now_ms if connected else 0)
            silent_ms = now_ms - max(progress.acked_at_ms, since_ms)
            if silent_ms > (DOWN_AFTER_MS if connected else BROKEN_AFTER_MS):
                down.append(node_id)
        self._peers.set_down(down)
        if not self._working_off:
            self._work_off()

    def _work_off(self) -> None:
        """As leader, queue an entry without writes if keys are due to expire and no other entry is on its way.

        Then do the same again soon, until no key is due any more.
        """
        due_ms = self._replica.machine.next_due_ms()
        self._working_off = (
            due_ms is not None
            and self._core.is_leader
            and self._core.has_settled
            and self._replica.failure is None
            and not self._ticks.stopped
            and due_ms <= self._clock.now_ms()
        )
        if not self._working_off:
            return
        if self._journal.last_index == self._core.last_applied and not self.queue:
            self.queue.append(("", commands.encode_block(0, 0, 0, [commands.noop()])))
            self._ticks.nudge()
        self._ticks.call_after(WORK_OFF_S, self._work_off)


def _stamp_of(command: bytes) -> int:
    """Return the time stamp in ms that the log entry ``command`` holds; 0 for an entry without one, such as a no-op."""
    if command[:1] == NO_OP:
        return 0
    try:
        return commands.decode_entry(command[1:])[1]
    except commands.CodecError:
        return 0
