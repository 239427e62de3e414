"""What .ci/run checks: how long each kind may take, which rows guard a promise there, and that a failure is one."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from scripts.bench import run

ROOT = Path(__file__).parent.parent
SECONDS_MAX = 25 * 60 * 3 / 2
# Each guards a promise of README or docs/guarantees.md and needs no quiet machine.
GUARDS = ("trace", "freshness", "digests", "cas", "lfu", "kills", "durability", "skew", "wire", "counted")

PROGRAMS = ("scripts/test", "scripts/soak", ".venv-test/bin/python")


def allowed_s() -> dict[str, int]:
    lines = [line.split() for line in (ROOT / ".ci/seconds").read_text().splitlines() if not line.startswith("#")]
    return {kind: int(seconds) for kind, seconds in lines}


def kinds() -> list[str]:
    return re.findall(r"^check (\w+) ", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def test_all_checks_together_take_at_most_25_minutes_on_a_quiet_machine() -> None:
    assert sum(allowed_s().values()) <= SECONDS_MAX


def test_every_kind_of_check_has_its_seconds() -> None:
    assert kinds() == list(allowed_s())
    assert {"tests", "conformance", "rows"} <= set(kinds())


def test_the_rows_that_guard_a_promise_run_in_short_forms() -> None:
    assert {name for name in run.ROWS if run.short_form(name) is not None} == set(GUARDS) == set(run.GUARDS)
    assert "run.py --short" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("name", GUARDS)
def test_a_short_form_sets_parameters_that_the_row_has(name: str) -> None:
    row = run.module_of(name)
    assert set(row.SHORT) <= set(inspect.signature(row.run).parameters)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose tests and rows only pretend: each is a script that succeeds."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for program in PROGRAMS:
        script(tmp_path / program, f"echo ran {program} $*")
    (tmp_path / "scripts/environment.sh").write_text("prepare_environment() { :; }\nprepare_browser() { :; }\n")
    (tmp_path / "requirements.txt").touch()
    return tmp_path


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def ci(checkout: Path) -> tuple[int, list[str]]:
    done = subprocess.run([checkout / ".ci/run"], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.splitlines()


def test_a_run_in_which_all_succeed_is_a_success_and_says_how_long_each_took(checkout: Path) -> None:
    code, lines = ci(checkout)
    assert code == 0
    assert [line.strip() for line in lines[:3]] == [
        "ran scripts/test",
        "ran scripts/soak conformance --subset",
        "ran .venv-test/bin/python scripts/bench/run.py --short",
    ]
    assert [line.partition(":")[0] for line in lines[3:]] == kinds()


@pytest.mark.parametrize("program", PROGRAMS)
def test_one_kind_that_fails_fails_the_run_and_the_others_run_too(checkout: Path, program: str) -> None:
    script(checkout / program, "echo failed; exit 1")
    code, lines = ci(checkout)
    assert code == 1
    assert len([line for line in lines if line.startswith(("ran", "failed"))]) == len(PROGRAMS)


def test_an_environment_that_cannot_be_made_fails_the_run(checkout: Path) -> None:
    (checkout / "scripts/environment.sh").write_text("prepare_environment() { return 2; }\n")
    assert ci(checkout)[0] == 1


def test_a_kind_that_takes_too_long_is_ended_and_fails_the_run(checkout: Path) -> None:
    (checkout / ".ci/seconds").write_text("environment 9\ntests 0.2\nconformance 9\nrows 9\n")
    script(checkout / "scripts/test", "exec sleep 30")
    code, lines = ci(checkout)
    assert code == 1
    assert any(line.startswith("tests: ") and line.endswith("(out of time)") for line in lines)


def test_what_a_kind_that_takes_too_long_has_started_ends_with_it(checkout: Path) -> None:
    (checkout / ".ci/seconds").write_text("environment 9\ntests 0.5\nconformance 9\nrows 9\n")
    # A shell that is interrupted waits for what it has started.
    script(checkout / "scripts/test", "sleep 600; echo ended by itself")
    began = time.monotonic()
    code, lines = ci(checkout)
    assert code == 1 and "ended by itself" not in lines
    assert time.monotonic() - began < 20, "whoever holds the run's output has ended"
