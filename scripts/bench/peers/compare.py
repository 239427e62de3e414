#!/usr/bin/env python3
"""The project beside redis-server, memcached and etcd: what is installed of them, interleaved in one run.

    scripts/bench/peers/compare.py [--repeats 5] [--seconds 2] [--only NAME ...] [--out FOLDER]

Three nodes with --fsync always, the peers and the load generator share this machine, one of them at work at a time. Only
ratios within one run mean much: ours and theirs take turns, and the median of the turns counts. With --out it writes
comparison.json, comparison.md and, where matplotlib is installed, comparison.png. The medians of three turns or more are kept in
scripts/bench/figures.json. Exit code 1 when a ratio misses what it must be. The leader is the one before the first row; when
another one leads after the last, that is told.

Three nodes that replicate are compared with three nodes of etcd that replicate: these rows decide. What one node of etcd does,
which replicates to nobody, is told as information and decides nothing. loadgen.c takes less CPU than the servers;
redis-benchmark takes more, and so brings the two closer together: both are told.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.bench import figures
from scripts.bench.harness import machine, median, spread, told
from scripts.bench.loadgen import LoadGenerator, Measured, redis_benchmark
from scripts.bench.peers import servers
from scripts.bench.peers.plotting import plot_ratios
from scripts.bench.peers.servers import Served

# Which of a server's ports; the leader's is the first.
LEADER, FOLLOWER, ALL = (0, 1), (1, 2), (0, None)
# Of one load. With another number, or fewer turns, a figure is not kept in scripts/bench/figures.json.
SECONDS = 2.0
KEPT_REPEATS_MIN = 3
# Up to what ours has under way when 64 connections pipeline 16 requests each.
ETCD_CONNECTIONS = (16, 64, 256, 1024)


@dataclass(frozen=True)
class Load:
    """What one side is given. ports: which of the server's.  by: the load generator."""

    server: str
    operation: str
    connections: int = 64
    pipeline: int = 1
    ports: tuple[int, int | None] = ALL
    by: str = "loadgen"


@dataclass(frozen=True)
class Row:
    """One comparison: ours over the best of theirs, in replies a second or by median latency."""

    name: str
    ours: Load
    theirs: tuple[Load, ...]
    must: float
    aim: float
    latency: bool = False
    decides: bool = True

    def ratio(self, ours: Measured, theirs: Sequence[Measured]) -> float:
        """Of rates; of median latencies when that is what counts (then less is better)."""
        if self.latency:
            return ours.p50_us / min(each.p50_us for each in theirs)
        return ours.per_s / max(each.per_s for each in theirs)

    def holds(self, ratio: float) -> bool:
        """Whether ``ratio`` is as good as it must be."""
        return ratio <= self.must if self.latency else ratio >= self.must


def rows() -> list[Row]:
    """All comparisons."""
    memcached = (Load("memcached", "get"),)
    return [
        *_gets("follower", FOLLOWER),
        *_gets("leader", LEADER),
        Row(
            "GET pipelined by 16 / redis-server, by redis-benchmark",
            Load("resp", "get", pipeline=16, ports=FOLLOWER, by="redis-benchmark"),
            (Load("redis", "get", pipeline=16, by="redis-benchmark"),),
            0.4,
            0.6,
        ),
        Row(
            "GET pipelined by 16 / redis-server",
            Load("resp", "get", pipeline=16, ports=FOLLOWER),
            (Load("redis", "get", pipeline=16),),
            0.4,
            0.6,
        ),
        Row("GET, memcached protocol / memcached", Load("memcached-port", "get", ports=FOLLOWER), memcached, 0.85, 1.0),
        *_beside_etcd("etcd", decides=True),
        *_beside_etcd("etcd, one node", decides=False),
    ]


def _gets(who: str, ports: tuple[int, int | None]) -> list[Row]:
    by_redis_benchmark = Load("resp", "get", ports=ports, by="redis-benchmark")
    name = f"GET, {who} / redis-server"
    return [
        Row(
            f"{name}, by redis-benchmark", by_redis_benchmark, (Load("redis", "get", by="redis-benchmark"),), 0.85, 1.0
        ),
        Row(name, Load("resp", "get", ports=ports), (Load("redis", "get"),), 0.85, 1.0),
    ]


def _beside_etcd(etcd: str, *, decides: bool) -> list[Row]:
    def etcds(operation: str, *connections: int) -> tuple[Load, ...]:
        return tuple(Load(etcd, operation, count) for count in connections)

    found = [
        Row(f"SET / {etcd} put, 64 connections", Load("resp", "set"), etcds("set", 64), 3, 5),
        Row(
            f"SET pipelined by 16 / {etcd} put at its best",
            Load("resp", "set", pipeline=16),
            etcds("set", *ETCD_CONNECTIONS),
            8,
            15,
        ),
        Row(
            f"SET median latency, one connection / {etcd} put",
            Load("resp", "set", 1, ports=LEADER),
            (Load(etcd, "set", 1, ports=LEADER),),
            0.8,
            0.5,
            latency=True,
        ),
        Row(
            f"linearizable GET / {etcd} linearizable range, 64 connections",
            Load("resp", "lget"),
            etcds("lget", 64),
            3,
            6,
        ),
    ]
    return [replace(row, decides=decides) for row in found]


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose name has this text in it")
    parser.add_argument("--out", type=Path, help="a folder for the table, the figures and the plot")
    options = parser.parse_args()
    chosen = [row for row in rows() if not options.only or any(text in row.name for text in options.only)]
    on = machine()
    where = f"on {told(on)}, load {on['load']}"
    print(where, flush=True)
    tree = figures.tree_hash()
    results, moved = _measure(chosen, options.repeats, options.seconds)
    # Where the leader moved, what is called the leader's is not.
    if is_whole(options.repeats, options.seconds) and not moved and figures.tree_hash() == tree:
        keep(results, options.repeats, tree, told(on))
        print("kept; scripts/bench/tables.py makes the tables anew")
    lines = [*table(results), *(["", *moved] if moved else [])]
    for line in lines:
        print(line)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "comparison.json").write_text(
            json.dumps({"machine": on, "rows": results, "moved": moved}, indent=2) + "\n"
        )
        (options.out / "comparison.md").write_text("\n".join([f"Measured {where}.", "", *lines]) + "\n")
        plot_ratios(results, options.out / "comparison.png")
    return 1 if any(result["holds"] is False and result["decides"] for result in results) else 0


