"""Long work beside the event loop has breaks."""

from __future__ import annotations

from itertools import pairwise

from cacheflow.net.slices import BREAK_EVERY_S, BREAK_S, Breaks


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
