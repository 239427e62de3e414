"""How long a node with many items takes from its start until it is ready and answers a GET, after kill -9.

What is on its disk decides. ``journal``: everything is still in the journal, as where no snapshot could be built.
``snapshot``: everything is in a snapshot. ``tail``: in a snapshot, and behind it a journal of single SETs, as long as it
gets before the next snapshot is built.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from cacheflow.cli.launcher import Child, ask
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.snapshots import helper
from cacheflow.raft.snapshots.building import JOURNAL_BYTES_MIN, JOURNAL_PER_SNAPSHOT
from scripts.bench.harness import Cluster, Verdict, cluster, node_command, process_cpu_s, spread
from scripts.bench.load import fill, key_of
from scripts.bench.loadgen import LoadGenerator

MUST = "start with 10^6 items on disk until ready, after kill -9: <= 10 s (aim <= 4 s)"
LIMIT_S = 900
WHAT = (
    "start with 10^6 items until ready, after `kill -9`: from a snapshot / the journal alone / the longest journal behind a "
    "snapshot"
)
READY_WITHIN_S = 10.0
# The tail is written in pieces of this length, until it is long enough.
WRITING_S = 2.0


def run(items: int = 1_000_000, repeats: int = 3, nodes: int = 1) -> Verdict:
    """One node of ``nodes``; a follower when there are several."""
    flags = ("--max-items", str(items), "--resp-port", "0")
    command = node_command("on-demand")
    with cluster(*flags, nodes=nodes, command=command) as running, contextlib.closing(LoadGenerator()) as load:
        asyncio.run(fill(running.urls[0], items))
        leader = running.led_by()
        node = running.others(leader)[0] if nodes > 1 else leader
        found = {"journal": _starts(running, node, items, repeats)}
        snapshot_bytes = _build_snapshot(running, node)
        found["snapshot"] = _starts(running, node, items, repeats)
        _write_tail(running, node, load, items, max(JOURNAL_BYTES_MIN, int(JOURNAL_PER_SNAPSHOT * snapshot_bytes)))
        found["tail"] = _starts(running, node, items, repeats)
    told = "; ".join(f"{state} {spread([start['ready_s'] for start in starts])} s" for state, starts in found.items())
    longest = {state: max(start["ready_s"] for start in starts) for state, starts in found.items()}
    passed = max(longest.values()) <= READY_WITHIN_S
    return Verdict(f"{told} (min / median / max)", passed, longest, {"items": items, "nodes": nodes, **found})


def shown(figures: dict[str, Any]) -> str:
    """The longest of some starts from each state."""
    return " / ".join(f"{figures[state]:.1f}" for state in ("snapshot", "journal", "tail")) + " s"


def _starts(running: Cluster, node: Child, items: int, repeats: int) -> list[dict[str, float]]:
    return [_start(running, node, items) for _ in range(repeats)]


def _start(running: Cluster, node: Child, items: int) -> dict[str, float]:
    ready_s = running.restart_s(node, f"/cache/{key_of(items - 1)}")
    return {"ready_s": round(ready_s, 3), "cpu_s": round(process_cpu_s(running.pid(node)), 2)}


def _build_snapshot(running: Cluster, node: Child) -> int:
    """Put everything into a snapshot, as the helper process would; its size."""
    _, status = ask(node.url, "/cluster/status")
    running.kill(node)
    meta = helper.build(Disk(), Path(node.data_dir), status["applied_index"])
    running.restart(node)
    running.wait_answer(node, "/readyz")
    return meta.bytes


def _write_tail(running: Cluster, node: Child, load: LoadGenerator, items: int, size: int) -> None:
    """SETs of the items that are there until the node's journal has grown by ``size`` bytes."""
    before = _journal_bytes(node)
    while _journal_bytes(node) < before + size:
        load.run("resp", "set", running.resp_ports, seconds=WRITING_S, keys=items)


def _journal_bytes(node: Child) -> int:
    return sum(path.stat().st_size for path in node.data_dir.glob("journal-*.cfj"))
