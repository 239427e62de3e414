"""``python -m tests.cluster.soak --minutes 10 --nodes 3``: faults on real processes, everything promised checked.

Runs in rounds, each with a new cluster and the next seed, over network namespaces as root and through a proxy
otherwise. Prints a line every 10 s and a summary; a failing round's histories and logs are kept in a folder that it
names. Exit code 1 when a promise was broken, or when too little was done.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cluster import namespaces  # noqa: E402 - the path comes first
from cluster.campaign import Campaign, Plan, Report, too_little  # noqa: E402
from cluster.disk_shim import SOURCE as DISK_SHIM  # noqa: E402
from cluster.nemesis import WEIGHTS  # noqa: E402
from cluster.partitions import Network  # noqa: E402
from cluster.proxied import ProxyNetwork  # noqa: E402

from cacheflow.cli.launcher import terminable  # noqa: E402
from scripts.bench.clock_shim import SOURCE as CLOCK_SHIM  # noqa: E402
from scripts.bench.clock_shim import build_shim  # noqa: E402

ROUND_MINUTES = 5.0
# What a round takes beside its faults: a start, a calm, a last look.
AROUND_S = 15.0


def main() -> int:
    """Run the rounds; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--faults", help=f"comma-separated, of {', '.join(WEIGHTS)}")
    parser.add_argument("--network", choices=("auto", "namespaces", "proxy"), default="auto")
    parser.add_argument("--keep", type=Path, help="folder for the histories and logs of a failing round")
    given = parser.parse_args()
    kinds = given.faults.split(",") if given.faults else list(WEIGHTS)
    if unknown := set(kinds) - set(WEIGHTS):
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    why_not = "as told" if given.network == "proxy" else namespaces.missing()
    if why_not and given.network == "namespaces":
        parser.error(why_not)
    print(f"between the nodes: {f'a proxy ({why_not})' if why_not else 'network namespaces'}", flush=True)
    ends_at = time.monotonic() + 60 * given.minutes
    total, rounds, failed = Report(), 0, False
    with tempfile.TemporaryDirectory(prefix="cacheflow-soak-") as scratch:
        shims = _shims(Path(scratch))
        while not failed and (not rounds or time.monotonic() + 2 * AROUND_S < ends_at):
            seed = given.seed + rounds
            rounds += 1
            left_s = min(ends_at - time.monotonic(), 60 * ROUND_MINUTES) - AROUND_S
            plan = Plan(
                nodes=given.nodes,
                seconds=max(left_s, 5.0),
                seed=seed,
                kinds=kinds,
                embedded_votes=seed % 2 == 0,
                small_disk="disk_full" in kinds,
                shim=shims[0] if seed % 3 else None,
                disk_shim=shims[1],
            )
            report = _round(plan, not why_not, given.keep)
            failed = bool(report.violations) or bool(too_little(report))
            _add(total, report, rounds)
    print(f"{rounds} rounds of {given.nodes} nodes, seeds {given.seed} to {given.seed + rounds - 1}: {total.line()}")
    return 1 if failed else 0


def _round(plan: Plan, in_namespaces: bool, keep: Path | None) -> Report:
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[seed {plan.seed}, {time.monotonic() - began:.0f} s] {line}", flush=True)

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"cacheflow-soak-{plan.seed}-", dir=keep))
    handler = _log_to(folder / "embedded.log")
    network: Network = namespaces.NamespaceNetwork(folder) if in_namespaces else ProxyNetwork()
    try:
        with contextlib.closing(network):
            report = Campaign(plan, network, folder, say).run()
    except BaseException:
        print(f"histories and logs: {folder}", flush=True)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    for problem in (*report.violations, *too_little(report)):
        print(f"FAILED with {plan}: {problem}", flush=True)
    if report.violations or too_little(report):
        print(f"histories and logs: {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return report


def _shims(folder: Path) -> tuple[str, str] | tuple[None, None]:
    try:
        return build_shim(folder, CLOCK_SHIM), build_shim(folder, DISK_SHIM)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no clock skew and no hung disks: {error}", flush=True)
        return None, None


def _log_to(file: Path) -> logging.Handler:
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    return handler


def _add(total: Report, report: Report, rounds: int) -> None:
    total.faults = Counter(total.faults) + report.faults
    total.calls = Counter(total.calls) + report.calls
    total.calm_rate += (report.calm_rate - total.calm_rate) / rounds
    total.checked += report.checked
    total.leases += report.leases
    total.earliest_s = max(total.earliest_s, report.earliest_s)
    total.latest_s = max(total.latest_s, report.latest_s)
    total.violations += report.violations


if __name__ == "__main__":
    # Namespaces, mounts and nodes go however it ends.
    with terminable():
        sys.exit(main())
