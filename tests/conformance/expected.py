"""What a suite is expected to fail, and why: a list for each suite, one test a line, with its reason.

A failure that is not listed is a new one; a listed test that passes is told, so that its line goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "expected"


@dataclass(frozen=True)
class Comparison:
    """The results of one run beside the list: failures that are not in it, and tests in it that pass."""

    new: dict[str, str]
    passing: list[str]


def read(suite: str) -> dict[str, str]:
    """Return the listed tests of a suite, with their reasons. Raises ValueError for a line without a reason."""
    listed: dict[str, str] = {}
    file = FOLDER / f"{suite}.txt"
    for line in file.read_text().splitlines() if file.exists() else ():
        if not line.strip() or line.startswith("#"):
            continue
        test, sign, reason = line.partition("  # ")
        if not sign or not reason.strip():
            raise ValueError(f"{file.name}: {line!r} has no reason")
        listed[test] = reason.strip()
    return listed


def write(suite: str, failures: Mapping[str, str]) -> None:
    """Make the list of a suite from a run's failures. A test that was listed keeps its reason."""
    before = read(suite)
    lines = [f"{test}  # {before.get(test, reason)}" for test, reason in sorted(failures.items())]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{suite}.txt").write_text("\n".join([f"# What {suite} fails against CacheFlow, and why.", *lines, ""]))


def compare(listed: Mapping[str, str], failures: Mapping[str, str], passed: set[str]) -> Comparison:
    """Return how a run's failures (with their messages) and passed tests differ from those listed."""
    new = {test: message for test, message in failures.items() if test not in listed}
    return Comparison(new, sorted(passed & listed.keys()))
