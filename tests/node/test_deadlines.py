"""Proposals whose time is over: withdrawn, told as unknown, or refused by the state machine as too late."""

from __future__ import annotations

import pytest
from node.listed_leader import Call, Cluster, count, numbers

from cacheflow.errors import NoLeader, NotCommitted, OutcomeUnknown
from cacheflow.machine.language import commands
from cacheflow.node import proposals


def test_at_its_deadline_an_unsent_call_is_withdrawn_and_a_sent_one_unknown() -> None:
    cluster = Cluster().open()
    sent = Call(cluster, count(), timeout_s=5)
    cluster.proposals.route_changed(False)
    unsent = Call(cluster, count(), timeout_s=5)
    cluster.now += 4.9
    cluster.proposals.expire()
    assert sent.outcomes == unsent.outcomes == []
    cluster.now += 0.2
    cluster.proposals.expire()
    assert isinstance(sent.outcome, OutcomeUnknown) and isinstance(unsent.outcome, NoLeader)
    # The sent one keeps its number, which a no-op takes; what comes later is not mixed up with it.
    later = Call(cluster, count())
    cluster.proposals.route_changed(True)
    cluster.apply()
    assert numbers(later.outcome) == [1]
    assert len(sent.outcomes) == 1 and cluster.proposals.pending == 0
    # Each of the three is counted once, by its end.
    assert cluster.proposals.answered_total == 1
    assert cluster.proposals.errors_total == {OutcomeUnknown: 1, NoLeader: 1}


@pytest.mark.parametrize(("has_route", "told"), [(True, OutcomeUnknown), (False, NoLeader)])
def test_a_short_deadline_behind_a_long_one_is_kept(has_route: bool, told: type[Exception]) -> None:
    cluster = Cluster().open()
    cluster.proposals.route_changed(has_route)
    long, short = Call(cluster, count(), timeout_s=60), Call(cluster, count(), timeout_s=1)
    cluster.now += 1.5
    cluster.proposals.expire()
    assert long.outcomes == [] and isinstance(short.outcome, told)
    cluster.now += 60
    cluster.proposals.expire()
    assert len(long.outcomes) == 1


def moments(cluster: Cluster) -> list[int]:
    return [commands.decode_block(block)[3] for block in cluster.sent]


def test_a_block_tells_the_last_moment_at_which_its_commands_may_take_place() -> None:
    cluster = Cluster().open()
    Call(cluster, count(), timeout_s=10, flush=False)
    Call(cluster, count(), timeout_s=3)
    assert moments(cluster) == [1000 + 10_000 + proposals.LATE_MS]
    cluster.now += 4
    cluster.cluster_ms += 4500
    cluster.proposals.route_changed(True)
    assert moments(cluster) == [1000 + 4500 + 6000 + proposals.LATE_MS]


def test_what_was_told_as_unknown_is_not_sent_again_and_its_number_is_taken_all_the_same() -> None:
    cluster = Cluster().open()
    given_up = Call(cluster, count(), count(), timeout_s=2)
    waits = Call(cluster, count(), timeout_s=10)
    cluster.sent.clear()
    cluster.now += 3
    cluster.proposals.expire()
    assert isinstance(given_up.outcome, OutcomeUnknown) and waits.outcomes == []
    cluster.proposals.route_changed(True)
    ((_, first, _, block),) = cluster.blocks()
    assert (first, [command[0] for command in block]) == (1, [commands.NOOP, commands.NOOP, commands.INCR])
    cluster.apply()
    assert numbers(waits.outcome) == [1]
    given_up = Call(cluster, count(), timeout_s=1)
    cluster.sent.clear()
    cluster.now += 3
    cluster.proposals.expire()
    # A block of which nobody waits for anything has no last moment: all that it does is take numbers.
    cluster.proposals.route_changed(True)
    assert moments(cluster) == [0] and cluster.blocks()[0][3] == [[commands.NOOP]]
    cluster.apply()
    assert cluster.proposals.pending == 0 and cluster.machine.contents.revision == 1


def test_who_still_waits_when_it_is_too_late_is_told_that_nothing_has_happened() -> None:
    cluster = Cluster().open()
    call, two = Call(cluster, count()), Call(cluster, count(), count())
    cluster.leader_ms += 11_000 + 1
    cluster.apply()
    assert isinstance(call.outcome, NotCommitted) and isinstance(two.outcome, NotCommitted)
    assert cluster.proposals.pending == 0 and cluster.machine.contents.revision == 0
    cluster.cluster_ms = cluster.leader_ms
    call = Call(cluster, count())
    cluster.apply()
    assert numbers(call.outcome) == [1]


def test_a_node_that_lags_behind_its_leader_by_a_second_writes_nothing_too_late() -> None:
    cluster = Cluster().open()
    cluster.leader_ms += 1000
    call = Call(cluster, count(), timeout_s=0.001)
    cluster.apply()
    assert numbers(call.outcome) == [1]


def test_a_call_of_which_a_part_took_place_in_time_is_unknown() -> None:
    cluster = Cluster().open()
    call = Call(cluster, count(), count())
    ((session, first, lowest, block),) = cluster.blocks()
    pending, cluster.sent = cluster.sent, []
    cluster.apply(commands.encode_block(session, first, lowest, [tuple(block[0])]))
    cluster.leader_ms += 20_000
    cluster.apply(*pending)
    assert isinstance(call.outcome, OutcomeUnknown) and cluster.machine.contents.revision == 1
