"""``python -m tests.monitoring``: a real Prometheus with docs/alerts.yml sees every fault, and nothing when all is well.

Each fault is made on real nodes, and a minute lasts two seconds: the rules' times are divided by 30, and nothing else of them is
changed. With ``--healthy SECONDS`` there is no fault, and the rules are as they stand there: three nodes under load, each
restarted once in the middle, and none may fire. Exit code 1 when an alert does not fire with its fault, or fires before it or
without any.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cluster.upgrades import Load  # noqa: E402 - the path comes first
from conformance import fetching  # noqa: E402
from monitoring import scenes  # noqa: E402
from monitoring.faults import FAULTS, Fault  # noqa: E402
from monitoring.prometheus import Prometheus  # noqa: E402
from monitoring.rules import PREFIX, rules  # noqa: E402

from cacheflow.cli.launcher import terminable  # noqa: E402

# Minutes without a fault before it is made, and after the rules' own times until an alert must fire.
CALM_MINUTES = 3
LATE_MINUTES = 15


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring", description=__doc__)
    parser.add_argument(
        "faults", nargs="*", metavar="FAULT", help="a part of a fault's name, or of an alert's; default: all"
    )
    parser.add_argument(
        "--hurry", type=int, default=30, help="divides all times; less on a machine that is busy; default: 30"
    )
    parser.add_argument("--healthy", type=float, metavar="SECONDS", help="no faults: none may fire for so long")
    given = parser.parse_args()
    try:
        program = fetching.unpacked_program("prometheus", "prometheus")
    except fetching.Unavailable as reason:
        print(reason)
        return 1
    with tempfile.TemporaryDirectory(prefix="cacheflow-alerts-") as folder:
        if given.healthy is not None:
            return _healthy(program, Path(folder), given.healthy)
        chosen = [fault for fault in FAULTS if _is_meant(fault, given.faults)]
        wrong = [
            fault.name
            for number, fault in enumerate(chosen)
            if not _sees(program, Path(folder) / str(number), fault, given.hurry)
        ]
    alerts = set().union(*[fault.alerts for fault in chosen])
    print(
        f"{len(chosen)} faults, {len(alerts)} of {len(rules())} alerts; not as expected: {', '.join(wrong) or 'none'}"
    )
    return 1 if wrong or not chosen else 0


def _is_meant(fault: Fault, words: Sequence[str]) -> bool:
    return not words or any(
        word in fault.name or any(word in f"{PREFIX}{alert}" for alert in fault.alerts) for word in words
    )


def _sees(program: str, folder: Path, fault: Fault, hurry: int) -> bool:
    """Make one fault on nodes of its own; return whether Prometheus has seen its alerts. hurry: divides all times."""
    minute_s = 60 / hurry
    folder.mkdir()
    (folder / "prometheus").mkdir()
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{fault.name}, {time.monotonic() - began:.0f} s] {line}", flush=True)

    own = [rules()[f"{PREFIX}{alert}"] for alert in fault.alerts]
    minutes_max = max(rule.for_s + rule.window_s for rule in own) // 60 + LATE_MINUTES
    with contextlib.ExitStack() as stack:
        try:
            scene = stack.enter_context(fault.scene(folder))
        except scenes.Unavailable as reason:
            say(f"not made: {reason}")
            return True
        prometheus = stack.enter_context(Prometheus(program, folder / "prometheus", scene.all, hurry))
        time.sleep(CALM_MINUTES * minute_s)
        if fires := prometheus.alerts():
            say(f"before the fault there fires {_named(fires)}")
            return False
        expected, fires = set(), set()
        minute_ends = time.monotonic()
        with contextlib.closing(fault.make(scene)) as minutes:
            for _ in range(minutes_max):
                expected = {(f"{PREFIX}{alert}", node) for alert, node in next(minutes)}
                prometheus.find_nodes()
                minute_ends += minute_s
                time.sleep(max(0.0, minute_ends - time.monotonic()))
                fires |= prometheus.alerts()
                if fires >= expected:
                    break
        if missing := expected - fires:
            say(f"does not fire: {_named(missing)}; there fires {_named(fires)}")
            return False
        say(f"fires: {_named(expected)}{f'; and {_named(fires - expected)}' if fires - expected else ''}")
    return True


def _healthy(program: str, folder: Path, seconds: float) -> int:
    """Put load on three nodes, each of which is restarted once; return 1 if an alert fires meanwhile."""
    (folder / "prometheus").mkdir()
    began = time.monotonic()
    fired: set[tuple[str, str]] = set()
    pending: set[tuple[str, str]] = set()
    with contextlib.ExitStack() as stack:
        scene = stack.enter_context(scenes.trio(folder))
        load = stack.enter_context(Load(scene.nodes))
        prometheus = stack.enter_context(Prometheus(program, folder / "prometheus", scene.all, 1))
        left = list(scene.all)
        while (passed_s := time.monotonic() - began) < seconds:
            time.sleep(min(5.0, seconds - passed_s))
            if fires := prometheus.alerts() - fired:
                print(f"[{passed_s:.0f} s] fires: {_named(fires)}", flush=True)
            fired |= fires
            pending |= prometheus.alerts("pending")
            # One after the other: the next one when all is well again.
            if left and passed_s > seconds / 2 and scene.nodes.is_whole():
                node = left.pop()
                print(f"[{passed_s:.0f} s] {node.node_id} is restarted", flush=True)
                node.signal(signal.SIGTERM)
                node.wait()
                node.start()
        calls = load.calls
        failures = [failure for caller in load.callers for failure in caller.failures]
        print(f"{seconds:.0f} s, {calls} calls of {len(load.callers)} clients, {len(failures)} failed {failures[:3]}")
    print(f"fired: {_named(fired)}; pending meanwhile: {_named(pending)}")
    return 1 if fired or failures else 0


def _named(alerts: set[tuple[str, str]]) -> str:
    return ", ".join(f"{alert}{f' ({node})' if node else ''}" for alert, node in sorted(alerts)) or "none"


if __name__ == "__main__":
    # Nodes and mounts go however it ends.
    with terminable():
        sys.exit(main())
