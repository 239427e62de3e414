"""A gentle process: ordinary for short work, then it yields, and tells when it gets no time at all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from cacheflow.raft.snapshots import gentle
from cacheflow.raft.snapshots.gentle import REST_S_MAX, RESTS, STARVED_S, STARVED_SHARE, Gentle


class Times:
    """The two clocks of a process, and its sleep."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.worked_s = 5.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.worked_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)

    def pass_s(self, seconds: float, *, worked: float) -> None:
        self.now_s += seconds
        self.worked_s += worked


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Iterator[Times]:
    """The time as the process sees it; no scheduler is asked, and what signals did before is left as it was."""
    made = Times()
    monkeypatch.setattr(gentle, "time", made)
    monkeypatch.delattr(os, "sched_setscheduler", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGPROF, signal.SIGALRM)}
    yield made
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(timer, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def begun(told: list[str]) -> Gentle:
    made = Gentle(lambda: told.append("starved"))
    signal.setitimer(signal.ITIMER_PROF, 0)
    made._begin(signal.SIGPROF, None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return made


def test_it_rests_as_long_as_others_have_kept_it_waiting(times: Times) -> None:
    process = begun([])
    times.pass_s(0.05, worked=0.02)
    process._rest(signal.SIGPROF, None)
    times.pass_s(0.03, worked=0.02)
    process._rest(signal.SIGPROF, None)
    assert times.slept == pytest.approx([0.03 * RESTS, 0.01 * RESTS])


def test_it_does_not_rest_where_nobody_else_works_and_never_for_long(times: Times) -> None:
    process = begun([])
    # The two clocks are not read at one moment.
    times.pass_s(0.02, worked=0.0201)
    process._rest(signal.SIGPROF, None)
    times.pass_s(30.0, worked=0.02)
    process._rest(signal.SIGPROF, None)
    assert times.slept == [0.0, REST_S_MAX]


def test_it_tells_when_others_leave_it_no_time(times: Times) -> None:
    told: list[str] = []
    process = begun(told)
    times.pass_s(STARVED_S, worked=STARVED_S * STARVED_SHARE)
    process._look(signal.SIGALRM, None)
    assert told == []
    times.pass_s(STARVED_S, worked=STARVED_S * STARVED_SHARE * 0.9)
    process._look(signal.SIGALRM, None)
    assert told == ["starved"]


def test_its_own_rests_do_not_count_as_no_time(times: Times) -> None:
    told: list[str] = []
    process = begun(told)
    for _ in range(20):
        times.pass_s(0.15, worked=0.016)
        process._rest(signal.SIGPROF, None)
    process._look(signal.SIGALRM, None)
    assert len(times.slept) == 20 and told == []


def test_short_work_is_ordinary_and_long_work_becomes_gentle(times: Times) -> None:
    Gentle(lambda: None)
    left_s, every_s = signal.getitimer(signal.ITIMER_PROF)
    assert 0.9 < left_s / gentle.ORDINARY_S <= 1.1 and every_s == pytest.approx(gentle.WORK_S, abs=0.005)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    signal.raise_signal(signal.SIGPROF)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(STARVED_S, abs=1.0)
    times.pass_s(0.05, worked=0.02)
    signal.raise_signal(signal.SIGPROF)
    assert times.slept == pytest.approx([0.03 * RESTS])
