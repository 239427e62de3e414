"""A failing run becomes a small one that fails in the same way."""

from __future__ import annotations

import pytest
from simulation.faults import Strike
from simulation.mutations_storage import restart_without_a_memory
from simulation.runner import Outcome, run
from simulation.shrinking import Case, Shrinking, check_of, shrunk

STRIKES = tuple(Strike(float(number), "kill", number) for number in range(20))


def test_only_what_is_needed_for_the_failure_stays() -> None:
    def play(case: Case) -> Outcome:
        seeds = {strike.seed for strike in case.strikes}
        fails = {3, 17} <= seeds and case.seconds >= 7 and (case.clients or 4) >= 2
        return Outcome(case.seed, violation="at 1.0: durability: gone" if fails else None)

    smaller = Shrinking("durability", play).shrink(Case(1, 3, 30.0, STRIKES))
    assert [strike.seed for strike in smaller.strikes] == [3, 17]
    assert smaller.seconds == 7.5
    assert smaller.clients == 2


def test_another_failure_is_not_the_same() -> None:
    def play(case: Case) -> Outcome:
        check = "durability" if len(case.strikes) > 5 else "progress"
        return Outcome(case.seed, violation=f"at 1.0: {check}: gone")

    assert len(Shrinking("durability", play).shrink(Case(1, 3, 30.0, STRIKES)).strikes) == 6


def test_a_run_plays_again_from_its_list_of_faults() -> None:
    outcome = run(3)
    again = Case(3, 3, 30.0, outcome.strikes).play()
    assert outcome.strikes
    assert again.transcript == outcome.transcript


def test_a_mutation_shrinks_to_one_fault_and_a_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    restart_without_a_memory(monkeypatch)
    kinds = {"kill": 1.0, "reset": 3.0}
    outcome = run(1, kinds=kinds, every_s=0.5)
    assert outcome.violation is not None
    assert len(outcome.strikes) > 20
    smaller, transcript = shrunk(outcome, Case(1, 3, 30.0, outcome.strikes, kinds=kinds))
    assert [strike.name for strike in smaller.strikes] == ["kill"]
    assert "is killed" in transcript
    assert check_of(transcript.splitlines()[-1]) == "durability"
