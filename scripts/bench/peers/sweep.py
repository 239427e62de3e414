#!/usr/bin/env python3
"""How rates and latencies change with connections, value size, items and nodes.

    scripts/bench/peers/sweep.py [--seconds 2] [--only connections|value_bytes|items|nodes ...] [--out FOLDER]

GET and SET on the RESP port of three nodes with --fsync always; redis-server and etcd beside them where they are installed.
Writes sweep.json and, where matplotlib is installed, sweep.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.bench.harness import machine
from scripts.bench.peers import servers
from scripts.bench.peers.loading import LoadGenerator
from scripts.bench.peers.plotting import plot_sweeps
from scripts.bench.peers.servers import Served

CONNECTIONS = (1, 4, 16, 64, 256, 1024)
VALUE_BYTES = (100, 1_000, 10_000, 100_000)
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
NODES = (1, 3, 5)

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
            self._fill(served, 1_000, at)
            return self._point(served, operation, at, value_bytes=at, keys=1_000)

        return self._beside_peers(point, VALUE_BYTES)

    def items(self) -> list[Point]:
        """Against items in the cache, 64 connections; ours alone."""
        points = []
        for at in ITEMS:
            with servers.cacheflow(items=2 * at) as ours:
                self._fill(ours["resp"], at, 100)
                points += [self._point(ours["resp"], operation, at, keys=at) for operation in ("get", "set")]
        return points

    def nodes(self) -> list[Point]:
        """Against the number of nodes, 64 connections; ours alone."""
        points = []
        for at in NODES:
            with servers.cacheflow(at, "--replicas", str(at - 1)) as ours:
                self._fill(ours["resp"], 10_000, 100)
                points += [self._point(ours["resp"], operation, at) for operation in ("get", "set")]
        return points

    def _beside_peers(self, point: Callable[[Served, str, int], Point], values: tuple[int, ...]) -> list[Point]:
        points = []
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(servers.cacheflow())["resp"]
            all_ = [ours, *(stack.enter_context(servers.peer(name)) for name in ("redis", "etcd"))]
            present = [served for served in all_ if served is not None]
            for served in present:
                self._fill(served, 10_000, 100)
            for at in values:
                points += [point(served, operation, at) for served in present for operation in ("get", "set")]
        return points

    def _point(self, served: Served, operation: str, at: int, **options: int) -> Point:
        ports = served.ports if operation == "set" else served.ports[-1:]
        measured = self._load.run(served.protocol, operation, ports, seconds=self._seconds, **options)
        name = f"{served.name} {operation.upper()}"
        print(f"{at:>8}  {name:<16} {measured.per_s:>10,.0f}/s  p50 {measured.p50_us:,.0f} µs", flush=True)
        return {"server": name, "at": at, "per_s": measured.per_s, "p50_us": measured.p50_us, "p99_us": measured.p99_us}

    def _fill(self, served: Served, keys: int, value_bytes: int) -> None:
        """Write until nearly every key is there: what is drawn at random covers them after some rounds."""
        deadline_rounds = 40
        for _ in range(deadline_rounds):
            self._load.run(
                served.protocol,
                "set",
                served.ports[:1],
                pipeline=16 if served.protocol == "resp" else 1,
                seconds=max(0.3, keys * (100 + value_bytes) / 2e8),
                keys=keys,
                value_bytes=value_bytes,
            )
            read = self._load.run(served.protocol, "get", served.ports[:1], seconds=0.1, keys=keys)
            if read.misses <= 0.02 * read.per_s * 0.1 or served.protocol == "etcd":
                return
        raise RuntimeError(f"{served.name}: {keys} keys could not be written")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ("connections", "value_bytes", "items", "nodes")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", nargs="*", choices=known, default=list(known))
    parser.add_argument("--out", type=Path, help="a folder for the figures and the plot")
    options = parser.parse_args()
    on = machine()
    print(f"on {on['cores']} cores, Python {on['python']}, {on['system']}, load {on['load']}", flush=True)
    found: dict[str, list[Point]] = {}
    with contextlib.closing(LoadGenerator()) as load:
        for name in options.only:
            print(name, flush=True)
            found[name] = getattr(Sweeps(load, options.seconds), name)()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "sweep.json").write_text(json.dumps({"machine": on, "sweeps": found}, indent=2) + "\n")
        plot_sweeps(found, options.out / "sweep.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
