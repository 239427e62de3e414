"""Clients: each does one thing after the other through random nodes, and writes down what it was told.

The keys have roles, so that each promise can be checked by itself: *registers* for linearizability, *counters* and
*once* and *scoped* for exactly-once, *late* for late writes, *pairs* for atomic batches, *watched* for what follows from
what was read, *hashes* for fields, *leases* for TTL, *groups* for removals by prefix, *fillers* for eviction.
*Publishing* is beside them: it concerns no key.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar

from fakes.newer_build import LABEL
from simulation.bulk import Bulk
from simulation.clears import Clears
from simulation.cluster import TIMEOUT_S
from simulation.counters import Counters
from simulation.hashes import Hashes
from simulation.late import Late
from simulation.leases import Leases
from simulation.once import Once
from simulation.pairs import Pairs
from simulation.published import Publishing
from simulation.registers import PREFIX, Registers
from simulation.scoped import Scoped
from simulation.tuning import Tuning
from simulation.watched import Watched

from cacheflow.contract import Outcome
from cacheflow.errors import NotCommitted, OutcomeUnknown, ReplicationError
from cacheflow.machine.deciding.field_decisions import FIELD_DECISIONS
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.language.levels import FIRST_LEVEL
from cacheflow.node.proposals import BLOCK_COMMANDS_MAX

if TYPE_CHECKING:
    from simulation.cluster import Cluster, Process

T = TypeVar("T")

ANSWERS = (commands.OK, commands.MISSING, commands.PRECONDITION)
# Commands that no front sends: with a key that is none, too short, or unknown.
NONSENSE: tuple[Command, ...] = (
    (commands.SET,),
    (commands.GET, 7),
    (commands.BATCH, True, None),
    (commands.INCR, "", 1, 0),
    (10_000, "key"),
)


def nobody_waits() -> None:
    """Do nothing, in place of waking a thread."""


def keep(answers: list[Outcome]) -> Callable[[Outcome], Callable[[], None]]:
    """Return a ``done`` that appends a call's outcome to ``answers``."""

    def done(outcome: Outcome) -> Callable[[], None]:
        answers.append(outcome)
        return nobody_waits

    return done


class Workload:
    """All clients of a run and their histories. pause_s: mean time between one client's calls."""

    def __init__(
        self,
        cluster: Cluster,
        random: Random,
        *,
        clients: int = 4,
        pause_s: float = 0.2,
        registers: int = 5,
        evicts: bool = False,
    ) -> None:
        self.cluster = cluster
        self.random = random
        self.evicts = evicts
        self.registers = Registers(self, registers)
        self.counters = Counters(self)
        self.hashes = Hashes(self)
        self.leases = Leases(self)
        self.once = Once(self)
        self.scoped = Scoped(self)
        self.late = Late(self)
        self.pairs = Pairs(self)
        self.watched = Watched(self)
        self.tuning = Tuning(self)
        self.bulk = Bulk(self)
        self.publishing = Publishing(cluster)
        self.clears = Clears(self)
        self.acknowledged = self.unknown = self.refused = self.local_reads = 0
        self.running = True
        # When a write was last answered.
        self.answered_at = cluster.scheduler.now
        self.reading = 0
        self._pause_s = pause_s
        self._clients = [Client(self, number) for number in range(clients)]
        for client in self._clients:
            cluster.scheduler.at(random.expovariate(1 / pause_s), client.go_on)

    def stop(self) -> None:
        """Let the clients begin nothing more."""
        self.running = False
        self.publishing.stop()

    @property
    def busy(self) -> bool:
        """True if a client waits for an answer."""
        return any(client.waiting is not None and client.waiting.loop.alive for client in self._clients)

    def pause(self) -> float:
        """Return the seconds until a client's next call."""
        return self.random.expovariate(1 / self._pause_s)

    def read_all(self) -> None:
        """Read every register and counter once more through every node."""
        for process in self.cluster.processes:
            for key in self.registers.keys:
                self._read(process, self.registers.note_read, key)
            for key in self.counters.keys:
                self._read(process, self.counters.note_read, key)
            for place in self.hashes.places:
                self._read(process, self.hashes.note_read, place)

    def _read(self, process: Process, note: Callable[[Process, T, float], None], key: T) -> None:
        self.reading += 1
        began = self.cluster.scheduler.now

        def done(outcome: list[Result] | ReplicationError) -> Callable[[], None]:
            if not isinstance(outcome, ReplicationError):
                self.reading -= 1
                note(process, key, began)
            return nobody_waits

        process.inbox.barrier(done)

    def check(self) -> None:
        """Check all histories. Raises Violation."""
        if self.busy:
            self.cluster.checks.complain("progress: a caller was never told anything")
        self.registers.check()
        self.hashes.check()
        self.publishing.check()
        self.cluster.following.check()
        self.cluster.tracked.check()
        if not self.evicts:  # whatever is missing may have been evicted
            self.counters.check()
            self.once.check(self.cluster.processes[0])
            self.scoped.check(self.cluster.processes[0])
            self.watched.check(self.cluster.processes[0])
            self.late.check(self.cluster.processes[0], TIMEOUT_S)


