"""A cluster at rest: nothing is written, next to nothing computed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from cacheflow.cli.launcher import Child
from scripts.bench.harness import Cluster, Verdict, cluster, process_cpu_s
from scripts.bench.load import Connection, put

MUST = "an idle cluster writes nothing to disk and uses < 2 % of a core per node"
LIMIT_S = 400
WHAT = "a node of an idle cluster, in a minute"
# After the last write: the leader's commit index travels, the journal is flushed.
SETTLE_S = 3.0


def run(seconds: float = 60.0) -> Verdict:
    """Some keys without and some with a TTL far away are there."""
    with cluster() as nodes:
        asyncio.run(_fill(nodes))
        time.sleep(SETTLE_S)
        before = {
            child.node_id: (_written(nodes, child), _files(child), process_cpu_s(nodes.pid(child)))
            for child in nodes.children
        }
        time.sleep(seconds)
        after = {
            child.node_id: (_written(nodes, child), _files(child), process_cpu_s(nodes.pid(child)))
            for child in nodes.children
        }
    percent = {node: round((after[node][2] - before[node][2]) / seconds * 100, 2) for node in before}
    written = {node: after[node][0] - before[node][0] for node in before}
    changed = {node: sorted(name for name, _ in before[node][1] ^ after[node][1]) for node in before}
    passed = max(percent.values()) < 2.0 and not any(written.values()) and not any(changed.values())
    told = f"in {seconds:g} s: bytes written {written}, files changed {changed}, CPU % {percent}"
    figures = {"bytes_written": max(written.values()), "cpu_percent": max(percent.values())}
    details = {"bytes_written": written, "files_changed": changed, "cpu_percent": percent}
    return Verdict(told, passed, figures, details)


def shown(figures: dict[str, Any]) -> str:
    """The worst of the nodes."""
    written = figures["bytes_written"]
    return f"writes {f'{written:,} bytes' if written else 'nothing'}, {figures['cpu_percent']:.1f} % of a core"


async def _fill(nodes: Cluster) -> None:
    connection = await Connection.open(nodes.urls[0])
    for number in range(200):
        await connection.ask(put(f"idle:{number}", "x" * 100, 3600 if number % 2 else None))
    connection.close()


def _written(nodes: Cluster, child: Child) -> int:
    """Bytes that the node handed to the disk since its start."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{nodes.pid(child)}/io").read_text().splitlines())
    return int(fields["write_bytes"])


def _files(child: Child) -> set[tuple[str, tuple[int, int]]]:
    """Every data file with its length and time of the last change."""
    found = [(path, path.stat()) for path in child.data_dir.rglob("*") if path.is_file()]
    return {(path.name, (stat.st_size, stat.st_mtime_ns)) for path, stat in found}