def is_whole(repeats: int, seconds: float) -> bool:
    """True for a run whose figures are worth keeping."""
    return repeats >= KEPT_REPEATS_MIN and seconds == SECONDS


def keep(results: Sequence[dict[str, Any]], repeats: int, tree: str, on: str) -> None:
    """Write what was compared with a peer that is here, and decides, into the file of figures."""
    for result in results:
        if result["holds"] is None or not result["decides"]:
            continue
        name, unit, best = ("p50_us", " µs", min) if result["latency"] else ("per_s", "/s", max)
        found = {
            "ours": round(result["ours"][name]),
            "theirs": round(best(each[name] for each in result["theirs"])),
            "unit": unit,
            "ratio": round(result["ratio"], 3),
            "repeats": repeats,
        }
        record = {
            "must": f"{'<=' if result['latency'] else '>='} {result['must']:g}",
            "measured": f"ratio {spread(result['ratios'])} (min / median / max)",
            "passed": result["holds"],
            "figures": found,
        }
        figures.keep("peers", result["name"], record, tree=tree, machine=on)


def _measure(rows: Sequence[Row], repeats: int, seconds: float) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and who was not led by the same node to their end."""
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(contextlib.closing(LoadGenerator()))
        ours = stack.enter_context(servers.cacheflow())
        served: dict[str, Served | None] = {"resp": ours["resp"], "memcached-port": ours["memcached"]}
        wanted = {each.server for row in rows for each in row.theirs}
        for name in servers.PEERS:
            if name in wanted:
                served[name] = stack.enter_context(servers.peer(name))
        ready: dict[str, Served] = {name: each for name, each in served.items() if each is not None}
        for each in ready.values():
            load.fill(each.protocol, each.ports[0])  # the keys that are read
        results = [_compare(row, ready, load, repeats, seconds) for row in rows]
        return results, [line for name, each in ready.items() if (line := _moved(name, each))]


def _moved(name: str, served: Served) -> str:
    """A line when the first port is not the leader's any more."""
    with contextlib.suppress(RuntimeError):
        if served.still_led():
            return ""
    return f"{name} is not led by the node that led before the first row: 'leader' is not the leader in all turns."


def _compare(
    row: Row, ready: Mapping[str, Served], load: LoadGenerator, repeats: int, seconds: float
) -> dict[str, Any]:
    result: dict[str, Any] = {"name": row.name, "must": row.must, "aim": row.aim, "latency": row.latency}
    result["decides"] = row.decides
    missing = sorted({each.server for each in row.theirs} - ready.keys())
    if missing:
        return {**result, "holds": None, "skipped": f"{', '.join(missing)} is not installed"}

    def run(asked: Load) -> Measured:
        server = ready[asked.server]
        if asked.by == "redis-benchmark":
            return redis_benchmark(
                asked.operation,
                server.ports[asked.ports[0]],
                connections=asked.connections,
                pipeline=asked.pipeline,
                # About as long as the others.
                requests=int(seconds * 60_000 * asked.pipeline**0.7),
            )
        return load.run(
            server.protocol,
            asked.operation,
            server.ports[slice(*asked.ports)],
            connections=asked.connections,
            pipeline=asked.pipeline,
            seconds=seconds,
        )

    own, others, ratios = [], [], []
    for _ in range(repeats):
        own.append(run(row.ours))
        others.append([run(asked) for asked in row.theirs])
        ratios.append(row.ratio(own[-1], others[-1]))
    ratio = median(ratios)
    return {
        **result,
        "ratio": ratio,
        "ratios": ratios,
        "holds": row.holds(ratio),
        "ours": _summary(own),
        "theirs": [_summary(runs) for runs in zip(*others, strict=True)],
        "runs": {
            "ours": [each.figures() for each in own],
            "theirs": [[each.figures() for each in all_] for all_ in others],
        },
    }


def _summary(runs: Sequence[Measured]) -> dict[str, float]:
    def of(name: str) -> float:
        return median([getattr(run, name) for run in runs])

    return {"per_s": of("per_s"), "p50_us": of("p50_us"), "p99_us": of("p99_us")}


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| | ours | theirs | ratio (min / median / max) | must | aim | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        sign = "≤" if result["latency"] else "≥"
        limits = f"{sign} {result['must']:g} | {sign} {result['aim']:g}" if result["decides"] else "information |"
        if result["holds"] is None:
            lines.append(f"| {result['name']} | | {result['skipped']} | | {limits} | |")
            continue
        unit, name, digits = (" µs", "p50_us", 0) if result["latency"] else ("/s", "per_s", 0)
        verdict = ("yes" if result["holds"] else "NO") if result["decides"] else ""
        best = (min if result["latency"] else max)(each[name] for each in result["theirs"])
        lines.append(
            f"| {result['name']} | {result['ours'][name]:,.{digits}f}{unit} | {best:,.{digits}f}{unit} "
            f"| {spread(result['ratios'])} | {limits} | {verdict} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
