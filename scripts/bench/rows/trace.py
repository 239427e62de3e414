"""``cacheflow bench --trace`` on real traces, three nodes, one request after another, against exact LRU.

The traces are not part of the checkout; they lie beside it. Each is replayed from its beginning.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from cacheflow.cli.bench import read_trace
from scripts.bench.harness import Verdict

MUST = "hit ratio of bench --trace, three nodes, reads spread, --max-items 1000: within 0.5 points of exact LRU"
LIMIT_S = 900
# A part of each file, and exact LRU over the same part.
SHORT = {"requests": 12_000}
WHAT = "hits on real requests, 1,000 items, exact LRU / this cluster, reads spread over three nodes"
ROOT = Path(__file__).resolve().parents[3]
TRACES = ROOT.parent / "shared" / "traces"
NAMES = ("web07", "orm-busy")
ITEMS = 1000
POINTS = 0.5


def run(requests: int = 100_000) -> Verdict:
    """At most so many requests of each trace; that is all of web07. Skipped where a trace is missing."""
    missing = [name for name in NAMES if not _file(name).exists()]
    if missing:
        return Verdict(f"no {' and no '.join(missing)} in ../shared/traces beside the checkout", None)
    found: dict[str, dict[str, Any]] = {}
    details: dict[str, Any] = {}
    for name in NAMES:
        keys = read_trace(_file(name))[:requests]
        report = _replay(keys)
        ratio, exact = 100 * report["hit_ratio"], 100 * _exact_lru(keys)
        found[name] = {"requests": len(keys), "exact": round(exact, 3), "ratio": round(ratio, 3)}
        details[name] = report
    told = "; ".join(
        f"{name}, {each['requests']} requests: {each['ratio']:.2f} %, exact LRU {each['exact']:.2f} %: "
        f"{each['ratio'] - each['exact']:+.2f} points"
        for name, each in found.items()
    )
    return Verdict(told, all(abs(each["ratio"] - each["exact"]) <= POINTS for each in found.values()), found, details)


def shown(figures: dict[str, Any]) -> str:
    """Each trace's."""
    return "; ".join(
        f"{each['exact']:.2f} % / {each['ratio']:.2f} % of {each['requests']:,} ({name})"
        for name, each in figures.items()
    )


def _file(name: str) -> Path:
    return TRACES / f"{name}.trace.xz"


def _replay(keys: Sequence[int]) -> dict[str, Any]:
    """The report of the command. Raises RuntimeError when it fails."""
    with tempfile.NamedTemporaryFile(prefix="cacheflow-bench-", suffix=".trace") as part:
        part.write(struct.pack(f">{len(keys)}I", *keys))
        part.flush()
        command = [sys.executable, "-m", "cacheflow", "bench", "--nodes", "3", "--trace", part.name]
        command += ["--max-items", str(ITEMS), "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr[-300:]}")
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def _exact_lru(keys: Sequence[int]) -> float:
    cache: LRUCache[int, bool] = LRUCache(ITEMS)
    hits = 0
    for key in keys:
        if cache.get(key):
            hits += 1
        else:
            cache[key] = True
    return hits / len(keys)
