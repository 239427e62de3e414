"""``python -m tests.simulation --seeds 1..100 --nodes 3 --seconds 30``: print failing seeds, with transcripts."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from simulation.runner import run  # noqa: E402 - the path comes first


def main() -> int:
    """1 when a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="1..20", help="A..B or one")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--faults", help="comma-separated kinds; none for a healthy cluster; all")
    parser.add_argument("--every", type=float, help="mean seconds between faults")
    parser.add_argument("--trace", action="store_true", help="every message and call in the transcript")
    parser.add_argument("--tail", type=int, default=60, help="lines of the transcript of a failing seed")
    parser.add_argument("--failures", type=int, default=5, help="stop after so many")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    low, _, high = given.seeds.partition("..")
    kinds = None
    if given.faults == "none":
        kinds = {}
    elif given.faults and given.faults != "all":
        kinds = dict.fromkeys(given.faults.split(","), 1.0)
    failed = []
    totals: dict[str, float] = {}
    healed = []
    for seed in range(int(low), int(high or low) + 1):
        outcome = run(seed, given.nodes, given.seconds, kinds=kinds, trace=given.trace, every_s=given.every)
        for name in ("real_s", "acknowledged", "unknown", "refused", "elections"):
            totals[name] = totals.get(name, 0) + getattr(outcome, name)
        healed.append((outcome.healed_after_s, seed))
        if outcome.violation is not None:
            failed.append(seed)
            print(f"--- seed {seed}, {given.nodes} nodes: {outcome.violation}")
            if given.tail:
                print("\n".join(outcome.transcript[-given.tail :]), flush=True)
            if len(failed) >= given.failures:
                break
        elif given.trace:
            print("\n".join(outcome.transcript[-given.tail :]))
    print(
        f"{len(healed)} runs, {len(failed)} failed {failed}; {totals['acknowledged']} acknowledged, "
        f"{totals['unknown']} unknown, {totals['refused']} refused, {totals['elections']} terms with a leader; "
        f"healed after at most {max(healed)[0]:.1f} s (seed {max(healed)[1]}); "
        f"{given.seconds * len(healed) / totals['real_s']:.0f} simulated s a real s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
