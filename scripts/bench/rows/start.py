"""How long a node with many items takes from its start until it is ready and answers a GET, after kill -9.

What is on its disk decides. ``journal``: everything is still in the journal, as where no snapshot could be built.
``snapshot``: everything is in a snapshot. ``tail``: in a snapshot, and behind it a journal of single SETs, as long as it
gets before the next snapshot is built.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from cacheflow.cli.launcher import Child, ask
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.snapshots import files
from cacheflow.raft.snapshots.schedule import JOURNAL_BYTES_MIN, JOURNAL_PER_SNAPSHOT
from scripts.bench import unattended_node
from scripts.bench.fill import fill, key_of
from scripts.bench.harness import Cluster, Verdict, cluster, process_cpu_s, spread
from scripts.bench.peers.loading import LoadGenerator

MUST = "start with 10^6 items on disk until ready, after kill -9: <= 10 s (aim <= 4 s)"
LIMIT_S = 900
WHAT = (
    "start with 10^6 items until ready, after `kill -9`: from a snapshot / the journal alone / the longest journal behind a "
    "snapshot"
)
READY_WITHIN_S = 10.0
POLL_S = 0.01
# The tail is written in pieces of this length, until it is long enough.
WRITING_S = 2.0


def run(items: int = 1_000_000, repeats: int = 3, nodes: int = 1) -> Verdict:
    """One node of ``nodes``; a follower when there are several."""
    command = [sys.executable, str(unattended_node.__file__), "serve"]
    flags = ("--max-items", str(items), "--resp-port", "0")
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
    """End the node, start it again, and wait for its first answers."""
    running.kill(node)
    began = time.monotonic()
    running.restart(node)
    _wait_for(node, "/readyz")
    _wait_for(node, f"/cache/{key_of(items - 1)}")
    ready_s = time.monotonic() - began
    return {"ready_s": round(ready_s, 3), "cpu_s": round(process_cpu_s(running.pid(node)), 2)}


def _wait_for(node: Child, path: str) -> None:
    """Until it answers 200. Raises RuntimeError when the node ends."""
    while ask(node.url, path)[0] != 200:
        if not node.alive:
            raise RuntimeError(f"{node.node_id} ended: {' | '.join(list(node.tail)[-3:])}")
        time.sleep(POLL_S)


def _build_snapshot(running: Cluster, node: Child) -> int:
    """Put everything into a snapshot, as the helper process would; its size."""
    _, status = ask(node.url, "/cluster/status")
    running.kill(node)
    meta = files.build(Disk(), Path(node.data_dir), status["applied_index"])
    running.restart(node)
    _wait_for(node, "/readyz")
    return meta.bytes


def _write_tail(running: Cluster, node: Child, load: LoadGenerator, items: int, size: int) -> None:
    """SETs of the items that are there until the node's journal has grown by ``size`` bytes."""
    ports = [child.wire_ports["--resp-port"] for child in running.children]
    before = _journal_bytes(node)
    while _journal_bytes(node) < before + size:
        load.run("resp", "set", ports, seconds=WRITING_S, keys=items)


def _journal_bytes(node: Child) -> int:
    return sum(path.stat().st_size for path in node.data_dir.glob("journal-*.cfj"))
