"""What a node knows of how far it had applied the log. Time is handed in; nothing here waits."""

from __future__ import annotations

import pytest

from cacheflow.errors import NotReady
from cacheflow.node.past import MOMENTS_MAX, Past


class Node:
    """A node's monotonic clock, in seconds, and its past."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.past = Past(lambda: self.now_s)

    def goes_on(self, seconds: float, index: int) -> None:
        """Let time pass in steps of the node's timer, with ``index`` applied."""
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            self.past.note(index)


def test_a_command_can_only_be_behind_what_was_applied_when_it_was_tried_first() -> None:
    node = Node()
    for index in (10, 20, 30, 40):
        node.goes_on(10.0, index)
    for age_s, before in ((0, 40), (8, 40), (11.5, 30), (18, 30), (21.5, 20), (31.5, 10)):
        assert node.past.first_index(int(age_s * 1000)) == before + 1


def test_what_was_applied_within_the_last_two_seconds_may_be_younger_than_the_try() -> None:
    node = Node()
    for index in range(1, 200):
        node.goes_on(0.1, index)
        if index > 20:
            # In the last second it was on its way; and moments are a second apart.
            assert index - 21 <= node.past.first_index(0) - 1 <= index - 9


def test_before_the_start_anything_may_have_been_applied() -> None:
    node = Node()
    node.goes_on(10.0, 7)
    assert node.past.first_index(8_000) == 8
    for age_ms in (9_500, 600_000, 10**15 - 1):
        assert node.past.first_index(age_ms) == 1


def test_a_node_that_has_just_caught_up_tells_no_age() -> None:
    node = Node()
    with pytest.raises(NotReady):
        node.past.first_index(0)
    node.past.note(7)
    with pytest.raises(NotReady):
        node.past.first_index(0)
    node.now_s += 1.0
    assert node.past.first_index(0) == 8
    assert node.past.first_index(5) == 1


def test_only_so_many_moments_are_kept() -> None:
    node = Node()
    for index in range(1, MOMENTS_MAX + 100):
        node.now_s += 1.0
        node.past.note(index)
    assert len(node.past._moments) == MOMENTS_MAX
    assert node.past.first_index(MOMENTS_MAX * 1000 - 2000) == 101
    assert node.past.first_index(MOMENTS_MAX * 1000) == 1
