"""What the benchmark's rows judge, by figures that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.bench.peers.loading import Measured
from scripts.bench.rows import looppauses, snapshot
from scripts.bench.rows.snapshot import Turn, Window

RATE = 1000.0


def window(*buckets: tuple[float, int]) -> Window:
    replies = sum(count for _, count in buckets)
    measured = Measured(replies, replies, 0, 0, buckets[0][0], buckets[-1][0], buckets[-1][0], buckets)
    return Window(measured, measured, 0.5)


CALM = window((1000.0, 1000))
BAD = window((1000.0, 900), (5000.0, 100))


def test_one_bad_window_of_three_is_not_hidden_by_the_others() -> None:
    verdict = snapshot.judge([Turn([CALM], [CALM, CALM, BAD], CALM)], RATE)
    assert verdict.figures["ratio"] == pytest.approx(5)
    assert verdict.passed is False


def test_the_window_in_which_the_build_ends_is_shown_and_not_judged() -> None:
    verdict = snapshot.judge([Turn([CALM], [CALM], BAD)], RATE)
    assert verdict.passed is True
    assert "as it ends 5.0 ms" in verdict.measured


@pytest.mark.parametrize(("answered", "passed"), [(990, True), (989, False)])
def test_a_window_that_was_not_answered_at_its_rate_has_missed(answered: int, passed: bool) -> None:
    verdict = snapshot.judge([Turn([CALM], [CALM, window((1000.0, answered))], CALM)], RATE)
    assert verdict.passed is passed


def test_without_a_whole_window_nothing_is_judged() -> None:
    assert snapshot.judge([Turn([CALM], [], CALM)], RATE).passed is None


def paused(longest_ms: float, over: int) -> dict[str, Any]:
    return {
        "longest_ms": {"node-1": longest_ms},
        "over_50_ms": {"node-1": over},
        "noise_ms": 1.0,
        "sets_per_s": 1.0,
        "evicted": 1,
        "snapshots": 1,
    }


def test_pauses_are_judged_by_the_limits_of_that_many_items() -> None:
    assert looppauses.judge({1_000_000: paused(300, 2)}).passed is True
    assert looppauses.judge({1_000_000: paused(300, 3)}).passed is False
    assert looppauses.judge({1_000_000: paused(300, 2), 100_000: paused(51, 1)}).passed is False


def test_pauses_with_another_number_of_items_are_information() -> None:
    verdict = looppauses.judge({20_000: paused(300, 2)})
    assert verdict.passed is None
    assert "information" in verdict.measured
