"""When an entry waits for more commands, and when it does not."""

from __future__ import annotations

import pytest

from cacheflow.raft.roles.batching import ABSENT_ENTRIES_MAX, WAIT_S, Batching


class Time:
    """What the leader's clock says, and when it will look again."""

    def __init__(self) -> None:
        self.now_s = 10.0
        self.woken_after: list[float] = []


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def batching(time: Time) -> Batching:
    return Batching(lambda: time.now_s, time.woken_after.append)


def test_without_crowds_nobody_waits(batching: Batching, time: Time) -> None:
    assert not batching.should_wait([""], 5)
    assert time.woken_after == []


def test_the_first_of_several_crowds_waits_until_all_are_here(batching: Batching, time: Time) -> None:
    for origin in ("", "n2", "n3"):
        batching.note_crowd(origin, 5)
    assert batching.should_wait([""], 6)
    assert batching.should_wait(["", "n3"], 6)
    assert not batching.should_wait(["n2", "", "n3"], 6)
    assert time.woken_after == [WAIT_S]


def test_who_stays_away_is_waited_for_no_longer_than_told(batching: Batching, time: Time) -> None:
    batching.note_crowd("", 5)
    batching.note_crowd("n2", 5)
    assert batching.should_wait([""], 6)
    time.now_s += WAIT_S / 2
    assert batching.should_wait([""], 6)
    time.now_s += WAIT_S
    assert not batching.should_wait([""], 6)


def test_a_lone_client_waits_for_nobody(batching: Batching, time: Time) -> None:
    batching.note_crowd("n2", 5)
    assert not batching.should_wait([""], 6)
    assert not batching.should_wait(["", "n3"], 6)
    assert time.woken_after == []


def test_who_has_stayed_away_is_expected_no_more(batching: Batching, time: Time) -> None:
    batching.note_crowd("n2", 5)
    batching.note_crowd("", 6)
    assert batching.should_wait([""], 5 + ABSENT_ENTRIES_MAX)
    time.now_s += WAIT_S
    assert not batching.should_wait([""], 5 + ABSENT_ENTRIES_MAX)
    assert not batching.should_wait([""], 6 + ABSENT_ENTRIES_MAX)


def test_another_leadership_knows_nobody(batching: Batching) -> None:
    batching.note_crowd("n2", 5)
    batching.forget_crowds()
    assert not batching.should_wait([""], 6)
