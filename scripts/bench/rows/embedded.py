"""What one ``store.get`` costs an application that embeds the store."""

from __future__ import annotations

import contextlib
import tempfile
import timeit
from pathlib import Path
from typing import Any

from cacheflow import ReplicatedStore
from cacheflow.cli.launcher import free_ports
from scripts.bench.harness import Verdict

MUST = "embedded store.get <= 3 µs"
LIMIT_S = 120
WHAT = "embedded `store.get`"
CALLS = 20_000


def run(repeats: int = 30) -> Verdict:
    """Median of the repeats, for a store alone and for one of three that are one cluster."""
    found = {f"{nodes} node{'s' if nodes > 1 else ''}": _measure(nodes, repeats) for nodes in (1, 3)}
    told = "; ".join(
        f"{who}: {each['median_us']:.2f} µs (fastest {each['fastest_us']:.2f}, missing key {each['missing_us']:.2f})"
        for who, each in found.items()
    )
    median_us = max(each["median_us"] for each in found.values())
    return Verdict(told, median_us <= 3.0, {"median_us": round(median_us, 2)}, found)


def shown(figures: dict[str, Any]) -> str:
    """The median, of a node alone or of one of three: the longer one."""
    return f"{figures['median_us']:.1f} µs"


def _measure(nodes: int, repeats: int) -> dict[str, float]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(nodes)]
    with tempfile.TemporaryDirectory(prefix="cacheflow-bench-") as folder, contextlib.ExitStack() as stack:
        stores = [
            ReplicatedStore(
                node_id=f"node-{number}",
                raft_address=address,
                peers=addresses if nodes > 1 else [],
                bootstrap=nodes == 1,
                data_dir=Path(folder) / str(number),
            )
            for number, address in enumerate(addresses)
        ]
        for store in stores:
            # Not ``with store``: that waits for each before the next begins.
            store.start()
            stack.callback(store.close)
        for store in stores:
            store.wait_ready(20)
        stores[0].set("key", "x" * 100)
        get = stores[0].get
        found = sorted(timeit.repeat(lambda: get("key"), number=CALLS, repeat=repeats))
        missing = sorted(timeit.repeat(lambda: get("missing"), number=CALLS, repeat=repeats))
    microseconds = 1e6 / CALLS
    return {
        "median_us": found[repeats // 2] * microseconds,
        "fastest_us": found[0] * microseconds,
        "missing_us": missing[repeats // 2] * microseconds,
    }
