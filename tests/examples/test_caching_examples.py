"""The programs of docs/usecases/counters.md, temporary_data.md and content_caching.md, in short: what they promise holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "scripts/examples"


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("counters.py --threads 4 --counts 25", "100 different numbers, 0 errors"),
        ("temporary_data.py --codes 3 --ttl 1.5", "0 gone early, 0 there late"),
        ("content_caching.py --readers 2 --rounds 3", "seen by 6 of 6 readers"),
    ],
)
def test_an_example_keeps_its_promise(words: str, seen: str) -> None:
    name, *options = words.split()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the leader, is killed" in done.stdout and seen in done.stdout
