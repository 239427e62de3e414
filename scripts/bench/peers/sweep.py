#!/usr/bin/env python3
"""How rates, latencies, memory and times change with connections, value size, items and nodes.

    scripts/bench/peers/sweep.py [--seconds 2] [--only connections|value_bytes|items|nodes|holding ...] [--out FOLDER]

GETs at a follower and SETs at all nodes, by RESP, of three nodes with --fsync always; redis-server and etcd (three nodes,
GETs that may be stale) beside them where they are installed. Every GET must find a value, and of the size that is told. The load
generator shares the machine. ``holding`` is one node: memory for an item, and the seconds that a snapshot and a restart take.
Prints tables in Markdown; writes sweep.json, sweep.md and, where matplotlib is installed, sweep.png. All of it takes about six
minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.bench.harness import machine
from scripts.bench.load import fill
from scripts.bench.loadgen import LoadGenerator
from scripts.bench.peers import servers
from scripts.bench.peers.holding import hold
from scripts.bench.peers.plotting import plot_sweeps
from scripts.bench.peers.servers import Served

CONNECTIONS = (1, 4, 16, 64, 256, 1024)
VALUE_BYTES = (100, 1_000, 10_000, 100_000)
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
NODES = (1, 3, 5)
# Below, what a node without items takes is more than what they take.
HELD = (10_000, 100_000, 300_000, 1_000_000)
SWEEPS = ("connections", "value_bytes", "items", "nodes", "holding")

Point = dict[str, Any]


class Sweeps:
    """One load generator and a number of seconds for all points."""

    def __init__(self, load: LoadGenerator, seconds: float) -> None:
        self._load = load
        self._seconds = seconds

    def connections(self) -> list[Point]:
        """Against connections, 100-byte values."""
        return self._beside_peers(
            lambda served, operation, at: self._point(served, operation, at, connections=at), CONNECTIONS
        )

    def value_bytes(self) -> list[Point]:
        """Against value size, 64 connections."""

        def point(served: Served, operation: str, at: int) -> Point:
            if operation == "get":
                self._fill(served, keys=1_000, value_bytes=at)
            return self._point(served, operation, at, value_bytes=at, keys=1_000)

        return self._beside_peers(point, VALUE_BYTES)

    def items(self) -> list[Point]:
        """Against items in the cache, 64 connections; ours alone."""
        points = []
        for at in ITEMS:
            with servers.cacheflow(items=at) as ours:
                asyncio.run(fill(f"http://127.0.0.1:{ours['http'].ports[-1]}", at))
                points += [self._point(ours["resp"], operation, at, keys=at) for operation in ("get", "set")]
        return points

    def nodes(self) -> list[Point]:
        """Against the number of nodes, 64 connections; ours alone."""
        points = []
        for at in NODES:
            with servers.cacheflow(at, "--replicas", str(at - 1)) as ours:
                self._fill(ours["resp"])
                points += [self._point(ours["resp"], operation, at) for operation in ("get", "set")]
        return points

    def holding(self) -> list[Point]:
        """Against items in one node at rest."""
        points = []
        for at in HELD:
            held = hold(at)
            print(
                f"{at:>8}  {held.bytes_per_item:,.0f} B an item, snapshot {held.snapshot_s:.1f} s, "
                f"restart {held.restart_s:.1f} s",
                flush=True,
            )
            points.append({"at": at, **asdict(held)})
        return points

    def _beside_peers(self, point: Callable[[Served, str, int], Point], values: Sequence[int]) -> list[Point]:
        points = []
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(servers.cacheflow())["resp"]
            all_ = [ours, *(stack.enter_context(servers.peer(name)) for name in ("redis", "etcd"))]
            present = [served for served in all_ if served is not None]
            for served in present:
                self._fill(served)
            for at in values:
                points += [point(served, operation, at) for served in present for operation in ("get", "set")]
        return points

    def _point(self, served: Served, operation: str, at: int, **options: int) -> Point:
        ports = served.ports if operation == "set" else served.ports[-1:]
        measured = self._load.run(served.protocol, operation, ports, seconds=self._seconds, **options)
        name = f"{served.name} {operation.upper()}"
        if measured.misses:
            raise RuntimeError(f"{name} at {at}: {measured.misses} of {measured.replies} reads found nothing")
        print(f"{at:>8}  {name:<16} {measured.per_s:>10,.0f}/s  p50 {measured.p50_us:,.0f} µs", flush=True)
        return {"server": name, "at": at, "per_s": measured.per_s, "p50_us": measured.p50_us, "p99_us": measured.p99_us}

    def _fill(self, served: Served, **options: int) -> None:
        """Through the node that is read: what it has acknowledged it shows itself."""
        self._load.fill(served.protocol, served.ports[-1], **options)


def tables(found: Mapping[str, Sequence[Point]]) -> list[str]:
    """Lines of Markdown: a table a sweep."""
    lines: list[str] = []
    for name, points in found.items():
        if name == "holding":
            rows = {
                point["at"]: [
                    f"{point['bytes_per_item']:,.0f} B",
                    f"{point['snapshot_s']:.1f} s",
                    f"{point['restart_s']:.1f} s",
                ]
                for point in points
            }
            columns, label = ["memory an item", "a snapshot takes", "a restart takes"], "items"
        else:
            columns, label, rows = list(dict.fromkeys(point["server"] for point in points)), name, {}
            for point in points:
                told = f"{point['per_s']:,.0f}/s, p99 {point['p99_us'] / 1000:,.1f} ms"
                rows.setdefault(point["at"], []).append(told)
        lines += [f"| {' | '.join([label.replace('_', ' '), *columns])} |", "|" + "---|" * (len(columns) + 1)]
        lines += [f"| {at:,} | {' | '.join(cells)} |" for at, cells in rows.items()]
        lines.append("")
    return lines[:-1]


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each point")
    parser.add_argument("--only", nargs="*", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--out", type=Path, help="a folder for the tables, the figures and the plot")
    options = parser.parse_args()
    on = machine()
    told = f"on {on['cores']} cores, Python {on['python']}, {on['system']}, load {on['load']}"
    print(told, flush=True)
    found: dict[str, list[Point]] = {}
    with contextlib.closing(LoadGenerator()) as load:
        for name in options.only:
            print(name, flush=True)
            found[name] = getattr(Sweeps(load, options.seconds), name)()
            if options.out:
                _write(options.out, on, told, found)
    print("\n".join(tables(found)))
    return 0


def _write(folder: Path, on: dict[str, Any], told: str, found: Mapping[str, Sequence[Point]]) -> None:
    """After each sweep, so that the ones before are there when one fails."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"machine": on, "sweeps": found}, indent=2) + "\n")
    (folder / "sweep.md").write_text("\n".join([f"Measured {told}.", "", *tables(found)]) + "\n")
    plot_sweeps(found, folder / "sweep.png")


if __name__ == "__main__":
    sys.exit(main())
