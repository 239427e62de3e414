"""Seeds of recoveries: a majority is lost, or all have moved, in the middle of other faults."""

from __future__ import annotations

import pytest
from simulation.recoveries import WRITES_WITHIN_S, play

# More of them: python -m tests.simulation --recoveries --seeds 1..500
SEEDS = range(1, 21)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_recovered_cluster_goes_on_with_what_was_left_and_apart_from_the_old_one(seed: int, nodes: int) -> None:
    outcome = play(seed, nodes)
    tail = "\n".join(outcome.transcript[-60:])
    assert outcome.violation is None, (
        f"{tail}\npython -m tests.simulation --recoveries --seeds {seed} --nodes {nodes} --trace"
    )
    assert 0 < outcome.healed_after_s <= WRITES_WITHIN_S and outcome.acknowledged > 50


def test_both_ways_are_tried_and_a_seed_gives_one_history() -> None:
    ways = [name for seed in SEEDS for name in play(seed).faults]
    assert {"alone", "moved"} == set(ways)
    assert play(3).fingerprint == play(3).fingerprint
