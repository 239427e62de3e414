"""A gentle process: ordinary for short work, then it yields, and tells when it gets no time at all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheflow.raft.snapshots import gentle
from cacheflow.raft.snapshots.gentle import GENTLE_S_MAX, REST_S_MAX, RESTS, STARVED_S, STARVED_SHARE, Gentle


class Times:
    """The clocks of a process, its sleep, and what its system tells of it."""

    def __init__(self, schedstat: Path) -> None:
        self.now_s = 1000.0
        self.worked_s = 5.0
        self.waited_s = 3.0
        self.slept: list[float] = []
        self._schedstat = schedstat
        self.pass_s()

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.worked_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)

    def pass_s(self, *, worked: float = 0.0, waited: float = 0.0, disk: float = 0.0) -> None:
        self.now_s += worked + waited + disk
        self.worked_s += worked
        self.waited_s += waited
        self._schedstat.write_text(f"{self.worked_s * 1e9:.0f} {self.waited_s * 1e9:.0f} 17\n")


@pytest.fixture(params=["Linux", "another system"])
def times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Times]:
    """The time as the process sees it; no scheduler is asked, and what signals did before is left as it was."""
    made = Times(tmp_path / "schedstat")
    monkeypatch.setattr(gentle, "time", made)
    monkeypatch.setattr(gentle, "SCHEDSTAT", tmp_path / ("schedstat" if request.param == "Linux" else "none"))
    monkeypatch.delattr(os, "sched_setscheduler", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGPROF, signal.SIGALRM)}
    yield made
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        assert signal.getitimer(timer) == (0.0, 0.0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def process(times: Times, told: list[str]) -> Iterator[Gentle]:
    """One that is gentle already, and has no timers but the tests' calls."""
    with Gentle(lambda: told.append("given up")) as made:
        made._begin(signal.SIGPROF, None)
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        yield made


def test_it_rests_longer_than_others_have_kept_it_waiting(times: Times, process: Gentle) -> None:
    for waited in (0.03, 0.01):
        times.pass_s(worked=0.02, waited=waited)
        process._rest(signal.SIGPROF, None)
    assert times.slept == pytest.approx([0.03 * RESTS, 0.01 * RESTS])


def test_it_does_not_rest_where_nobody_else_works_and_never_for_long(times: Times, process: Gentle) -> None:
    # The clocks are not read at one moment.
    for worked, waited in ((0.02, 0.0), (0.0201, -0.0001), (0.02, 30.0)):
        times.pass_s(worked=worked, waited=waited)
        process._rest(signal.SIGPROF, None)
    assert times.slept == pytest.approx([0.0, 0.0, REST_S_MAX], abs=1e-6)


def test_it_gives_up_when_others_leave_it_no_time(times: Times, process: Gentle, told: list[str]) -> None:
    for share, given_up in ((STARVED_SHARE * 1.1, []), (STARVED_SHARE * 0.9, ["given up"])):
        times.pass_s(worked=STARVED_S * share, waited=STARVED_S * (1 - share))
        process._look(signal.SIGALRM, None)
        assert told == given_up


def test_its_own_rests_do_not_count_as_no_time(times: Times, process: Gentle, told: list[str]) -> None:
    for _ in range(20):
        times.pass_s(worked=0.016, waited=0.134)
        process._rest(signal.SIGPROF, None)
    process._look(signal.SIGALRM, None)
    assert len(times.slept) == 20 and told == []


@pytest.mark.parametrize("times", ["Linux"], indirect=True)
def test_waits_for_the_disk_are_no_reason_to_rest_or_to_give_up(times: Times, process: Gentle, told: list[str]) -> None:
    times.pass_s(worked=0.02, disk=STARVED_S)
    process._rest(signal.SIGPROF, None)
    process._look(signal.SIGALRM, None)
    assert times.slept == [0.0] and told == []


def test_it_gives_up_when_the_work_takes_too_long(times: Times, process: Gentle, told: list[str]) -> None:
    for passed, given_up in ((GENTLE_S_MAX * 0.9, []), (GENTLE_S_MAX * 0.1, ["given up"])):
        times.pass_s(worked=passed)
        process._look(signal.SIGALRM, None)
        assert told == given_up


@pytest.mark.parametrize("times", ["Linux"], indirect=True)
def test_short_work_is_ordinary_and_long_work_becomes_gentle(times: Times) -> None:
    with Gentle(lambda: None):
        left_s, every_s = signal.getitimer(signal.ITIMER_PROF)
        assert 0.9 < left_s / gentle.ORDINARY_S <= 1.1 and every_s == pytest.approx(gentle.WORK_S, abs=0.005)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        signal.raise_signal(signal.SIGPROF)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(STARVED_S, abs=1.0)
        times.pass_s(worked=0.02, waited=0.03)
        signal.raise_signal(signal.SIGPROF)
        assert times.slept == pytest.approx([0.03 * RESTS])


@pytest.mark.skipif(not gentle.SCHEDSTAT.exists(), reason="this system does not tell how long a process has waited")
def test_the_system_tells_how_long_a_process_has_waited_for_a_processor() -> None:
    process = Gentle(lambda: None)
    before, began_s = process._waited_s(), time.monotonic()
    time.sleep(0.2)
    assert 0.0 <= process._waited_s() - before < time.monotonic() - began_s - 0.1
