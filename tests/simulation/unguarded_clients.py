"""Clients of plain PySyncObj, whose histories our checks look at. Every read goes through the log."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from math import inf
from random import Random
from typing import Any, cast

from pysyncobj import FAIL_REASON
from simulation.counters import Counters, Increment
from simulation.linearizability import Operation
from simulation.registers import Registers
from simulation.unguarded_nodes import PlainCluster, PlainProcess

CLIENTS, PAUSE_S, REGISTERS = 60, 0.005, 100
TIMEOUT_S = 3.0
CERTAIN = {
    FAIL_REASON.QUEUE_FULL,
    FAIL_REASON.MISSING_LEADER,
    FAIL_REASON.DISCARDED,
    FAIL_REASON.NOT_LEADER,
    FAIL_REASON.REQUEST_DENIED,
}
# The padding beside each value: two of them fill a message.
PADDING = "x" * 40_000


class PlainWorkload:
    """Clients that each do one thing after the other through random nodes, and the histories that our checks look at."""

    evicts = False

    def __init__(self, cluster: PlainCluster, random: Random) -> None:
        self.cluster = cluster
        self.random = random
        self.running = True
        self.acknowledged = 0
        self.registers = Registers(cast(Any, self), REGISTERS)
        self.counters = Counters(cast(Any, self))
        for _ in range(CLIENTS):
            PlainClient(self)

    def put(self, process: PlainProcess, key: str, over: Callable[[], None]) -> None:
        """Set a register to a new value."""
        operation = Operation("set", self.cluster.scheduler.now, inf, self.registers.new_value())
        told = self._told(operation, self.registers._histories[key], over)
        process.store.put(key, operation.argument, PADDING, callback=told)
        process.wake()

    def read(self, process: PlainProcess, key: str, over: Callable[[], None]) -> None:
        """Read a register, through the log."""
        operation = Operation("get", self.cluster.scheduler.now, inf)
        process.store.read(key, callback=self._told(operation, self.registers._histories[key], over))
        process.wake()

    def increment(self, process: PlainProcess, key: str, over: Callable[[], None]) -> None:
        """Count."""
        call = Increment(1, self.cluster.scheduler.now)
        process.store.count(key, callback=self._told(call, self.counters._calls[key], over))
        process.wake()

    def _told(self, call: Operation | Increment, history: list[Any], over: Callable[[], None]) -> Callable[..., None]:
        history.append(call)

        def told(result: Any, error: int) -> None:
            over()
            if error in CERTAIN:
                history.remove(call)
            elif error == FAIL_REASON.SUCCESS:
                call.ended = self.cluster.scheduler.now
                self.acknowledged += 1
                if isinstance(call, Increment):
                    call.number = result
                elif call.kind == "get":
                    call.result = result

        return told

    def look_at_everything(self) -> None:
        """Read every key once more through every node."""
        for process in self.cluster.processes:
            for key in self.registers.keys:
                self.read(process, key, lambda: None)
            for key in self.counters.keys:
                self.increment(process, key, lambda: None)

    def not_in_the_leaders_log(self) -> list[bytes]:
        """Return acknowledged values that the last leader lacks, so that nobody will have them: no log is trimmed here."""
        leader = self.cluster.leader
        if leader is None:
            return []
        kept = {
            pickle.loads(command[1:])[1][1]
            for command, _, _ in self.cluster.journals[leader.node_id][:]
            if len(command) > len(PADDING)
        }
        histories = self.registers._histories.values()
        written = [call.argument for history in histories for call in history if call.kind == "set" and call.known]
        return [value for value in written if value not in kept]

    def check(self) -> None:
        """Raise Violation for a history that could not be. The checks are those of our own nodes."""
        self.registers.check()
        self.counters.check()


class PlainClient:
    """One client. It gives up after a while, since PySyncObj may never answer."""

    def __init__(self, workload: PlainWorkload) -> None:
        self._workload = workload
        self._calls = 0
        self._rest()

    def _rest(self) -> None:
        workload = self._workload
        workload.cluster.scheduler.at(workload.random.expovariate(1 / PAUSE_S), self._act)

    def _act(self) -> None:
        workload, random = self._workload, self._workload.random
        if not workload.running:
            return
        processes = [process for process in workload.cluster.processes if not process.loop.paused]
        if not processes:
            self._rest()
            return
        self._calls += 1
        over = partial(self._over, self._calls)
        workload.cluster.scheduler.at(TIMEOUT_S, over)
        process, choice = random.choice(processes), random.random()
        if choice < 0.2:
            workload.increment(process, random.choice(workload.counters.keys), over)
        elif choice < 0.4:
            workload.read(process, random.choice(workload.registers.keys), over)
        else:
            workload.put(process, random.choice(workload.registers.keys), over)

    def _over(self, call: int) -> None:
        if call == self._calls:
            self._calls += 1
            self._rest()
