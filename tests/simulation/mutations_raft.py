"""Rules of Raft taken away: what a follower deletes, verifies and commits, who votes, what old messages may say."""

from __future__ import annotations

from typing import Any

import pytest
from pysyncobj.syncobj import SyncObj

from cacheflow.machine.language import commands
from cacheflow.node.inbox import Inbox
from cacheflow.raft import guards
from cacheflow.raft.core import Core
from cacheflow.raft.log import segments
from cacheflow.raft.membership.changes import Reconfiguration
from cacheflow.raft.membership.hand_over import HandOver
from cacheflow.raft.node import RaftNode
from cacheflow.raft.peers import Progress
from cacheflow.raft.roles import replication
from cacheflow.raft.roles.follower import Following
from cacheflow.raft.roles.leader import Leading
from cacheflow.raft.roles.replication import Replicator
from cacheflow.raft.roles.voters_time import VotersTime
from cacheflow.raft.snapshots.receiving import Receiving
from cacheflow.raft.transport import frames, messages
from cacheflow.raft.transport.outbox import Outbox


def delete_what_stands_behind_prev(patch: pytest.MonkeyPatch) -> None:
    """Let an old or repeated message drop entries that were acknowledged since."""
    check = guards.check_append

    def unguarded(log: Any, commit_index: int, message: dict[str, Any], level: int) -> guards.Append | guards.Reject:
        verdict = check(log, commit_index, message, level)
        prev_index, prev_term = message["prevLogIdx"], message["prevLogTerm"]
        if isinstance(verdict, guards.Reject) or prev_index < log.first_index:
            return verdict
        entries = guards.entries_of(message, prev_index, level)
        return guards.Append(prev_index, prev_term, entries, verdict.verified, verdict.commit_index, True)

    patch.setattr(guards, "check_append", unguarded)


def begin_when_the_deadline_passes_within_a_tick(patch: pytest.MonkeyPatch) -> None:
    """Let PySyncObj begin a campaign by its own look at the clock, without a pre-vote, and of a node that may have no votes."""
    patch.setattr(Core, "_SyncObj__connectedToAnyone", SyncObj._SyncObj__connectedToAnyone)


def commit_what_a_snapshot_says(patch: pytest.MonkeyPatch) -> None:
    """Take the leader's commit index from a snapshot's piece, for a log that was not compared with the leader's."""
    hear = Following.hear_leader

    def hear_leader(self: Any, peer: Any, message: dict[str, Any]) -> None:
        if message["type"] != "snapshot":
            hear(self, peer, message)
            return
        commit_index = min(message["index"], self._journal.last_index)
        self._hand_over(peer, message["term"], commit_index, self._journal.last_index, self._journal.last_term, [])

    patch.setattr(Following, "hear_leader", hear_leader)


def send_on_where_the_log_of_the_other_ends(patch: pytest.MonkeyPatch) -> None:
    """Let a rejection tell only where the follower's log ends: the conflict before it is never reached."""

    def next_after_reject(log: Any, message: dict[str, Any], match_index: int) -> int:
        last_index: int = min(guards.natural(message, "last"), log.last_index)
        return max(last_index + 1, match_index + 1)

    patch.setattr(guards, "next_after_reject", next_after_reject)


def forget_the_terms_of_answers(patch: pytest.MonkeyPatch) -> None:
    """Let acknowledgements carry no term, and give the leader of an old term no answer.

    The first alone does no harm here: one entry at a time is on its way and every leadership begins with a no-op, so what
    an old acknowledgement is about stands below what the new leader may count (dissertation 3.6.2).
    """
    on_append_ack, on_append = Leading._on_append_ack, Following._on_append

    def _on_append_ack(self: Any, peer: Any, message: dict[str, Any]) -> None:
        on_append_ack(self, peer, {**message, "term": self._core.term})

    def _on_append(self: Any, peer: Any, message: dict[str, Any]) -> None:
        if message["term"] >= self._core.term:
            on_append(self, peer, message)

    patch.setattr(Leading, "_on_append_ack", _on_append_ack)
    patch.setattr(Following, "_on_append", _on_append)


def change_the_members_at_once(patch: pytest.MonkeyPatch) -> None:
    """Take in a member at once when it registers or has caught up, whatever change is under way."""

    def proceed(self: Any) -> None:
        if not self._core.is_leader:
            return
        self._hand_over.proceed()
        while self._waiting:
            change = self._waiting.popleft()
            proposal = self._decide(self._membership.configurations.latest, change)
            if proposal is not None:
                change.index = self._leading.append_configuration(proposal)
                self._proposed = change
        for _ in self._membership.others():
            table = self.votes.next_table(self._membership.configurations.latest)
            if table is not None:
                self._leading.append_configuration(table)

    patch.setattr(Reconfiguration, "proceed", proceed)


