"""VotersTime: what a leader that has heard none makes of its own estimate and the others'."""

from __future__ import annotations

import pytest

from cacheflow.node.clock import ClusterClock
from cacheflow.raft.guards import BadMessage
from cacheflow.raft.roles.voters_time import AGREE_MS, OLD_MS, VotersTime

HOUR_MS = 3_600_000
# The cluster's time that right clocks tell.
RIGHT_MS = 50 * HOUR_MS


class Node:
    """One node's estimates. own_ms: its own, None for none."""

    def __init__(self, own_ms: int | None, heard: bool = False) -> None:
        self.passed_s = 9.0
        self.clock = ClusterClock(lambda: self.passed_s, lambda: 1e9)
        if own_ms is not None:
            self.clock.restore(own_ms, self.clock.wall_ms())
        if heard and own_ms is not None:
            self.clock.hear(own_ms, 0)
        self.times = VotersTime(self.clock, lambda: int(self.passed_s * 1000))

    def told(self, *voters_ms: int, heard: bool = False, first: int = 1) -> Node:
        for number, time_ms in enumerate(voters_ms, first):
            self.times.note(f"v{number}", {"time": time_ms, "heard": heard})
        return self


@pytest.mark.parametrize("wrong_ms", [2 * HOUR_MS, -2 * HOUR_MS])
def test_a_minority_of_wrong_clocks_does_not_move_the_median(wrong_ms: int) -> None:
    wrong = RIGHT_MS + wrong_ms
    assert Node(wrong).told(RIGHT_MS, RIGHT_MS).times.estimate_ms() == RIGHT_MS
    assert Node(RIGHT_MS).told(wrong, RIGHT_MS).times.estimate_ms() == RIGHT_MS
    assert Node(wrong).told(wrong, RIGHT_MS, RIGHT_MS, RIGHT_MS).times.estimate_ms() == RIGHT_MS
    assert Node(wrong).told(RIGHT_MS - wrong_ms, RIGHT_MS).times.estimate_ms() == RIGHT_MS


def test_of_two_in_the_middle_the_earlier_one_counts() -> None:
    assert Node(RIGHT_MS + HOUR_MS).told(RIGHT_MS).times.estimate_ms() == RIGHT_MS
    assert Node(RIGHT_MS).told(RIGHT_MS + HOUR_MS).times.estimate_ms() == RIGHT_MS
    assert Node(RIGHT_MS + 3).told(RIGHT_MS, RIGHT_MS + 2, RIGHT_MS + 1).times.estimate_ms() == RIGHT_MS + 1


def test_a_voter_alone_has_only_itself() -> None:
    assert Node(RIGHT_MS).times.estimate_ms() == RIGHT_MS
    assert not Node(RIGHT_MS).times.is_disputed(1)
    assert Node(None).times.estimate_ms() == 0
    assert not Node(None).times.is_disputed(1)


def test_who_has_heard_a_leader_counts_and_wall_clocks_do_not() -> None:
    node = Node(RIGHT_MS + HOUR_MS).told(RIGHT_MS + HOUR_MS)
    node.told(RIGHT_MS, RIGHT_MS - 40, heard=True, first=2)
    assert node.times.estimate_ms() == RIGHT_MS - 1, "messages are late, so the latest is the best"
    assert not node.times.is_disputed(5)
    knows = Node(RIGHT_MS, heard=True).told(RIGHT_MS + HOUR_MS, RIGHT_MS - HOUR_MS)
    assert knows.times.estimate_ms() == 0
    assert not knows.times.is_disputed(3)


def test_voters_without_an_estimate_do_not_count() -> None:
    assert Node(RIGHT_MS).told(0, 0).times.estimate_ms() == RIGHT_MS
    assert Node(None).told(0, RIGHT_MS).times.estimate_ms() == RIGHT_MS
    assert Node(None).told(0, 0).times.estimate_ms() == 0


def test_it_is_disputed_until_a_majority_agrees_or_all_have_answered() -> None:
    node = Node(RIGHT_MS + HOUR_MS).told(RIGHT_MS)
    assert node.times.is_disputed(3)
    assert not node.told(RIGHT_MS + HOUR_MS, first=2).times.is_disputed(3)
    assert not Node(RIGHT_MS).told(RIGHT_MS + AGREE_MS).times.is_disputed(3)
    assert Node(RIGHT_MS).told(RIGHT_MS + AGREE_MS + 1).times.is_disputed(3)
    assert not Node(RIGHT_MS).told(RIGHT_MS + AGREE_MS + 1).times.is_disputed(2), "nobody else will answer"
    five = Node(RIGHT_MS + HOUR_MS).told(RIGHT_MS, RIGHT_MS)
    assert five.times.is_disputed(5)
    assert not five.told(RIGHT_MS, first=3).times.is_disputed(5)


def test_time_passes_while_a_candidate_waits() -> None:
    node = Node(RIGHT_MS + HOUR_MS).told(RIGHT_MS, RIGHT_MS)
    node.passed_s += 0.5
    assert node.times.estimate_ms() == RIGHT_MS + 500


def test_what_was_said_long_ago_is_forgotten() -> None:
    node = Node(RIGHT_MS).told(RIGHT_MS + HOUR_MS, RIGHT_MS + HOUR_MS)
    node.passed_s += OLD_MS / 1000
    assert node.told(RIGHT_MS + OLD_MS, first=2).times.estimate_ms() == RIGHT_MS + OLD_MS


@pytest.mark.parametrize("time_ms", [None, -1, 2**64, True, "1", 1.5])
def test_a_time_that_is_none_is_refused(time_ms: object) -> None:
    with pytest.raises(BadMessage):
        Node(RIGHT_MS).times.note("v1", {"time": time_ms, "heard": False})


def test_an_answer_that_waited_for_its_voters_disk_takes_nothing_back() -> None:
    node = Node(RIGHT_MS).told(RIGHT_MS)
    node.passed_s += 0.4
    # The vote was written 0.4 s ago, when the pre-vote was answered, and had to be durable before it was sent.
    node.told(RIGHT_MS)
    assert node.times.estimate_ms() == RIGHT_MS + 400
    node.told(RIGHT_MS + 500)
    assert node.times.estimate_ms() == RIGHT_MS + 400, "of two the earlier one counts, and this node's own is that"
