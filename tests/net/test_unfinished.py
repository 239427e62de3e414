"""The budget of unfinished input by itself: who waits, who goes on, who is ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cacheflow.net.unfinished import COUNTED_BYTES_MIN, LONG_S, SILENT_S, Unfinished, has_ended, has_input

MANY = 2 * COUNTED_BYTES_MIN


class One:
    """A connection. reads: how often it was told to read on."""

    def __init__(self) -> None:
        self.unfinished_bytes = 0
        self.came_s = 0.0
        self.waits = False
        self.reads = 0

    def read_on(self) -> None:
        assert not self.waits
        self.reads += 1


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Unfinished:
    return Unfinished(5 * MANY, clock)


def test_short_requests_neither_count_nor_wait(budget: Unfinished) -> None:
    budget.tell(One(), 5 * MANY)
    short = One()
    budget.tell(short, COUNTED_BYTES_MIN - 1)
    assert not short.waits
    assert short.unfinished_bytes == 0
    assert budget.bytes == 5 * MANY


def fill(budget: Unfinished, count: int) -> list[One]:
    """Connections of which more has come since all is full; the fifth was the first of whom it was too much."""
    ones = [One() for _ in range(count)]
    for _ in range(2):
        for one in ones:
            budget.tell(one, MANY)
    return ones


def test_when_all_is_full_one_goes_on_and_all_others_wait_when_more_of_theirs_comes(budget: Unfinished) -> None:
    ones = [One() for _ in range(6)]
    for one in ones:
        budget.tell(one, MANY)
    # Nothing more has come of the first four: they may send, and must not be silent.
    assert [one.waits for one in ones] == [False, False, False, False, False, True]
    for one in ones:
        budget.tell(one, MANY + 1)
    assert [one.waits for one in ones] == [True, True, True, True, False, True]
    assert budget.bytes == 6 * (MANY + 1)


def test_when_one_is_complete_the_oldest_goes_on_and_more_only_as_there_is_room(budget: Unfinished) -> None:
    ones = fill(budget, 8)
    budget.tell(ones[4], 0)
    assert [one.reads for one in ones] == [1, 0, 0, 0, 0, 0, 0, 0]
    # The turn is not passed on by who does not have it.
    budget.tell(ones[7], 0)
    assert [one.reads for one in ones] == [1, 0, 0, 0, 0, 0, 0, 0]
    budget.tell(ones[0], 0)
    assert [one.reads for one in ones] == [1, 1, 0, 0, 0, 0, 0, 0]
    # Four are left of five: there is room for two pieces.
    budget.tell(ones[1], 0)
    assert [one.reads for one in ones] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert [one.waits for one in ones] == [False] * 4 + [False, True, True, False]
    for one in ones:
        budget.tell(one, 0)
    assert budget.bytes == budget._waiting == len(budget._line) == 0
    assert budget._turn is None


def test_one_that_waits_and_is_closed_is_forgotten(budget: Unfinished) -> None:
    ones = fill(budget, 6)
    assert [one.waits for one in ones] == [True, True, True, True, False, True]
    budget.tell(ones[5], 0)
    assert [one.waits for one in ones] == [True, True, True, True, False, False]
    assert ones[5].reads == 0
    assert budget._waiting == 4


def test_who_sends_no_more_goes_first(budget: Unfinished) -> None:
    ones = fill(budget, 6)
    budget.hasten(ones[3])
    assert [one.reads for one in ones] == [0, 0, 0, 1, 0, 0]
    budget.tell(ones[3], MANY)
    budget.tell(ones[4], MANY)
    assert [one.waits for one in ones] == [True, True, True, False, True, True]
    budget.hasten(ones[3])
    assert [one.reads for one in ones] == [0, 0, 0, 1, 0, 0]
    # The turn comes back to the others, in their order.
    budget.tell(ones[3], 0)
    budget.tell(ones[0], MANY)
    assert [one.reads for one in ones] == [1, 0, 0, 1, 0, 0]


def test_it_is_crowded_until_nobody_waits_any_more(budget: Unfinished) -> None:
    ones = fill(budget, 6)
    for one in (ones[4], ones[0]):
        budget.tell(one, 0)
    # There is some room, which is kept for those that may read again.
    assert [one.waits for one in ones] == [False, False, False, True, False, True]
    assert not budget.full and budget.crowded
    budget.hasten(ones[3])
    assert budget.crowded
    budget.hasten(ones[5])
    assert not budget.crowded


def end_overdue(budget: Unfinished, ones: list[One], now_s: float, spared: One | None = None) -> list[One]:
    """What a front does that finds unread input of ``spared`` alone; those that it ends."""
    ended = []
    for one in budget.overdue(ones, now_s):
        if one is not spared:
            ended.append(one)
            budget.tell(one, 0)
    return ended


def test_over_the_limit_the_silent_are_ended_the_stalest_first_until_half_of_the_room_is_free(
    budget: Unfinished, clock: Clock
) -> None:
    ones = [One() for _ in range(4)]
    for one in ones:
        budget.tell(one, MANY)
        clock.now_s += 1
    late = 120 + SILENT_S
    assert not budget.crowded
    assert end_overdue(budget, ones, late) == []
    turn, waiting = One(), One()
    budget.tell(turn, MANY)
    budget.tell(waiting, MANY)
    assert waiting.waits
    everybody = [waiting, turn, *reversed(ones)]
    assert end_overdue(budget, everybody, 100 + SILENT_S, spared=ones[0]) == []
    assert end_overdue(budget, everybody, late) == [ones[1], ones[2], ones[0], ones[3]]
    assert waiting.reads == 1
    assert end_overdue(budget, everybody, late + SILENT_S) == []


def test_who_waits_is_ended_too_unless_it_has_sent_something_and_then_it_is_not_looked_at_for_a_while(
    budget: Unfinished, clock: Clock
) -> None:
    ones = fill(budget, 6)
    assert [one.waits for one in ones] == [True, True, True, True, False, True]
    now_s = clock.now_s + SILENT_S
    assert list(budget.overdue(ones[:4], now_s - 0.1)) == []
    clock.now_s = now_s
    assert end_overdue(budget, ones[:2], now_s, spared=ones[0]) == [ones[1]]
    assert list(budget.overdue(ones[:2], now_s + SILENT_S - 0.1)) == []
    assert list(budget.overdue(ones[:2], now_s + SILENT_S)) == [ones[0]]


def test_who_has_waited_has_its_time_from_when_it_may_send_again(budget: Unfinished, clock: Clock) -> None:
    ones = fill(budget, 7)
    clock.now_s += SILENT_S
    looking = budget.overdue(ones, clock.now_s)
    assert next(looking) is ones[0]
    # It is ended, and so is the one that has the turn: the next one is called and is not late any more.
    budget.tell(ones[0], 0)
    budget.tell(ones[4], 0)
    assert ones[1].reads == 1
    assert next(looking) is ones[2]


def test_as_long_as_one_waits_the_silent_are_ended_although_not_all_is_full(budget: Unfinished, clock: Clock) -> None:
    ones = fill(budget, 6)
    budget.tell(ones[4], MANY // 2)
    budget.tell(ones[5], 0)
    # There is room for one, and four wait: the oldest is called, and sends nothing.
    assert ones[0].reads == 1
    assert [one.waits for one in ones] == [False, True, True, True, False, False]
    assert not budget.full
    assert budget.crowded
    clock.now_s += SILENT_S
    assert next(budget.overdue(ones[:1], clock.now_s)) is ones[0]


def test_over_the_limit_who_does_not_come_to_an_end_is_ended_too(budget: Unfinished, clock: Clock) -> None:
    ones = fill(budget, 6)
    clock.now_s += LONG_S - 1
    for one in ones:
        budget.tell(one, MANY)
    assert not budget.has_stayed(ones[4], clock.now_s)
    assert list(budget.overdue(ones[4:], clock.now_s)) == []
    clock.now_s += 1
    budget.tell(ones[4], MANY)
    assert list(budget.overdue(ones[4:], clock.now_s)) == [ones[5], ones[4]]
    # A request that is complete is over.
    budget.tell(ones[4], 0)
    budget.tell(ones[4], MANY)
    assert not budget.has_stayed(ones[4], clock.now_s)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()
    with here, there:
        yield here, there


def test_input_and_the_end_of_a_client_are_seen_without_reading(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    assert not has_input(here.fileno())
    assert not has_ended(here.fileno())
    there.send(b"x")
    assert has_input(here.fileno())
    assert not has_ended(here.fileno())
    there.shutdown(socket.SHUT_WR)
    assert has_ended(here.fileno())
