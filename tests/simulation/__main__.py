"""``python -m tests.simulation --seeds 1..100 --nodes 3 --seconds 30``: print failing seeds, with transcripts."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from simulation import recoveries, restores  # noqa: E402 - the path comes first
from simulation.runner import Outcome, run  # noqa: E402
from simulation.shrinking import Case, shrunk  # noqa: E402


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings with which every seed is run."""

    nodes: int
    seconds: float
    kinds: dict[str, float] | None
    every_s: float | None
    trace: bool
    restores: bool
    recoveries: bool

    def play(self, seed: int) -> Outcome:
        """Run one seed; its transcript travels between processes only when it is wanted."""
        if self.restores:
            return restores.run(seed, self.nodes, trace=self.trace)
        if self.recoveries:
            outcome = recoveries.play(seed, self.nodes, trace=self.trace)
        else:
            outcome = run(seed, self.nodes, self.seconds, kinds=self.kinds, trace=self.trace, every_s=self.every_s)
        if outcome.violation is None and not self.trace:
            outcome.transcript = []
        return outcome


def played(plan: Plan, seeds: range, workers: int) -> Iterator[Outcome]:
    """Yield the outcomes of all seeds, in order."""
    if workers == 1:
        yield from map(plan.play, seeds)
    else:
        with Pool(workers, initializer=logging.disable, initargs=(logging.CRITICAL,)) as pool:
            yield from pool.imap(plan.play, seeds)


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="1..20", help="A..B or one")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--faults", help="comma-separated kinds; none for a healthy cluster; by default some or all")
    parser.add_argument("--every", type=float, help="mean seconds between faults")
    parser.add_argument("--restores", action="store_true", help="restores of backups under faults (restores.py)")
    parser.add_argument(
        "--recoveries", action="store_true", help="a majority is lost, or all have moved: recoveries.py"
    )
    parser.add_argument("--trace", action="store_true", help="every message and call in the transcript")
    parser.add_argument("--tail", type=int, default=60, help="lines of the transcript of a failing seed")
    parser.add_argument(
        "--shrink", action="store_true", help="look for a smaller run that fails likewise, and trace it"
    )
    parser.add_argument("--failures", type=int, default=5, help="stop after so many")
    parser.add_argument("--workers", type=int, default=1, help="processes that run seeds")
    return parser.parse_args()


def main() -> int:
    """Run the seeds; return the exit code, 1 when a seed fails."""
    given = parse()
    logging.disable(logging.CRITICAL)
    low, _, high = given.seeds.partition("..")
    kinds = None
    if given.faults == "none":
        kinds = {}
    elif given.faults and given.faults != "all":
        kinds = dict.fromkeys(given.faults.split(","), 1.0)
    plan = Plan(given.nodes, given.seconds, kinds, given.every, given.trace, given.restores, given.recoveries)
    totals = Counter[str]()
    faults = Counter[str]()
    failed, healed = [], [(0.0, 0)]
    for outcome in played(plan, range(int(low), int(high or low) + 1), given.workers):
        for name in ("real_s", "simulated_s", "acknowledged", "unknown", "refused", "elections"):
            totals[name] += getattr(outcome, name)
        totals["seeds"] += 1
        faults.update(outcome.faults)
        healed.append((outcome.healed_after_s, outcome.seed))
        if outcome.violation is not None:
            failed.append(outcome.seed)
            tell(plan, outcome, given)
            if len(failed) >= given.failures:
                break
        elif given.trace:
            print("\n".join(outcome.transcript[-given.tail :]))
    print(
        f"{totals['seeds']} seeds, {given.nodes} nodes: {totals['simulated_s']:.0f} simulated s; "
        f"operations checked: {totals['acknowledged']} acknowledged, {totals['unknown']} unknown, "
        f"{totals['refused']} refused; {totals['elections']} terms with a leader; healed after at most "
        f"{max(healed)[0]:.1f} s (seed {max(healed)[1]}); {totals['simulated_s'] / totals['real_s']:.0f} simulated s a real s"
    )
    print("faults:", ", ".join(f"{count} {name}" for name, count in sorted(faults.items())) or "none")
    print(f"violations: {len(failed)}", failed or "")
    return 1 if failed else 0


def tell(plan: Plan, outcome: Outcome, given: argparse.Namespace) -> None:
    """Print a failing seed, or the smaller run that fails likewise."""
    print(f"--- seed {outcome.seed}, {plan.nodes} nodes: {outcome.violation}", flush=True)
    if given.shrink and not plan.recoveries:
        case = Case(outcome.seed, plan.nodes, plan.seconds, outcome.strikes, kinds=plan.kinds)
        smaller, transcript = shrunk(outcome, case)
        lines = transcript.splitlines()
        # The faults that are left stand first, what they led to last.
        head = 1 + len(smaller.strikes)
        lines = lines[:head] + lines[head:][-given.tail :] if given.tail else lines[:head]
        print("\n".join(lines), flush=True)
    elif given.tail:
        print("\n".join(outcome.transcript[-given.tail :]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
