"""Plain PySyncObj loses what it has acknowledged, and our checks of a history find it: a checker must be able to fail."""

from __future__ import annotations

import pytest
from simulation.unguarded import Outcome, run

# Of the seeds 1 to 24 the checks complain about seven, and in four of these values are gone.
SEEDS = range(16, 40)


@pytest.fixture(scope="module")
def caught() -> Outcome:
    """Return the first run that loses something."""
    for seed in SEEDS:
        outcome = run(seed)
        if outcome.lost:
            return outcome
    pytest.fail(f"plain PySyncObj loses nothing in the runs {SEEDS}: has a new version been mended?")


def test_the_checks_of_a_history_find_that_acknowledged_writes_are_lost(caught: Outcome) -> None:
    assert caught.violation is not None
    assert (
        "is wrong" in caught.violation or "acknowledged increments" in caught.violation or "twice" in caught.violation
    )
    assert caught.acknowledged > 200


@pytest.mark.parametrize("seed", range(1, 4))
def test_without_faults_the_same_checks_have_nothing_to_say(seed: int) -> None:
    outcome = run(seed, seconds=5.0, faulty=False)
    assert (outcome.violation, outcome.lost, outcome.converged) == (None, [], True)
    assert outcome.acknowledged > 200
