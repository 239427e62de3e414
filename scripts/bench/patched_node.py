"""A node without one of its delays: ``patched_node.py DELAY serve flags`` becomes that node.

DELAY is a name of scripts/bench/more/delays.py, or "-" for a node as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cacheflow.cli.main import main as cacheflow
from scripts.bench.more.delays import DELAYS


def main() -> None:
    """Take the delay away, then serve."""
    delay, *arguments = sys.argv[1:]
    if delay != "-":
        DELAYS[delay].take_away()
    cacheflow(arguments)


if __name__ == "__main__":
    main()
