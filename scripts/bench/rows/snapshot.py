"""What a snapshot that is being written costs those who read from the same node at half of its full load.

GETs come at a fixed rate, whatever the node does, and a latency counts from when the GET was due. Windows without and with
a snapshot take turns. A few SETs go on meanwhile: they wait for the disk, so they show what the snapshot's flush costs; they
are shown and not judged. Only the node that is asked builds: elsewhere each node has a machine of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from cacheflow.launcher import Child
from scripts.bench import unattended_node
from scripts.bench.fill import fill
from scripts.bench.harness import Cluster, Verdict, children, cluster, process_cpu_s, spread
from scripts.bench.peers.loading import LoadGenerator, Measured

MUST = "GET p99 at half load while a snapshot of 10^6 items is written: <= 2 x without (aim <= 1.2 x)"
LIMIT_S = 600
RATIO_MAX = 2.0
CONNECTIONS = 64
# Under way on one connection before the next ones wait: more than come to it while a node stands still for a second.
BACKLOG = 1024
SETS_PER_S = 100.0
WINDOW_S = 1.0
WITHOUT_WINDOWS = 5
BUILT_WITHIN_S = 120.0


@dataclass(frozen=True)
class _Window:
    """GETs and SETs of the same second. cores: what the node used of them, without its helper process."""

    gets: Measured
    sets: Measured
    cores: float


@dataclass(frozen=True)
class _Turn:
    without: list[_Window]
    during: list[_Window]

    def ratio(self, what: str) -> float:
        """Of the p99 of its middle window: a shared machine has bad seconds of its own."""
        return _p99_us(self.during, what) / _p99_us(self.without, what)


def run(items: int = 1_000_000, repeats: int = 5) -> Verdict:
    """Three nodes, of which a follower is asked. The median of the turns is judged."""
    command = [sys.executable, str(unattended_node.__file__), "serve"]
    flags = ("--max-items", str(items), "--resp-port", "0")
    with cluster(*flags, command=command) as nodes, contextlib.closing(LoadGenerator()) as generator:
        asyncio.run(fill(nodes.urls[0], items))
        node = nodes.others(nodes.led_by())[0]
        load = _Load(generator, node.wire_ports["--resp-port"], nodes.pid(node), items)
        # Later ones are built on it, and not on all of the journal.
        _begin_snapshot(nodes, node)
        _wait_until(lambda: not _is_building(nodes, node))
        load.find_half()
        turns = [_turn(load, nodes, node) for _ in range(repeats)]
    ratio = sorted(turn.ratio("gets") for turn in turns)[repeats // 2]
    shown = f"GET p99 {spread([turn.ratio('gets') for turn in turns])} x without (min / median / max of the turns): "
    shown += "; ".join(f"{side} {_told(turns, side)}" for side in ("without", "during"))
    shown += f"; {load.rate:.0f} GETs/s; SET p99 {spread([turn.ratio('sets') for turn in turns])} x"
    return Verdict(shown, ratio <= RATIO_MAX, {"rate": load.rate, "turns": [asdict(turn) for turn in turns]})


class _Load:
    """Both kinds of requests at one node, for one window at a time."""

    def __init__(self, generator: LoadGenerator, port: int, pid: int, items: int) -> None:
        self._generator = generator
        self._port = port
        self._pid = pid
        self._items = items
        self.rate = 0.0

    def find_half(self) -> None:
        """Half of what the node answers at most."""
        full = self._generator.run("resp", "get", [self._port], connections=CONNECTIONS, seconds=3.0, keys=self._items)
        self.rate = full.per_s / 2

    def window(self) -> _Window:
        """One more."""
        before_s, began = process_cpu_s(self._pid), time.monotonic()
        with ThreadPoolExecutor(2) as threads:
            gets = threads.submit(self._run, "get", CONNECTIONS, self.rate)
            sets = threads.submit(self._run, "set", 1, SETS_PER_S)
            found = gets.result(), sets.result()
        return _Window(*found, (process_cpu_s(self._pid) - before_s) / (time.monotonic() - began))

    def _run(self, operation: str, connections: int, rate: float) -> Measured:
        return self._generator.run(
            "resp",
            operation,
            [self._port],
            connections=connections,
            pipeline=BACKLOG,
            seconds=WINDOW_S,
            keys=self._items,
            rate=rate,
        )


def _turn(load: _Load, nodes: Cluster, node: Child) -> _Turn:
    without = [load.window() for _ in range(WITHOUT_WINDOWS)]
    during = []
    _begin_snapshot(nodes, node)
    while _is_building(nodes, node):
        during.append(load.window())
    return _Turn(without, during)


def _begin_snapshot(nodes: Cluster, node: Child) -> None:
    os.kill(nodes.pid(node), signal.SIGUSR1)
    _wait_until(lambda: _is_building(nodes, node))


def _is_building(nodes: Cluster, node: Child) -> bool:
    """Whether the node has a helper process."""
    return bool(children(nodes.pid(node)))


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BUILT_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the snapshot neither began nor ended within {BUILT_WITHIN_S:g} s")
        time.sleep(0.01)


def _p99_us(windows: Sequence[_Window], what: str) -> float:
    ordered: list[float] = sorted(getattr(window, what).p99_us for window in windows)
    return ordered[len(ordered) // 2]


def _told(turns: Sequence[_Turn], side: str) -> str:
    windows = [window for turn in turns for window in getattr(turn, side)]
    longest_us = max(window.gets.max_us for window in windows)
    cores = sum(window.cores for window in windows) / len(windows)
    return (
        f"{_p99_us(windows, 'gets') / 1000:.1f} ms, longest {longest_us / 1000:.0f} ms, the node used {cores:.2f} cores"
    )
