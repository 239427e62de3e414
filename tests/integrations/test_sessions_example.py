"""The program of docs/usecases/sessions.md, in short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "scripts/examples/sessions.py"


def test_sessions_survive_the_leader() -> None:
    command = [sys.executable, str(EXAMPLE), "--users", "3", "--visits", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ sessions are in the nodes$", done.stdout, re.MULTILINE)
    assert re.search(r"node-\d, the leader, is killed", done.stdout)
    assert "django: 30 visits, 0 wrong" in done.stdout
