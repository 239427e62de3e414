"""What must hold at every moment, looked at after every event of every process.

Election safety, leader completeness, log matching and state-machine safety are the four properties of figure 3.2 of the
dissertation; a read's guarantees and what is left over at the end are ours.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

# A heartbeat and its answer ten times a second for every pair, and a few messages for every write.
MESSAGES_PER_S_MAX = 3000


class Violation(Exception):
    """A promise was broken."""


class Checks:
    """The omniscient observer. ``complain`` ends the run at once: what follows a violation means nothing."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # Who led in a term.
        self.leaders: dict[int, str] = {}
        # What was applied anywhere, by index: (term, command), and the digest after it.
        self._committed: dict[int, tuple[int, bytes]] = {}
        self._digests: dict[int, bytes] = {}
        self.last_committed = 1
        # (moment, highest index of a write that was answered by then)
        self._acknowledged: list[tuple[float, int]] = []
        # Processes whose contents a test has damaged: they may differ, and go back to a snapshot.
        self.damaged: set[str] = set()

    def complain(self, what: str) -> None:
        """Raise Violation with the moment."""
        raise Violation(f"at {self._cluster.scheduler.now - 1000:.6f}: {what}")

    def watch(self, process: Process) -> None:
        """A process was put together."""
        node = process.node
        process.checked_index = node.last_applied
        told = node.role_changed

        def role_changed() -> None:
            told()
            self._cluster.note(f"{process.name} {node.role} in term {node.term}")
            if node.is_leader:
                self._elected(process)

        # The core calls it on the node: an attribute of the instance takes its place.
        node.role_changed = role_changed  # type: ignore[method-assign]
        self._compare_digest(process, process.machine.applied_index)

    def _elected(self, process: Process) -> None:
        node, journal = process.node, process.journal
        other = self.leaders.setdefault(node.term, process.name)
        if other != process.name:
            self.complain(f"election safety: {process.name} and {other} lead term {node.term}")
        if journal.last_index < self.last_committed:
            self.complain(
                f"leader completeness: {process.name} ends at {journal.last_index}, {self.last_committed} is committed"
            )
        first = journal.first_index
        for command, index, term in journal.entries(0, None):
            known = self._committed.get(index)
            if known is not None and known[0] != term:
                self.complain(f"leader completeness: entry {index} of {process.name} has term {term}, not {known[0]}")
            if known is not None and index > first and known[1] != command:
                self.complain(f"leader completeness: entry {index} of {process.name} is another")

    def applied(self, process: Process) -> None:
        """A process has applied something, or taken a snapshot."""
        node, journal, machine = process.node, process.journal, process.machine
        before, last = process.checked_index, node.last_applied
        process.checked_index = last
        if machine.applied_index != last:
            self.complain(f"{process.name} believes to have applied {last}, the machine {machine.applied_index}")
        if last < before:
            self._cluster.note(f"{process.name} goes back from {before} to {last}")
            if process.name not in self.damaged:
                self.complain(f"{process.name} went back from {before} to {last}")
        first = journal.first_index
        committed = self._committed
        for index in range(max(before, first) + 1, last + 1):
            command, _, term = journal[index - first]
            known = committed.setdefault(index, (term, command))
            if known[0] != term or known[1] != command:
                self.complain(f"state-machine safety: {process.name} applied another entry {index}")
            self._compare_digest(process, index)
        if first >= last:
            self._compare_digest(process, last)
        if last > self.last_committed:
            self.last_committed = last

    def _compare_digest(self, process: Process, index: int) -> None:
        digest = process.machine.digest_at(index)
        if (
            digest is not None
            and process.name not in self.damaged
            and self._digests.setdefault(index, digest) != digest
        ):
            self.complain(f"state-machine safety: {process.name} has another digest at {index}")

    def acknowledged(self, process: Process) -> None:
        """A client was told that what this process has just applied took place."""
        index = process.machine.applied_index
        if not self._acknowledged or index > self._acknowledged[-1][1]:
            self._acknowledged.append((self._cluster.scheduler.now, index))

    def bounded_read(self, process: Process) -> None:
        """A node that says how old its contents are has everything that was acknowledged before that."""
        staleness_ms = process.node.staleness_ms()
        if not process.node.may_read or staleness_ms is None:
            return
        # Milliseconds were rounded, twice.
        since = self._cluster.scheduler.now - staleness_ms / 1000 - 0.002
        position = bisect_left(self._acknowledged, (since, 0))
        if position and self._acknowledged[position - 1][1] > process.machine.applied_index:
            self.complain(
                f"{process.name} has applied {process.machine.applied_index} and says that it is {staleness_ms} ms old; "
                f"{self._acknowledged[position - 1][1]} was acknowledged before"
            )

    def logs_match(self) -> None:
        """Log matching: equal index and term somewhere, then everything before is equal."""
        processes = self._cluster.processes
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
        """Nobody holds, queues or waits for anything."""
        return self._cluster.healthy() and not any(self._left(process) for process in self._cluster.processes)

    @staticmethod
    def _left(process: Process) -> int:
        node = process.node
        left = len(node._held) + node.leading.queued + process.proposals.pending
        if node.is_leader:
            left += sum(
                len(progress.inflight) + progress.inflight_bytes
                for progress in node.leading.replicator.progress.values()
            )
        return left

    def at_the_end(self, journal_bytes: int | None) -> None:
        """Everything has been healed for a while: all are equal, and nothing is left over."""
        self.logs_match()
        processes = self._cluster.processes
        contents = {process.machine.contents_digest() for process in processes}
        if len(contents) != 1:
            self.complain(f"the replicas' contents differ: {[digest.hex() for digest in contents]}")
        for process in processes:
            node = process.node
            if node.failure is not None:
                self.complain(f"{process.name} has failed: {node.failure}")
            left = self._left(process)
            if left:
                self.complain(f"{process.name} keeps {left} things when nothing is under way")
            if journal_bytes is not None and process.journal.bytes_since_trim > 4 * journal_bytes + 200_000:
                self.complain(f"{process.name} lets its journal grow to {process.journal.bytes_since_trim} bytes")
