"""``cacheflow bench --trace`` on a real trace, three nodes, against exact LRU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cachetools import LRUCache

from cacheflow.bench import read_trace
from scripts.bench.harness import Verdict

MUST = "hit ratio of bench --trace, three nodes, reads spread, --max-items 1000: within 0.5 points of exact LRU"
LIMIT_S = 400
ROOT = Path(__file__).resolve().parents[3]
TRACE = ROOT.parent / "shared" / "traces" / "web07.trace.xz"
ITEMS = 1000


def run() -> Verdict:
    """Skipped where the trace is missing: it is not part of the checkout."""
    if not TRACE.exists():
        return Verdict(f"{TRACE} is not here", None)
    command = [sys.executable, "-m", "cacheflow", "bench", "--nodes", "3", "--trace", str(TRACE)]
    command += ["--max-items", str(ITEMS), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode != 0:
        return Verdict(f"exit code {ended.returncode}: {ended.stderr[-300:]}", False)
    report = json.loads(ended.stdout)
    ratio, exact = 100 * report["hit_ratio"], 100 * _exact_lru(read_trace(TRACE))
    shown = f"{ratio:.2f} %, exact LRU {exact:.2f} %: {ratio - exact:+.2f} points"
    return Verdict(shown, abs(ratio - exact) <= 0.5, {"exact": exact, "report": report})


def _exact_lru(keys: list[int]) -> float:
    cache: LRUCache[int, bool] = LRUCache(ITEMS)
    hits = 0
    for key in keys:
        if cache.get(key):
            hits += 1
        else:
            cache[key] = True
    return hits / len(keys)
