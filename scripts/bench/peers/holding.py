"""What holding many items costs one node: memory, the time a snapshot takes, and the time a restart takes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from scripts.bench.harness import Cluster, cluster, node_command
from scripts.bench.load import fill, key_of
from scripts.bench.more.memory import resident_at_rest


@dataclass(frozen=True)
class Held:
    """One size. snapshot_s: of the helper process, from its start on. restart_s: after kill -9, until it answers a GET."""

    items: int
    bytes_per_item: float
    snapshot_s: float
    restart_s: float


def hold(items: int) -> Held:
    """One node with so many items of 16 bytes of key and 100 bytes of value, LRU, no TTL. The empty node is taken off."""
    with cluster("--max-items", str(items), nodes=1, command=node_command("on-demand")) as nodes:
        node = nodes.children[0]
        empty_bytes = resident_at_rest(nodes)
        asyncio.run(fill(node.url, items))
        # The journal is in memory, too, until a snapshot takes its place; a second one is what later ones cost.
        _snapshot_s(nodes)
        asyncio.run(fill(node.url, 1))
        snapshot_s = _snapshot_s(nodes)
        held_bytes = resident_at_rest(nodes) - empty_bytes
        return Held(items, held_bytes / items, snapshot_s, nodes.restart_s(node, f"/cache/{key_of(items - 1)}"))


def _snapshot_s(nodes: Cluster) -> float:
    """Have one written; how long its helper lived."""
    node = nodes.children[0]
    nodes.begin_snapshot(node)
    began = time.monotonic()
    nodes.wait_built(node)
    return time.monotonic() - began
