"""Removals by prefix through proposals: they are answered when their keys are counted."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from node.listed_leader import Call, Cluster, count, numbers

from cacheflow.errors import AnswerNotKept, OutcomeUnknown, Overloaded
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state import contents
from cacheflow.machine.state.condemnations import Condemnations
from cacheflow.net.slices import Slices
from cacheflow.node import proposals
from cacheflow.node.assembly import LocalNode
from cacheflow.node.feed import Feed
from cacheflow.node.tracking import Tracking


def slow_sweeps(patch: pytest.MonkeyPatch) -> None:
    """Let an entry sweep one key."""
    patch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 1)
    patch.setattr(contents, "SWEPT_AT_ONCE", 1)


@pytest.mark.parametrize("repeated", [False, True])
def test_removals_whose_keys_are_being_counted_are_in_the_limit_of_what_waits(
    repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abcdefghi"))
    cluster.apply()
    monkeypatch.setattr(proposals, "PENDING_MAX", 3)
    # The same one again counts as another: everybody who waits takes a place.
    removal = commands.idempotent("again", commands.delete_prefix("")) if repeated else commands.delete_prefix("")
    removals = [Call(cluster, removal) for _ in range(3)]
    cluster.apply()
    cluster.proposals.tell_counts(cluster.machine.contents)
    assert [each.outcomes for each in removals] == [[]] * 3 and cluster.proposals.pending == 3
    assert isinstance(Call(cluster, count()).outcome, Overloaded)
    while cluster.machine.next_due_ms() == 0:
        cluster.apply(commands.encode_block(0, 0, 0, [commands.noop()]))
        cluster.proposals.tell_counts(cluster.machine.contents)
    assert [each.outcome for each in removals] == [
        [[commands.OK, 9 if repeated or not number else 0]] for number in range(3)
    ]
    assert cluster.proposals.pending == cluster.proposals.pending_bytes == 0
    served = Call(cluster, count())
    cluster.apply()
    assert numbers(served.outcome) == [1]


def test_an_entry_looks_at_one_removal_however_many_are_being_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abcdefghijklmnop"))
    cluster.apply()
    first = commands.idempotent("first", commands.delete_prefix("a"))
    Call(cluster, first)
    for _ in range(2):
        Call(cluster, commands.delete_prefix("b"))
    cluster.apply()
    # Sent again behind all others it waits for the oldest removal.
    Call(cluster, first)
    cluster.apply()
    revisions = [proposal.results[-1][1] for proposal in cluster.proposals.counting]
    assert len(revisions) == 4 and revisions == sorted(revisions) and revisions[0] == revisions[1]
    asked: list[int] = []

    def is_counting(_: Condemnations, revision: int) -> bool:
        asked.append(revision)
        return True

    monkeypatch.setattr(Condemnations, "is_counting", is_counting)
    counting = cluster.proposals.counting
    cluster.proposals.tell_counts(cluster.machine.contents)
    assert asked == revisions[:1]
    # Nor does it copy them.
    assert cluster.proposals.counting is counting


def test_a_removal_is_answered_when_its_keys_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abc"))
    cluster.apply()
    removal, after = Call(cluster, commands.delete_prefix("")), Call(cluster, count())
    cluster.apply()
    assert numbers(after.outcome) == [1]
    assert removal.outcomes == []
    for _ in range(5):
        cluster.apply(commands.encode_block(0, 0, 0, [commands.noop()]))
        cluster.proposals.tell_counts(cluster.machine.contents)
    assert removal.outcome == [[commands.OK, 3]]
    assert cluster.proposals.counting == []


def test_a_removal_is_answered_also_when_snapshots_bring_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abc"))
    cluster.apply()
    local, older = object.__new__(LocalNode), CacheMachine.restore([*cluster.machine.snapshot()])
    local.proposals, local.on_settings = cluster.proposals, lambda _: None
    local.feed = Feed(Slices(), lambda: 0, 0, bytes(16))
    local.events = Mock()
    local.tracking = Tracking(Slices(lambda: 0.0, lambda call: None, lambda: 0.0), lambda call: None, lambda key: None)
    removal = Call(cluster, commands.delete_prefix(""))
    cluster.apply()
    local.machine_replaced(older)
    assert (removal.outcomes, local.machine) == ([], older)
    while cluster.machine.next_due_ms() == 0:
        # Applied by others while this node is away.
        cluster.index += 1
        cluster.machine.apply(cluster.index, commands.encode_entry(cluster.leader_ms, []))
    local.machine_replaced(CacheMachine.restore([*cluster.machine.snapshot()]))
    assert removal.outcome == [[commands.OK, 3]]


@pytest.mark.parametrize("end", ["deadline", "close", "forgotten"])
def test_a_removal_that_is_not_counted_in_time_is_told_as_done(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_sweeps(monkeypatch)
    cluster = Cluster().open()
    Call(cluster, *(commands.set_(key, b"", 1) for key in "abcdefghi"))
    cluster.apply()
    removal = Call(cluster, commands.delete_prefix(""))
    cluster.apply()
    cluster.proposals.tell_counts(cluster.machine.contents)
    assert removal.outcomes == []
    if end == "deadline":
        cluster.now += 20.0
        cluster.proposals.expire()
    elif end == "close":
        cluster.proposals.close()
    else:
        cluster.machine.contents.condemned.adopt([], 0)
        cluster.proposals.tell_counts(cluster.machine.contents)
    assert type(removal.outcome) is (AnswerNotKept if end == "forgotten" else OutcomeUnknown)
    assert "are removed" in str(removal.outcome)
    assert (cluster.proposals.counting, cluster.proposals.pending) == ([], 0)
