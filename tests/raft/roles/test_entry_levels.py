"""The level of the leader's entries: the one in force behind everything that it has committed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cacheflow.machine.language import commands
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.roles.leader import Leading
from cacheflow.raft.timings import Timings


class Log:
    """A leader's log, machine and clock, as far as its next entry is concerned."""

    def __init__(self) -> None:
        self.is_leader = True
        self.last_index = self.commit_index = self.last_applied = 5
        self.term = 1
        self.heir = None
        self.machine = SimpleNamespace(settings=SimpleNamespace(version=1), level=1)
        self.appended: list[bytes] = []

    def append(self, command: bytes) -> None:
        self.appended.append(command)
        self.last_index += 1

    def now_ms(self) -> int:
        return 7

    def now(self) -> float:
        return 0.0

    def note_crowd(self, node_id: str, index: int) -> None:
        pass


def leading(log: Log, timings: Timings | None = None) -> Leading:
    make: Any = Leading
    made: Leading = make(
        *(log, log, log, {}),
        links=log,
        ticks=SimpleNamespace(nudge_after=None, call_after=lambda *_: None),
        peers=None,
        replica=SimpleNamespace(machine=log.machine, failure="no messages"),
        membership=SimpleNamespace(append=log.append, node_id="me", recovery=None),
        replicator=None,
        hand_over=log,
        freshness=None,
        timings=timings or Timings(log.now),
    )
    return made


def test_the_next_entry_waits_until_the_last_one_is_applied_for_that_may_raise_the_level() -> None:
    log = Log()
    leader = leading(log)
    leader.enqueue([commands.encode_block(1, 1, 1, [commands.noop()])], False, False)
    log.last_applied = 4
    leader.propose_queued()
    assert not log.appended
    log.last_applied, log.machine.level = 5, 2
    leader.propose_queued()
    (command,) = log.appended
    assert commands.decode_entry(command[1:])[:2] == (2, 7)


def test_the_commit_of_the_oldest_entry_on_its_way_is_timed_until_this_node_leads_no_more() -> None:
    log, now_s = Log(), [10.0]
    timings = Timings(lambda: now_s[0])
    leader = leading(log, timings)
    configuration = Configuration(0, "c", {})
    for _ in range(2):
        now_s[0] += 1.0
        leader.append_configuration(configuration)
    assert (timings.waits_for, timings.since_s) == (log.last_index - 1, 11.0)
    leader.end()
    assert timings.waits_for == 0
