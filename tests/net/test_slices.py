"""Long work: in slices on the event loop, with breaks beside it."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
from itertools import pairwise

from cacheflow.net.loop import NodeLoop
from cacheflow.net.slices import BREAK_EVERY_S, BREAK_S, SLICE_S, Breaks, Call, Slices


def test_a_thread_gives_way_when_it_has_kept_the_interpreter_for_so_long() -> None:
    now_s = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now_s
        slept.append(now_s)
        now_s += seconds

    breaks = Breaks(lambda: now_s, sleep)
    for _ in range(100):
        breaks.give_way()
        now_s += BREAK_EVERY_S / 10
    assert len(slept) == 9
    assert all(later - earlier >= BREAK_EVERY_S + BREAK_S for earlier, later in pairwise(slept))


def test_a_slice_begins_before_the_first_step_of_its_turn() -> None:
    now_s = 1.0
    soon: list[Call] = []
    slices = Slices(lambda: now_s, soon.append, lambda: math.inf)
    steps: list[int] = []

    def work() -> None:
        nonlocal now_s
        while len(steps) < 9:
            now_s += 0.6 * SLICE_S
            steps.append(turn)
            if slices.over():
                slices.put(work)
                return

    slices.put(work)
    turn = 0
    while soon:
        turn += 1
        soon.pop(0)()
    # Two such steps are more than a slice; who asks first goes on.
    assert steps == [1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_a_turn_whose_time_is_used_up_leaves_long_work_one_step() -> None:
    now_s = 1.0
    turn_ends = 0.0
    soon: list[Call] = []
    slices = Slices(lambda: now_s, soon.append, lambda: turn_ends)
    steps: list[int] = []

    def work(left: int) -> None:
        nonlocal now_s
        while left:
            now_s += SLICE_S / 10
            steps.append(turn)
            left -= 1
            if slices.over():
                slices.put(functools.partial(work, left))
                return

    # Two pieces of work: the second has its step in the turn after that of the first.
    slices.put(lambda: work(3))
    slices.put(lambda: work(1))
    turn = 0
    while soon:
        turn += 1
        turn_ends = now_s + (0.0 if turn < 4 else 1.0)
        soon.pop(0)()
    # Who asks first goes on.
    assert steps == [1, 1, 2, 3]


def test_the_slice_of_a_node_s_loop_comes_behind_all_else_of_its_turn() -> None:
    told: list[str] = []

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        slices = Slices()

        def heard() -> None:
            told.append("heard")
            loop.remove_reader(here)

        loop.add_reader(here, heard)
        there.send(b"x")
        slices.put(lambda: told.append("slice"))
        loop.call_soon(told.append, "soon")
        while len(told) < 3:
            await asyncio.sleep(0)
        here.close()
        there.close()

    with asyncio.Runner(loop_factory=NodeLoop) as runner:
        runner.run(talk())
    assert told[-1] == "slice"