def take_an_older_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Install any snapshot that comes, and send one to any follower that rejects an entry."""
    on_piece, install, acknowledged = Receiving._on_piece, Receiving._install, replication.Replicator.acknowledged

    class Behind:
        """A core that has nothing yet, as far as anybody asks for it."""

        commit_index = last_applied = 0

        def __init__(self, core: Any) -> None:
            self.core = core

        def __getattr__(self, name: str) -> Any:
            return getattr(self.core, name)

    def as_if_behind(call: Any) -> Any:
        def patched(self: Any, *arguments: Any) -> Any:
            core, self._core = self._core, Behind(self._core)
            try:
                return call(self, *arguments)
            finally:
                self._core = core

        return patched

    def _acknowledged(self: Any, node_id: str, message: dict[str, Any]) -> int | None:
        match_index = acknowledged(self, node_id, message)
        if match_index is None and self._peers.progress[node_id].match_index == 0:
            self._peers.progress[node_id].need_snapshot()
        return match_index

    patch.setattr(Receiving, "_on_piece", as_if_behind(on_piece))
    patch.setattr(Receiving, "_install", as_if_behind(install))
    patch.setattr(replication.Replicator, "acknowledged", _acknowledged)


# Beyond the audit's rows.


def lead_on_with_a_hung_disk(patch: pytest.MonkeyPatch) -> None:
    """Let a leader wait for its own disk for as long as it hangs, whatever the others have flushed."""
    patch.setattr(HandOver, "step_aside", lambda self: None)


def fail_when_a_segment_must_wait(patch: pytest.MonkeyPatch) -> None:
    """Take a lack of file handles or space for a disk that has failed."""
    patch.setattr(segments, "_PASSING", frozenset())


def pass_over_what_waits_for_the_next_turn(patch: pytest.MonkeyPatch) -> None:
    """Take the committed entries for applied for which a turn of the loop has had no time."""
    apply_committed = RaftNode.apply_committed

    def patched(self: RaftNode) -> None:
        apply_committed(self)
        if self.replica.failure is None and self.replica.doubt is None:
            self._core.last_applied = max(self._core.last_applied, self._core.commit_index)

    patch.setattr(RaftNode, "apply_committed", patched)


def send_large_messages_whole(patch: pytest.MonkeyPatch) -> None:
    """Send a large message in one piece, so that nothing comes between."""
    patch.setattr(frames, "PIECE_BYTES", 1 << 20)
    patch.setattr(Outbox, "pause", lambda self: None)


def overtake_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let heartbeats, acknowledgements and votes wait behind large messages."""
    patch.setattr(messages, "may_overtake", lambda message: False)


def refer_to_what_is_on_its_way(patch: pytest.MonkeyPatch) -> None:
    """Let heartbeats that overtake entries refer to these: a follower rejects them, and everything is sent again."""
    replicate_to = Replicator._replicate_to

    def forgetful(self: Replicator, *given: Any, **named: Any) -> None:
        self._backlog = lambda node_id: 0
        replicate_to(self, *given, **named)

    patch.setattr(Replicator, "_replicate_to", forgetful)


def send_again_while_it_is_on_its_way(patch: pytest.MonkeyPatch) -> None:
    """Send a block again every second, however large it is and whatever the log waits for."""
    patch.setattr(RaftNode, "log_progress", lambda self: (0, False))
    patch.setattr(RaftNode, "is_sending", lambda self: False)


def acknowledge_what_was_not_verified(patch: pytest.MonkeyPatch) -> None:
    """Let a follower acknowledge its whole log, not only what was compared with the leader's."""
    check = guards.check_append

    def boastful(log: Any, commit_index: int, message: dict[str, Any], level: int) -> guards.Append | guards.Reject:
        verdict = check(log, commit_index, message, level)
        if isinstance(verdict, guards.Append):
            end = max(log.last_index, verdict.verified)
            return guards.Append(
                verdict.prev_index, verdict.prev_term, verdict.entries, end, message["commit_index"], verdict.truncates
            )
        return verdict

    patch.setattr(guards, "check_append", boastful)


def vote_for_anybody(patch: pytest.MonkeyPatch) -> None:
    """Leave out the election restriction: vote also for a candidate whose log is behind."""
    receive = SyncObj._SyncObj__onMessageReceived

    def credulous(self: Any, sender: Any, message: dict[str, Any]) -> None:
        if message["type"] == "request_vote":
            message = {**message, "last_log_term": 2**60, "last_log_index": 2**60}
        receive(self, sender, message)

    patch.setattr(SyncObj, "_SyncObj__onMessageReceived", credulous)
    patch.setattr(guards, "is_up_to_date", lambda *_: True)


def read_without_a_barrier(patch: pytest.MonkeyPatch) -> None:
    """Let a linearizable read look at this node's memory at once."""
    patch.setattr(Inbox, "barrier", lambda self, done: done([[commands.OK]])())


def never_probe(patch: pytest.MonkeyPatch) -> None:
    """Let a leader take every rejection for an old one: followers that lack something never get it."""
    patch.setattr(Progress, "probe_from", lambda self, next_index: None)


def believe_the_latest_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """Take the latest of the voters' estimates when all rest on wall clocks, in place of the median."""

    def estimate_ms(self: Any) -> int:
        offsets = self._offsets(heard=True) or ([] if self._clock.heard else self._with_own())
        return self._now_ms() + offsets[-1] if offsets else 0

    patch.setattr(VotersTime, "estimate_ms", estimate_ms)


def believe_the_own_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """Let a leader that has heard none go by its own wall clock, whatever its voters say."""

    def estimate_ms(self: Any) -> int:
        heard = self._offsets(heard=True)
        return self._now_ms() + heard[-1] if heard else 0

    patch.setattr(VotersTime, "estimate_ms", estimate_ms)
