"""Seeds of the whole: everything that can fail does, and every promise holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.corpus import Old, corpus
from simulation.runner import run

ROOT = Path(__file__).resolve().parents[2]
# More of them: python -m tests.simulation --seeds 1..1000
SEEDS = range(1, 31)
SECONDS = 30.0


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_under_faults(seed: int, nodes: int) -> None:
    outcome = run(seed, nodes, SECONDS)
    tail = "\n".join(outcome.transcript[-60:])
    assert outcome.violation is None, f"{tail}\npython -m tests.simulation --seeds {seed} --nodes {nodes} --trace"


@pytest.mark.parametrize("old", corpus(), ids=lambda old: f"{old.seed}-{old.nodes}")
def test_an_old_failure_stays_away(old: Old) -> None:
    outcome = run(old.seed, old.nodes, old.seconds, kinds=old.kinds, every_s=old.every_s)
    assert outcome.violation is None, old.what


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_cluster_without_faults_keeps_its_leader_and_knows_every_outcome(seed: int) -> None:
    outcome = run(seed, 3, SECONDS, kinds={})
    assert outcome.violation is None
    assert outcome.elections == 1
    assert outcome.unknown == outcome.refused == 0
    assert outcome.acknowledged > 400


def test_faults_do_strike_and_work_goes_on() -> None:
    outcomes = [run(seed, 3, SECONDS) for seed in range(1, 6)]
    assert sum(outcome.elections for outcome in outcomes) > 10
    assert sum(outcome.unknown for outcome in outcomes) >= 3
    assert sum(outcome.acknowledged for outcome in outcomes) > 1000
    assert len({name for outcome in outcomes for name in outcome.faults}) > 10


def test_the_same_seed_gives_the_same_history() -> None:
    assert run(5).transcript == run(5).transcript


def test_the_same_seed_gives_the_same_history_whatever_the_hash_seed() -> None:
    program = (
        "import logging, sys; logging.disable(50); from simulation.runner import run; "
        "o = run(7, 5, 20.0); print(o.fingerprint, o.acknowledged, len(o.transcript))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2", "77")
    }
    assert len(said) == 1
