"""``python -m tests.simulation.mutations [NAME...]``: break the product on purpose; what notices it, and how soon?"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from simulation.mutations_list import MUTATIONS, SEEDS_MAX, find  # noqa: E402 - the path comes first

LINE = "{:<28} {:<44} {:>5} {:>8}  {}"


def main() -> int:
    """Look for the mutations; return the exit code, 1 when one is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names or rules; all by default")
    parser.add_argument("--seeds-max", type=int, default=SEEDS_MAX)
    parser.add_argument("--full", action="store_true", help="the whole complaint")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not given.names or any(name in (mutation.name, mutation.rule) for name in given.names)
    ]
    missed = 0
    print(LINE.format("rule taken away", "mutation", "seed", "seconds", "found by"))
    for mutation in chosen:
        found = find(mutation, given.seeds_max)
        by = found.violation if given.full else found.check
        if found.seed is None:
            by = "NOT FOUND"
        elif found.without is not None:
            by = f"{by}, BUT THE SAME WITHOUT IT: {found.without}"
        missed += found.seed is None or found.without is not None
        print(LINE.format(mutation.rule, mutation.name, found.seed or "-", f"{found.real_s:.1f}", by), flush=True)
    print(f"{len(chosen)} mutations, {len(chosen) - missed} found")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
