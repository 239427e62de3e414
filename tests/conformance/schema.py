"""schemathesis against the HTTP API: every operation of /openapi.json, with what it allows and what it does not."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from conformance.fetching import environment

VERSION = "4.32.5"
CONFIG = Path(__file__).with_name("schemathesis.toml")
# Removing members would end the cluster that is tested. Its own tests are tests/cluster/test_removal.py.
LEFT_OUT = "/nodes/{id}"


def check(url: str, seconds: int) -> tuple[bool, str]:
    """Run schemathesis for so long; return (True if it found nothing, what to tell). Raises Unavailable."""
    python = environment("schemathesis", [f"schemathesis=={VERSION}"])
    command = [str(python.with_name("schemathesis")), "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
    command += ["--max-time", str(seconds), "--phases", "examples,coverage,fuzzing", "--max-examples", "100000"]
    command += ["--exclude-path", LEFT_OUT, "--continue-on-failure", "--no-color", "--seed", "1"]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=seconds + 300, check=False)
    tested = re.search(r"^ +(\d+) generated.*$", done.stdout, re.MULTILINE)
    told = tested[0].strip() if tested else done.stdout[-300:] + done.stderr[-300:]
    if done.returncode == 0:
        return True, told
    return False, f"{told}\n{done.stdout[done.stdout.find('= FAILURES') :]}"
