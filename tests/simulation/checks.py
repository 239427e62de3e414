"""The checks of what must hold at every moment, made after every event of every process.

Election safety, leader completeness, log matching and state-machine safety are the four properties of figure 3.2 of the
dissertation. *Durability*: what is committed is on the disks of a majority, and no restart loses what was on a disk.
*Membership*: one change at a time (4.1). A read's guarantees and what is left over at the end are ours.
A complaint begins with the name of its check.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from typing import TYPE_CHECKING

from simulation.clears import BOUNDS
from simulation.leftovers import surplus

from cacheflow.machine.effects import APPENDED, EVICTED, FIELDS_CHANGED, WRITTEN
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.settings import Member
from cacheflow.raft.log.records import CONFIGURATION
from cacheflow.raft.peers import REPLICATE

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

# A heartbeat and its answer ten times a second for every pair, and a few messages for every write.
MESSAGES_PER_S_MAX = 3000
# The most messages of one second, when everything comes at once.
MESSAGES_IN_A_SECOND_MAX = 30_000
# Outlooks are compared at every so many entries: one takes as long as applying some dozens.
OUTLOOK_EVERY = 20
# The effects of what may need room.
NEED_ROOM = {WRITTEN, APPENDED, FIELDS_CHANGED}


class Violation(Exception):
    """A promise was broken."""


class Checks:
    """The observer of all processes, who knows everything.

    ``complain`` ends the run at once, because what follows a violation means nothing.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # The leader of each term.
        self.swallowed: BaseException | None = None
        self.leaders: dict[int, str] = {}
        # What was applied anywhere, by index: (term, command), and the digest after it.
        self._committed: dict[int, tuple[int, bytes]] = {}
        self._digests: dict[int, bytes] = {}
        self._outlooks: dict[int, bytes] = {}
        self.last_committed = 1
        # The highest committed index, by the term in which it was.
        self._committed_in: dict[int, int] = {}
        # (moment, highest index of a write that was answered by then)
        self._acknowledged: list[tuple[float, int]] = []
        # The first process that led or was ready, and the id of its cluster.
        self._one_cluster: tuple[str, str] | None = None
        # The present second, and the number of messages before it.
        self._second = (0, 0)
        # The start that has opened each session, by the process that has applied it, member and incarnation.
        self._starts: dict[tuple[str, str, str], int] = {}
        # Processes whose contents were damaged, and these contents: they may differ, and go back to a snapshot.
        self.damaged: dict[str, CacheMachine] = {}
        # The latest process on each disk, by incarnation.
        self._latest: dict[str, Process] = {}

    def complain(self, what: str) -> None:
        """Raise Violation with the moment."""
        raise Violation(f"at {self._cluster.scheduler.now - 1000:.6f}: {what}")

    def note_swallowed(self, *_: object, **__: object) -> None:
        """Stand for ``logger.exception`` where the product goes on after an error: here the run ends by it."""
        self.swallowed = self.swallowed or sys.exception()

    def watch(self, process: Process) -> None:
        """Watch a process from now on, which was just put together."""
        node = process.node
        process.checked_index = node.last_applied
        before = self._latest.get(node.incarnation)
        if before is not None and self._cluster.fsync == "always":
            self._kept(before, process)
        self._latest[node.incarnation] = process
        told, append = node.role_changed, node.membership.append

        def role_changed() -> None:
            told()
            self._cluster.note(f"{process.name} {node.role} in term {node.term}")
            if node.is_leader:
                self._elected(process)

        def appended(command: bytes) -> None:
            append(command)
            if command[:1] == CONFIGURATION and node.is_leader:
                self._one_change(process)

        # They are called on these objects: attributes of the instances take their places.
        node.role_changed = role_changed  # type: ignore[method-assign]
        node.membership.append = appended  # type: ignore[method-assign]
        self._compare_digest(process, process.machine.applied_index)

    def is_doubtful(self, process: Process) -> bool:
        """Return whether a process still has the contents that were damaged, or a cluster of its own."""
        return process.is_stray or self.damaged.get(process.name) is process.machine

    def _kept(self, before: Process, process: Process) -> None:
        """Check that a process has everything that was durable when the process before it on this disk ended."""
        was, journal = before.journal, process.journal
        for index in range(max(was.first_index, journal.first_index), was.durable_index + 1):
            if journal.term_at(index) != was.term_at(index):
                self.complain(
                    f"durability: {before.name} had entry {index} of term {was.term_at(index)} on its disk, "
                    f"{process.name} has term {journal.term_at(index)} there"
                )

    def _one_change(self, process: Process) -> None:
        """Check a configuration that a leader appends: the one before is committed, and something of its own term."""
        node, journal = process.node, process.journal
        committed = max(self.last_committed, node.last_applied)
        stack = node.configurations._stack
        pending = [position for position, known in enumerate(stack) if known.index > committed]
        if len(pending) > 1:
            self.complain(f"membership: {process.name} has {len(pending)} changes under way")
        if journal.term_at(committed) not in (None, node.term):
            self.complain(f"membership: {process.name} changes it before an entry of term {node.term} is committed")
        for position in pending:
            self._cluster.roles.changed(process, stack[max(0, position - 1)], stack[position])
            changed = set(stack[position].voters) ^ set(stack[max(0, position - 1)].voters)
            if len(changed) > 1:
                self.complain(f"membership: {process.name} changes {len(changed)} votes at once: {sorted(changed)}")

    def _elected(self, process: Process) -> None:
        self.one_cluster(process)
        self._cluster.roles.elected(process)
        node, journal = process.node, process.journal
        other = self.leaders.setdefault(node.term, process.name)
        if other != process.name:
            self.complain(f"election safety: {process.name} and {other} lead term {node.term}")
        # A leader of an earlier term that learns late of its votes need not know what later ones have committed.
        committed = max((index for term, index in self._committed_in.items() if term < node.term), default=1)
        if journal.last_index < committed:
            self.complain(f"leader completeness: {process.name} ends at {journal.last_index}, {committed} is committed")
        first = journal.first_index
        for command, index, term in journal.entries(0, None):
            known = self._committed.get(index) if index <= committed else None
            if known is not None and known[0] != term:
                self.complain(f"leader completeness: entry {index} of {process.name} has term {term}, not {known[0]}")
            if known is not None and index > first and known[1] != command:
                self.complain(f"leader completeness: entry {index} of {process.name} is another")

    def applied(self, process: Process) -> None:
        """Check a process that has just applied something, or taken a snapshot."""
        node, journal, machine = process.node, process.journal, process.machine
        before, last = process.checked_index, node.last_applied
        process.checked_index = last
        if machine.applied_index != last:
            self.complain(
                f"state-machine safety: {process.name} has applied {last}, its machine {machine.applied_index}"
            )
        if last < before:
            self._cluster.note(f"{process.name} goes back from {before} to {last}")
            if process.name not in self.damaged:
                self.complain(f"state-machine safety: {process.name} went back from {before} to {last}")
        first = journal.first_index
        committed = self._committed
        for index in range(max(before, first) + 1, last + 1):
            command, _, term = journal[index - first]
            known = committed.get(index)
            if known is None:
                known = committed[index] = (term, command)
                self._on_a_majority(process, index, term)
            if known[0] != term or known[1] != command:
                self.complain(f"state-machine safety: {process.name} applied another entry {index}")
            self._compare_digest(process, index)
        if first >= last:
            self._compare_digest(process, last)
        if last % OUTLOOK_EVERY == 0 and process.name not in self.damaged:
            outlook = machine.outlook()
            if self._outlooks.setdefault(last, outlook) != outlook:
                self.complain(f"state-machine safety: {process.name} has another outlook at {last}")
        self._starts_rise(process)
        self._evicts_by_and_by(process)
        if last > self.last_committed:
            self.last_committed = self._committed_in[node.term] = last
        if machine.level > self._cluster.upgrades.level:
            self._cluster.upgrades.raised(process, before)

    def _evicts_by_and_by(self, process: Process) -> None:
        """Check how many items the latest entry has evicted, if it has written nothing for which room was needed."""
        kinds = [effect[0] for effect in process.machine.contents.effects]
        evicted = kinds.count(EVICTED)
        if evicted > BOUNDS["EVICTED_PER_ENTRY_MAX"] and NEED_ROOM.isdisjoint(kinds):
            self.complain(f"eviction: {process.name} evicts {evicted} items at once, for no write")

    def _starts_rise(self, process: Process) -> None:
        """Check that no session is taken over by an earlier start of the same member than had it before."""
        machine = process.machine
        for _, session in machine.sessions:
            of = (process.name, session.member_id, machine.members[session.member_id].incarnation)
            if session.start < self._starts.get(of, 0):
                self.complain(f"sessions: start {session.start} of {session.member_id} took one over on {process.name}")
            self._starts[of] = session.start

    def _on_a_majority(self, process: Process, index: int, term: int) -> None:
        """Check that a majority has an entry on disk, when it is applied for the first time anywhere."""
        if self._cluster.fsync != "always":
            return
        said = ""
        # The change that is under way may have begun in the turn of the commit: either table will do.
        for configuration in process.node.configurations._stack:
            voters = [member for member in configuration.members.values() if member.voter]
            having = [member.id for member in voters if self._has(member, index, term)]
            if len(having) > len(voters) // 2:
                return
            said = f"{having} of {configuration.voters}"
        self.complain(f"durability: {process.name} has applied entry {index}, which is on the disks of {said}")

    def _has(self, member: Member, index: int, term: int) -> bool:
        process = self._latest.get(member.incarnation)
        if process is None or process.host.incarnation != member.incarnation:
            return False
        journal = process.journal
        # What a snapshot covers was durable before the log began behind it.
        return index <= journal.first_index or (journal.durable_index >= index and journal.term_at(index) == term)

    def one_cluster(self, process: Process) -> None:
        """Check that all nodes that ever lead or are ready in a run, which have one list of seeds, are of one cluster."""
        node = process.node
        if node.is_leader or (node.may_read and node.links.route is not None):
            cluster_id = node.configurations.latest.cluster_id
            first, known = self._one_cluster = self._one_cluster or (process.name, cluster_id)
            if cluster_id != known:
                self.complain(f"founding: {process.name} works in cluster {cluster_id}, {first} did in {known}")

    def _beliefs_hold(self, process: Process) -> None:
        """Check that what a leader takes for verified is on the follower's disk, unless that follows another by now."""
        node, journal = process.node, process.journal
        if not node.is_leader:
            return
        for node_id, progress in node.peers.progress.items():
            in_flight = len(progress.inflight)
            if not 0 <= progress.match_index < progress.next_index or (in_flight and progress.state != REPLICATE):
                self.complain(f"progress of {node_id} on {process.name}: {progress}")
            if self._cluster.fsync != "always":
                continue
            follower = self._latest.get(progress.incarnation)
            index, term = progress.match_index, journal.term_at(progress.match_index)
            if term is None or follower is None or follower.node.term > node.term:
                continue
            member = node.configurations.latest.members.get(node_id)
            if member is not None and follower.host.incarnation == member.incarnation:
                if not self._has(member, index, term):
                    self.complain(f"durability: {process.name} believes that {follower.name} has entry {index} on disk")

    def _compare_digest(self, process: Process, index: int) -> None:
        digest = process.machine.digest_at(index)
        if (
            digest is not None
            and process.name not in self.damaged
            and self._digests.setdefault(index, digest) != digest
        ):
            self.complain(f"state-machine safety: {process.name} has another digest at {index}")

    def acknowledged(self, process: Process) -> None:
        """Note that a client was told of a write that this process has just applied."""
        index = process.machine.applied_index
        if not self._acknowledged or index > self._acknowledged[-1][1]:
            self._acknowledged.append((self._cluster.scheduler.now, index))

    def traffic(self) -> None:
        """Check that messages do not multiply: that each second had no more than a cluster needs."""
        second, before = self._second
        now = int(self._cluster.scheduler.now)
        if now != second:
            sent = sum(self._cluster.wire.sent.values())
            if sent - before > MESSAGES_IN_A_SECOND_MAX * (now - second):
                self.complain(f"bounded traffic: {sent - before} messages since a second: {self._cluster.wire.sent}")
            self._second = (now, sent)

    def bounded_read(self, process: Process) -> None:
        """Check that a node which says how old its contents are has everything that was acknowledged before that."""
        self.traffic()
        self.one_cluster(process)
        self._beliefs_hold(process)
        staleness_ms = process.node.freshness.staleness_ms()
        if not process.node.may_read or staleness_ms is None:
            return
        # Milliseconds were rounded, twice.
        since = self._cluster.scheduler.now - staleness_ms / 1000 * (1 + self._cluster.drift) - 0.002
        position = bisect_left(self._acknowledged, (since, 0))
        if position and self._acknowledged[position - 1][1] > process.machine.applied_index:
            self.complain(
                f"bounded read: {process.name} is at {process.machine.applied_index} and says that it is {staleness_ms} ms old; "
                f"{self._acknowledged[position - 1][1]} was acknowledged before"
            )

    def logs_match(self) -> None:
        """Check log matching: where two logs have an equal index and term, everything before is equal."""
        processes = [process for process in self._cluster.processes if not process.is_stray]
        for number, one in enumerate(processes):
            for other in processes[number + 1 :]:
                self._match(one, other)

    def _match(self, one: Process, other: Process) -> None:
        low = max(one.journal.first_index, other.journal.first_index)
        high = min(one.journal.last_index, other.journal.last_index)
        mine = one.journal.entries(low)[: max(0, high - low + 1)]
        theirs = other.journal.entries(low)[: max(0, high - low + 1)]
        agreed = False
        for (command, index, term), (their_command, _, their_term) in zip(
            reversed(mine), reversed(theirs), strict=True
        ):
            if term == their_term:
                agreed = True
                # The sentinel's command is not kept.
                if index > low and command != their_command:
                    self.complain(f"log matching: {one.name} and {other.name} differ at {index} of term {term}")
            elif agreed:
                self.complain(f"log matching: {one.name} and {other.name} agree behind {index} and differ there")

    def nothing_left(self) -> bool:
        """Return whether nobody holds, queues or waits for anything."""
        return self._cluster.healthy() and not any(self._left(process) for process in self._cluster.processes)

    @staticmethod
    def _left(process: Process) -> int:
        node = process.node
        left = len(node.links.held) + len(node.leading.queue) + process.proposals.pending
        if node.is_leader:
            left += sum(len(progress.inflight) + progress.inflight_bytes for progress in node.peers.progress.values())
        return left

    def at_the_end(self, journal_bytes: int | None) -> None:
        """Check, a while after everything was healed, that all nodes are equal and that nothing is left over."""
        self.logs_match()
        processes = self._cluster.processes
        contents = {process.machine.contents_digest() for process in processes}
        if len(contents) != 1:
            self.complain(f"digest: the replicas' contents differ: {[digest.hex() for digest in contents]}")
        for process in processes:
            node = process.node
            if node.replica.failure is not None:
                self.complain(f"progress: {process.name} has failed: {node.replica.failure}")
            if process.machine.contents.behind:
                self.complain(f"eviction: {process.name} has something that still waits for its turn to go")
            left = self._left(process)
            if left:
                self.complain(f"bounded memory: {process.name} keeps {left} things when nothing is under way")
            more = surplus(process)
            if more is not None:
                self.complain(f"bounded memory: {more}")
            if journal_bytes is not None and process.journal.log_bytes > 4 * journal_bytes + 200_000:
                self.complain(f"bounded log: {process.name} lets its journal grow to {process.journal.log_bytes} bytes")
