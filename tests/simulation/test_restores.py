"""Restores of backups in clusters under faults."""

from __future__ import annotations

import pytest
from simulation.restores import run

# More of them: python -m tests.simulation --restores --seeds 1..1000
SEEDS = range(1, 16)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_restore_ends_with_the_contents_of_the_backup(seed: int, nodes: int) -> None:
    outcome = run(seed, nodes)
    tail = "\n".join(outcome.transcript[-60:])
    assert outcome.violation is None, (
        f"{tail}\npython -m tests.simulation --restores --seeds {seed} --nodes {nodes} --trace"
    )


def test_the_same_seed_gives_the_same_history() -> None:
    assert run(5).transcript == run(5).transcript