class Client:
    """One client, which does one thing after the other through random nodes."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.name = f"client{number}"
        self.waiting: Process | None = None
        # By key: the value that this client wrote last, and the version that it was told.
        self.written: dict[str, tuple[bytes, int]] = {}
        self._workload = workload
        self._calls = 0
        acts: list[tuple[float, Callable[[Client, Process], None]]] = [
            (12, self._look),
            (14, workload.counters.call),
            (10, workload.leases.write),
            (4, workload.leases.touch),
            (4, workload.leases.read),
            (6, workload.hashes.call),
            (6, workload.once.call),
            (8, workload.scoped.call),
            (0 if workload.evicts else 4, workload.late.write),
            (6, workload.pairs.call),
            (8, workload.watched.call),
            (1, workload.bulk.read),
            (0.5, workload.bulk.write),
            (1, self._clear),
            (6, workload.clears.call),
            (1, self._nonsense),
            (1, self._label),
            (10 if workload.evicts else 0, workload.tuning.fill),
            (2 if workload.evicts else 0.3, workload.tuning.configure),
            (40, workload.registers.call),
        ]
        self._acts = [act for _, act in acts]
        self._weights = [weight for weight, _ in acts]

    def go_on(self) -> None:
        """Make the next call through a random node, and come back later."""
        workload = self._workload
        if not workload.running:
            return
        cluster = workload.cluster
        # What a damaged node says means nothing until it has noticed the damage, and what a second cluster says never.
        processes = [process for process in cluster.processes if not cluster.checks.is_doubtful(process)]
        cluster.scheduler.at(workload.pause(), self.go_on)
        if (self.waiting is not None and self.waiting.loop.alive) or not processes:
            return
        process = workload.random.choice(processes)
        if not process.loop.paused:
            workload.random.choices(self._acts, self._weights)[0](self, process)

    def call(
        self,
        process: Process,
        commands_: list[Command],
        what: str,
        told: Callable[[list[Result]], None] | None = None,
        refused: Callable[[], None] | None = None,
        unknown: Callable[[], None] | None = None,
        statuses: tuple[int, ...] = ANSWERS,
        unchecked: bool = False,
    ) -> None:
        """Send ``commands_`` through ``process``.

        told: takes the results, one a command.  refused: called when nothing took place.  unknown: called when nobody knows.
        statuses: those that results may have.  unchecked: the commands are sent as they are, as no front would.
        """
        workload = self._workload
        cluster = workload.cluster
        self.waiting = process
        self._calls += 1
        number = self._calls

        def done(outcome: list[Result] | ReplicationError) -> Callable[[], None]:
            if self._calls == number:
                self.waiting = None
            if cluster.trace:
                cluster.note(f"{self.name} {what} through {process.name}: {outcome}")
            if isinstance(outcome, OutcomeUnknown):
                workload.unknown += 1
                if unknown is not None:
                    unknown()
            elif isinstance(outcome, NotCommitted):
                workload.refused += 1
                if refused is not None:
                    refused()
            elif isinstance(outcome, ReplicationError):
                cluster.checks.complain(f"outcome: an unexpected outcome: {outcome!r}")
            else:
                if len(outcome) != len(commands_) or any(result[0] not in statuses for result in outcome):
                    cluster.checks.complain(f"outcome: {what}: {outcome}")
                workload.acknowledged += 1
                workload.answered_at = cluster.scheduler.now
                cluster.checks.acknowledged(process)
                workload.tuning.check(process)
                if told is not None:
                    told(outcome)
            return nobody_waits

        if cluster.trace:
            cluster.note(f"{self.name} {what} through {process.name} ...")
        if unchecked:
            process.send_unchecked(commands_, done)
        elif commands_ == [commands.noop()]:
            # A linearizable read, which looks at memory behind a barrier.
            process.inbox.barrier(done)
        else:
            # Hashes are small here, and are told to be large: two of them are more than a block takes.
            work = BLOCK_COMMANDS_MAX * 2 // 3 if commands_[0][0] in FIELD_DECISIONS else 0
            process.inbox.submit(commands_, done, TIMEOUT_S, work)

    def _look(self, _: Client, process: Process) -> None:
        """Make local reads through a process, and check them."""
        workload = self._workload
        workload.local_reads += 1
        if process.node.may_read:
            workload.leases.look(process)
            workload.pairs.look(process)
            workload.watched.look(process)
            workload.tuning.look(process)

    def _clear(self, _: Client, process: Process) -> None:
        workload = self._workload
        # Counters and pairs cannot be checked any more once everything is gone.
        workload.registers.clear(self, process, "" if workload.evicts and workload.random.random() < 0.3 else PREFIX)

    def _label(self, _: Client, process: Process) -> None:
        """Send what only level 2 has: it is done where that is in force, and malformed everywhere before."""
        statuses = (commands.OK,) if process.level > FIRST_LEVEL else (commands.OK, commands.MALFORMED)
        key = f"label{self._workload.random.randrange(3)}"
        self.call(process, [(LABEL, key)], "label", statuses=statuses, unchecked=True)

    def _nonsense(self, _: Client, process: Process) -> None:
        nonsense = self._workload.random.choice(NONSENSE)
        self.call(process, [nonsense], "nonsense", statuses=(commands.MALFORMED,), unchecked=True)
