"""Memory of a whole node that holds many items: as it was filled, and after a restart."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import fill

MUST = "a node at rest with 10^6 items of 16 B key + 100 B value (LRU, no TTL), whole process: <= 700 B an item"
LIMIT_S = 600
WHAT = "a whole process with 10^6 items of 16 + 100 bytes, filled / restarted"
BYTES_PER_ITEM = 700
# At rest: the resident memory stayed the same that long, and no snapshot is being built.
STILL_S = 3.0
STILL_WITHIN_S = 60.0


def run(items: int = 1_000_000) -> Verdict:
    """One node, filled over HTTP in batches. The empty node is measured too: it is part of the whole."""
    with cluster("--max-items", str(items), nodes=1) as nodes:
        empty = resident_at_rest(nodes)
        asyncio.run(fill(nodes.urls[0], items))
        found = {"filled": resident_at_rest(nodes)}
        node = nodes.children[0]
        nodes.kill(node)
        nodes.restart(node)
        nodes.wait_ready()
        found["restarted"] = resident_at_rest(nodes)
    per_item = {how: round(resident / items) for how, resident in found.items()}
    told = ", ".join(f"{how} {size} B an item" for how, size in per_item.items())
    told += f"; the empty node {empty / 2**20:.0f} MiB"
    return Verdict(told, max(per_item.values()) <= BYTES_PER_ITEM, per_item, {"empty_bytes": empty, "items": items})


def shown(figures: dict[str, Any]) -> str:
    """Both states."""
    return f"{figures['filled']} / {figures['restarted']} bytes an item"


def resident_at_rest(nodes: Cluster) -> int:
    """Resident bytes of the only node once they rest. Raises RuntimeError when they do not."""
    node = nodes.children[0]
    deadline = time.monotonic() + STILL_WITHIN_S
    before, since = 0, time.monotonic()
    while (now := time.monotonic()) < deadline:
        resident = resident_bytes(nodes.pid(node))
        if abs(resident - before) > resident // 200 or nodes.is_building(node):
            before, since = resident, now
        elif now - since >= STILL_S:
            return resident
        time.sleep(0.2)
    raise RuntimeError(f"the node's memory did not rest within {STILL_WITHIN_S:g} s")


def resident_bytes(pid: int) -> int:
    """Resident bytes of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
