"""In which order the node's loop hears of what has come."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from cacheflow.net.loop import TURN_S, NodeLoop


@pytest.mark.parametrize("last", [0, 1, 2])
def test_what_comes_at_once_is_handled_with_the_clients_last(last: int) -> None:
    loop = NodeLoop()
    pairs = [socket.socketpair() for _ in range(3)]
    heard: list[int] = []

    def hear(number: int) -> None:
        heard.append(number)
        loop.remove_reader(pairs[number][0])

    try:
        for number, (here, there) in enumerate(pairs):
            loop.add_reader(here, hear, number)
            there.send(b"x")
        loop.put_last(pairs[last][0].fileno())
        loop.run_until_complete(asyncio.sleep(0))
        while len(heard) < 3:
            loop.run_until_complete(asyncio.sleep(0))
        assert heard[-1] == last
    finally:
        loop.close()
        for pair in pairs:
            for each in pair:
                each.close()


def test_a_closed_descriptor_is_nobodys_place_any_more() -> None:
    loop = NodeLoop()
    loop.put_last(7)
    loop.put_last()
    assert loop._order.last not in range(1024)
    loop.close()


def test_a_turn_knows_when_it_should_end() -> None:
    async def ask() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NodeLoop)
        first = loop.budget.ends
        time.sleep(TURN_S)
        late = loop.budget.ends
        assert loop.time() >= late == first
        await asyncio.sleep(0)
        return first, loop.budget.ends, loop.time()

    with asyncio.Runner(loop_factory=NodeLoop) as runner:
        first, second, now = runner.run(ask())
    assert second >= first + TURN_S and now <= second


def test_each_turn_counts_with_the_time_for_which_it_held_the_loop_and_waiting_does_not() -> None:
    loop = NodeLoop()
    held_s: list[float] = []
    waits: list[bool] = []

    def hold() -> None:
        time.sleep(0.03)
        held_s.append(loop.budget.age_s())

    def look_from_outside() -> None:
        # The loop waits most of the time.
        while loop.budget.age_s() and loop.is_running():
            time.sleep(0.001)
        waits.append(loop.is_running())
        if waits[0]:
            loop.call_soon_threadsafe(loop.stop)

    looking = threading.Thread(target=look_from_outside)
    try:
        loop.call_soon(hold)
        loop.call_later(0.1, looking.start)
        loop.call_later(5.0, loop.stop)
        loop.run_forever()
        looking.join()
    finally:
        loop.close()
    assert 0.03 <= held_s[0] < 5 and waits == [True]
    turns = loop.budget.turns
    assert turns.count >= 2 and 0.03 <= turns.sum_s < 10, "the wait for the timer is in no turn"
    assert loop.budget.age_s() == 0
