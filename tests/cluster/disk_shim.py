"""A disk that hangs, for one process: a library to preload, and the file that stands as long as nothing returns."""

from __future__ import annotations

from pathlib import Path

from cluster.processes import NodeProcess

SOURCE = Path(__file__).with_name("disk_shim.c")


def hold_of(node: NodeProcess) -> Path:
    """Return the path of the file that stands while the node's disk is to hang."""
    return node.log.with_name(f"{node.node_id}-hangs")


def let_it_hang(node: NodeProcess, shim: str) -> None:
    """Give a node that is not started yet a disk that hangs while ``hold_of(node)`` stands."""
    preloaded = [shim, *filter(None, [node.environment.get("LD_PRELOAD")])]
    node.environment = {**node.environment, "LD_PRELOAD": ":".join(preloaded), "DISK_SHIM_HOLD": str(hold_of(node))}
