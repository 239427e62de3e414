#!/usr/bin/env python3
"""What a request costs in this version and in another one, whose files are in the folder TREE: CPU time, by turns in one run.

    git worktree add /tmp/before COMMIT; scripts/bench/peers/versions.py /tmp/before [--runs 5] [--seconds 1]

In each run three new nodes of each version are started with default settings, and asked by RESP, one version at a time. The CPU
time of all three processes counts, divided by the answers: it depends less on what else the machine does than rates do. Nodes
are started anew because two of the same version differ for as long as they live: where their memory lies is chance. Each load
is asked of both by turns (the other version, this one twice, the other one), and the ratio is that of one run: from run to run
everything may cost more, or less. Prints a table in Markdown, and exits with code 1 when the median of the runs' ratios is over
1.05 for any load.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.bench.harness import Cluster, cluster, machine, median, node_command, process_cpu_s, spread, told
from scripts.bench.loadgen import LoadGenerator

MOST_TIMES: Final = 1.05


@dataclass(frozen=True)
class Load:
    """What a cluster is asked. ports: which of its nodes' ports, the leader's first."""

    name: str
    operation: str
    connections: int
    pipeline: int
    ports: slice


LOADS: Final = (
    Load("GET, 64 connections, one follower", "get", 64, 1, slice(1, 2)),
    Load("GET pipelined by 16, one follower", "get", 64, 16, slice(1, 2)),
    Load("SET, 64 connections, all nodes", "set", 64, 1, slice(0, None)),
    Load("SET, one connection, the leader", "set", 1, 1, slice(0, 1)),
    Load("SET pipelined by 16, all nodes", "set", 64, 16, slice(0, None)),
    Load("linearizable GET, 64 connections, all nodes", "lget", 64, 1, slice(0, None)),
)


class Version:
    """A running cluster of one version of the project."""

    def __init__(self, nodes: Cluster, generator: LoadGenerator) -> None:
        leader = nodes.led_by()
        children = [leader, *nodes.others(leader)]
        self._pids = [nodes.pid(child) for child in children]
        self._ports = [child.wire_ports["--resp-port"] for child in children]
        self._generator = generator
        generator.fill("resp", self._ports[0])

    def cpu_us(self, load: Load, seconds: float) -> float:
        """Microseconds of CPU time of all nodes for each answer."""
        before = sum(map(process_cpu_s, self._pids))
        ran = self._generator.run(
            "resp",
            load.operation,
            self._ports[load.ports],
            connections=load.connections,
            pipeline=load.pipeline,
            seconds=seconds,
        )
        return (sum(map(process_cpu_s, self._pids)) - before) * 1e6 / ran.replies


def _run(trees: tuple[Path, Path], seconds: float) -> list[tuple[float, float]]:
    """For each load, what a request costs the versions in both folders ``trees``, in microseconds: of nodes started now."""
    with contextlib.ExitStack() as stack:
        generator = stack.enter_context(contextlib.closing(LoadGenerator()))
        other, this = [
            Version(stack.enter_context(cluster("--resp-port", "0", command=node_command("of", str(tree)))), generator)
            for tree in trees
        ]
        taken = [[each.cpu_us(load, seconds / 2) for each in (other, this, this, other)] for load in LOADS]
    return [((first + last) / 2, (second + third) / 2) for first, second, third, last in taken]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the folder of the other version")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load and version in each run")
    given = parser.parse_args(arguments)
    trees = (given.tree.resolve(), Path(__file__).resolve().parents[3])
    print(f"{told(machine())}; {given.runs} runs of {given.seconds:g} s a load\n")
    runs = [_run(trees, given.seconds) for _ in range(given.runs)]
    print("| load | other version, us of CPU a request | this one | ratio, run by run |\n|---|---|---|---|")
    worst = 0.0
    for load, costs in zip(LOADS, zip(*runs, strict=True), strict=True):
        before, after = zip(*costs, strict=True)
        ratios = [mine / others for others, mine in costs]
        worst = max(worst, median(ratios))
        print(f"| {load.name} | {spread(before)} | {spread(after)} | {spread(ratios)} |", flush=True)
    print(f"\n{'passed' if worst <= MOST_TIMES else 'missed'}: at most {worst:.3f} times, must: {MOST_TIMES:g}")
    return int(worst > MOST_TIMES)


if __name__ == "__main__":
    sys.exit(main())
