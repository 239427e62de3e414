"""Long work: in slices on the event loop, with breaks beside it."""

from __future__ import annotations

import math
from itertools import pairwise

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
