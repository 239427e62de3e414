"""A node that has many entries to apply applies one in any turn of its loop, and more only while the turn has time."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from simulation.clients import Workload
from simulation.cluster import Cluster
from simulation.scheduler import TurnBudget

from cacheflow.machine.machine import Settled


def applied_in_turns(cluster: Cluster, callbacks: int = 1) -> Counter[int]:
    """How many entries a node applies in each of its turns, while it catches up with what was written without it.

    callbacks: how many callbacks of the loop are one turn.
    """
    host = next(process for process in cluster.processes if not process.node.is_leader).host
    cluster.crash(host, power=False)
    workload = Workload(cluster, Random(1), clients=10, pause_s=0.05)
    cluster.run(1.0)
    workload.stop()
    cluster.start(host)
    process = host.process
    assert process is not None
    turns: Counter[int] = Counter()
    machine = process.machine
    apply = machine.apply

    def counted(index: int, payload: bytes) -> list[Settled]:
        turns[process.loop.turns // callbacks] += 1
        return apply(index, payload)

    machine.apply = counted  # type: ignore[method-assign]
    assert cluster.run(10.0, cluster.checks.nothing_left)
    workload.check()
    return turns


def test_one_entry_a_turn_if_the_turn_has_no_time(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurnBudget, "ends", property(lambda self: -1.0 - self._loop.turns))
    turns = applied_in_turns(cluster)
    assert len(turns) > 5 and max(turns.values()) == 1


def test_one_entry_a_turn_however_many_messages_come_in_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurnBudget, "ends", property(lambda self: -1.0 - self._loop.turns // 5))
    turns = applied_in_turns(cluster, 5)
    assert len(turns) > 5 and max(turns.values()) == 1


def test_several_entries_a_turn_as_long_as_it_has_time(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurnBudget, "ends", property(lambda self: math.inf))
    assert max(applied_in_turns(cluster).values()) > 1
