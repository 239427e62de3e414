"""The same log gives the same state in another process, whatever its hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from machine.driver import Driver
from machine.mixed_log import mixed_log

PROGRAM = """
from cacheflow.machine.machine import CacheMachine
from machine.mixed_log import mixed_log

machine = CacheMachine()
for seed in range(3):
    for payload in mixed_log(seed, 80):
        machine.apply(machine.applied_index + 1, payload)
print(machine.contents.revision, machine.digest.hex(), machine.contents_digest().hex())
"""


def test_the_hash_seed_of_a_process_changes_nothing() -> None:
    tests = Path(__file__).parent.parent
    path = os.pathsep.join([str(tests.parent), str(tests)])
    answers = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        answers.add(run.stdout)
    driver = Driver()
    for number in range(3):
        for payload in mixed_log(number, 80):
            driver.apply(payload)
    machine = driver.machine
    answers.add(f"{machine.contents.revision} {machine.digest.hex()} {machine.contents_digest().hex()}\n")
    assert len(answers) == 1


def test_replicas_that_apply_the_same_entries_in_other_slices_are_equal() -> None:
    log = mixed_log(4, 80)
    first, second = Driver(), Driver()
    for payload in log:
        first.apply(payload)
        first.machine.next_due_ms()
        first.machine.keys(limit=3)
    for payload in log:
        second.apply(payload)
    assert first.machine.contents_digest() == second.machine.contents_digest()
