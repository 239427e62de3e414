"""Pairs of accounts whose sum is always 0: atomic batches are all or nothing, on every node and at every moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import Entry
from cacheflow.values import BYTES

if TYPE_CHECKING:
    from simulation.clients import Client, Workload
    from simulation.cluster import Process

PAIRS = (("p0", "q0"), ("p1", "q1"))
# A version that no key reaches.
NO_VERSION = 2**40
# A key that nobody writes.
ABSENT = "pa"


class Pairs:
    """Transfers between the two accounts of a pair."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._cluster.look_meanwhile = self._look_meanwhile
        # What was seen in the middle of an entry that nobody may see. (Raised there it would end the node.)
        self._torn: list[tuple[Process, list[bytes]]] = []

    def call(self, client: Client, process: Process) -> None:
        """Make a transfer, one that must fail, or a read of both accounts."""
        random = self._workload.random
        one, other = random.choice(PAIRS)
        amount = random.randint(1, 9)
        choice = random.random()
        if choice < 0.5:
            transfer = [commands.incr(one, amount, 0), commands.incr(other, -amount, 0)]
            client.call(process, [commands.batch(transfer, atomic=True)], f"transfer {amount} {one} {other}")
        elif choice < 0.7:
            failing = commands.set_(other, b"0", BYTES, None, 0, commands.IF_VERSION, NO_VERSION)
            if amount % 3 == 0:
                failing = commands.delete(ABSENT, NO_VERSION)
            batch = commands.batch([commands.incr(one, amount, 0), failing], atomic=True)
            client.call(process, [batch], f"doomed {amount} {one}", self._aborted, statuses=(commands.ABORTED,))
        else:
            batch = commands.batch([commands.get(one), commands.get(other)])
            client.call(process, [batch], f"sum {one} {other}", lambda results: self._sum(process, results[0][1]))

    def _aborted(self, results: list[Result]) -> None:
        if results[0][1] != 1 or results[0][2][0] != commands.PRECONDITION:
            self._cluster.checks.complain(f"batches: the second command failed, and the answer is {results}")

    def _sum(self, process: Process, results: list[Result]) -> None:
        self._check(process, [result[1] if result[0] == commands.OK else b"0" for result in results])

    def look(self, process: Process) -> None:
        """Check local reads of both accounts, however old they are."""
        for pair in PAIRS:
            entries = process.machine.lookup_all(list(pair), process.clock.now_ms())
            if entries is None:
                self._cluster.checks.complain(f"batches: {process.name} finds no moment between two entries")
            else:
                self._check(process, _balances(entries))
        for torn in self._torn:
            self._check(*torn)

    def _look_meanwhile(self, changed: Contents, key: str) -> None:
        """Read the accounts of the pair of ``key`` as another thread may, while a machine writes the key."""
        pair = next((pair for pair in PAIRS if key in pair), None)
        process = next((each for each in self._cluster.processes if each.machine.contents is changed), None)
        if pair is not None and process is not None:
            entries = process.machine.lookup_all(list(pair), process.clock.now_ms())
            if entries is not None:
                self._torn.append((process, _balances(entries)))

    def _check(self, process: Process, balances: list[bytes]) -> None:
        if not self._workload.evicts and sum(map(int, balances)) != 0:
            self._cluster.checks.complain(f"batches: {process.name} shows half of an atomic one: {balances}")


def _balances(entries: list[Entry | None]) -> list[bytes]:
    return [entry[0] if entry is not None else b"0" for entry in entries]
