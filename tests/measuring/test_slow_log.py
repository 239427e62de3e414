"""The slow log: what is slow, what is kept of it, and for how long."""

from __future__ import annotations

import pytest

from cacheflow.measuring.slow_log import KEPT, SlowLog, SlowRequest


def noted(log: SlowLog, command: str) -> None:
    log.note("resp", command, "ok", 0.25, 3, 2, "192.0.2.1:5")


def test_what_is_kept_of_a_request_says_who_asked_for_what_and_not_which_key() -> None:
    log = SlowLog(50, wall=lambda: 1_700_000_000.5)
    noted(log, "get")
    assert log.latest() == [SlowRequest(1, 1_700_000_000.5, "resp", "get", "ok", 0.25, 3, 2, "192.0.2.1:5", "")]


@pytest.mark.parametrize(("slow_ms", "from_s"), [(50, 0.05), (0, 0.0), (-1, float("inf")), (-0.001, float("inf"))])
def test_a_request_is_slow_from_a_time_on_and_none_is_for_a_negative_time(slow_ms: float, from_s: float) -> None:
    log = SlowLog(slow_ms)
    assert (log.from_s, log.slow_ms) == (from_s, slow_ms)
    log.set_slow_ms(7)
    assert (log.from_s, log.slow_ms) == (0.007, 7)


def test_the_newest_are_kept_and_come_first() -> None:
    log = SlowLog(50)
    for number in range(KEPT + 3):
        noted(log, f"command {number}")
    latest = log.latest()
    assert len(log) == len(latest) == KEPT
    assert [each.number for each in latest] == list(range(KEPT + 3, 3, -1))
    assert log.latest(2) == latest[:2] and log.latest(0) == []


def test_when_all_are_forgotten_the_numbers_of_later_ones_go_on() -> None:
    log = SlowLog(50)
    noted(log, "get")
    log.clear()
    assert len(log) == 0 and log.latest() == []
    noted(log, "get")
    assert [each.number for each in log.latest()] == [2]
