"""What holding many items costs one node: memory, the time a snapshot takes, and the time a restart takes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from cacheflow.cli.launcher import ask
from scripts.bench import unattended_node
from scripts.bench.fill import fill, key_of
from scripts.bench.harness import Cluster, children, cluster
from scripts.bench.more.memory import resident_at_rest

WITHIN_S = 120.0
POLL_S = 0.01


@dataclass(frozen=True)
class Held:
    """One size. snapshot_s: of the helper process, from its start on. restart_s: after kill -9, until it answers a GET."""

    items: int
    bytes_per_item: float
    snapshot_s: float
    restart_s: float


def hold(items: int) -> Held:
    """One node with so many items of 16 bytes of key and 100 bytes of value, LRU, no TTL. The empty node is taken off."""
    command = [sys.executable, str(unattended_node.__file__), "serve"]
    with cluster("--max-items", str(items), nodes=1, command=command) as nodes:
        node = nodes.children[0]
        empty_bytes = resident_at_rest(nodes)
        asyncio.run(fill(node.url, items))
        # The journal is in memory, too, until a snapshot takes its place; a second one is what later ones cost.
        _snapshot_s(nodes)
        asyncio.run(fill(node.url, 1))
        snapshot_s = _snapshot_s(nodes)
        held_bytes = resident_at_rest(nodes) - empty_bytes
        nodes.kill(node)
        began = time.monotonic()
        nodes.restart(node)
        _wait_until(lambda: ask(node.url, "/readyz")[0] == 200)
        _wait_until(lambda: ask(node.url, f"/cache/{key_of(items - 1)}")[0] == 200)
        return Held(items, held_bytes / items, snapshot_s, time.monotonic() - began)


def _snapshot_s(nodes: Cluster) -> float:
    """Have one written; how long its helper lived."""
    pid = nodes.pid(nodes.children[0])
    os.kill(pid, signal.SIGUSR1)
    _wait_until(lambda: bool(children(pid)))
    began = time.monotonic()
    _wait_until(lambda: not children(pid))
    return time.monotonic() - began


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the node was not so far within {WITHIN_S:g} s")
        time.sleep(POLL_S)
