"""The simulation finds what is broken on purpose: each mutation takes one rule away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pysyncobj.syncobj import SyncObj
from simulation.cluster import Process
from simulation.runner import run

from cacheflow.machine import commands, machine
from cacheflow.raft import guards, replication
from cacheflow.raft.node import RaftNode

SEEDS_MAX = 200


def acknowledge_before_the_journal_is_durable(patch: pytest.MonkeyPatch) -> None:
    """What promises something leaves at once."""
    patch.setattr(RaftNode, "hold", lambda self, send: send())


def delete_what_stands_behind_prev(patch: pytest.MonkeyPatch) -> None:
    """PySyncObj's own behaviour (audit 1): an old or repeated message drops acknowledged entries."""
    check = guards.check_append

    def unguarded(log: Any, commit_index: int, message: dict[str, Any]) -> guards.Append | guards.Reject:
        verdict = check(log, commit_index, message)
        prev_index = message["prevLogIdx"]
        if isinstance(verdict, guards.Reject) or prev_index < log.first_index:
            return verdict
        return guards.Append(
            prev_index,
            message["prevLogTerm"],
            guards.entries_of(message, prev_index),
            verdict.verified,
            verdict.commit_index,
            True,
        )

    patch.setattr(guards, "check_append", unguarded)


def apply_a_block_as_often_as_it_comes(patch: pytest.MonkeyPatch) -> None:
    """No duplicate check in the session."""

    def run_block(self: Any, session_id: int, first: int, lowest: int, commands: list[Any]) -> list[Any]:
        session = self.sessions.find(session_id)
        if session is not None:
            session.last = max(session.last, first + len(commands) - 1)
        return [self._run(command) for command in commands]

    patch.setattr(machine.CacheMachine, "_run_block", run_block)


def acknowledge_what_was_not_verified(patch: pytest.MonkeyPatch) -> None:
    """A follower answers with the end of its log."""
    check = guards.check_append

    def boastful(log: Any, commit_index: int, message: dict[str, Any]) -> guards.Append | guards.Reject:
        verdict = check(log, commit_index, message)
        if isinstance(verdict, guards.Append):
            end = max(log.last_index, verdict.verified)
            return guards.Append(
                verdict.prev_index, verdict.prev_term, verdict.entries, end, message["commit_index"], verdict.truncates
            )
        return verdict

    patch.setattr(guards, "check_append", boastful)


def vote_for_anybody(patch: pytest.MonkeyPatch) -> None:
    """No election restriction."""
    receive = SyncObj._SyncObj__onMessageReceived

    def credulous(self: Any, sender: Any, message: dict[str, Any]) -> None:
        if message["type"] == "request_vote":
            message = {**message, "last_log_term": 2**60, "last_log_index": 2**60}
        receive(self, sender, message)

    patch.setattr(SyncObj, "_SyncObj__onMessageReceived", credulous)
    patch.setattr(guards, "is_up_to_date", lambda *_: True)


def read_without_a_barrier(patch: pytest.MonkeyPatch) -> None:
    """A linearizable read that looks at this node's memory at once."""
    submit = Process.submit

    def hasty(self: Any, commands_: list[Any], done: Callable[..., Any], timeout_s: float) -> None:
        if commands_ == [commands.noop()] and self.node.may_read:
            done([[commands.OK]])
        else:
            submit(self, commands_, done, timeout_s)

    patch.setattr(Process, "submit", hasty)


def never_probe(patch: pytest.MonkeyPatch) -> None:
    """A leader that takes every rejection for an old one: followers that lack something never get it."""
    patch.setattr(replication.Progress, "probe_from", lambda self, next_index: None)


# The faults that bring it out soonest; None is the usual mixture.
MUTATIONS: dict[Callable[[pytest.MonkeyPatch], None], dict[str, float] | None] = {
    acknowledge_before_the_journal_is_durable: {"power": 1, "blackout": 1, "slow_disk": 1},
    delete_what_stands_behind_prev: {"loss": 1, "slow_network": 1, "pause": 1},
    apply_a_block_as_often_as_it_comes: None,
    acknowledge_what_was_not_verified: None,
    vote_for_anybody: None,
    read_without_a_barrier: None,
    never_probe: None,
}


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_the_simulation_finds(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    kinds = MUTATIONS[mutate]
    for seed in range(1, SEEDS_MAX + 1):
        violation = run(seed, kinds=kinds, every_s=None if kinds is None else 0.7).violation
        if violation is not None:
            print(f"seed {seed}: {violation}")
            return
    pytest.fail(f"not found within {SEEDS_MAX} seeds")
