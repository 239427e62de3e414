"""What one ``store.get`` costs an application that embeds the store."""

from __future__ import annotations

import timeit
from typing import Any

from scripts.bench.harness import Verdict, median, stores

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
    with stores(nodes) as opened:
        opened[0].set("key", "x" * 100)
        get = opened[0].get
        found = timeit.repeat(lambda: get("key"), number=CALLS, repeat=repeats)
        missing = timeit.repeat(lambda: get("missing"), number=CALLS, repeat=repeats)
    microseconds = 1e6 / CALLS
    return {
        "median_us": median(found) * microseconds,
        "fastest_us": min(found) * microseconds,
        "missing_us": median(missing) * microseconds,
    }
