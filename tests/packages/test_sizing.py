"""The program that measures what an item and a write cost; here with few of both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts/packaging/sizing.py"


def test_it_prints_what_a_write_costs_on_disk_and_network() -> None:
    command = [sys.executable, str(PROGRAM), "--items", "500", "--writes", "200", "--shapes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 2:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    key, value, _, disk, network, disk_many, network_many = map(int, done.stdout.splitlines()[1].split())
    assert (key, value) == (10, 100)
    # A write holds its key and value once in the journal, and travels once to each follower; in company it costs less.
    assert 110 < disk_many < disk < 400
    assert 110 < network_many < network < 2000
