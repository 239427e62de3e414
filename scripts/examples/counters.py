#!/usr/bin/env python3
"""Counters in three nodes that many threads raise at once; the leader is killed while they count.

    scripts/examples/counters.py [--threads 8] [--counts 100]

Each thread raises one counter for all and one for its page, each time by one call, over whichever node answers. Every number
must be answered once and to one caller alone, none may be left out, and both living nodes must have the sums in the end. Exit
code 1 when that is not so. docs/usecases/counters.md is about it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cacheflow import CacheFlowError, open_cache
from cacheflow.cli.launcher import LocalCluster, terminable

PAGES = 5
# The leader is killed when this part of the counts is done.
KILLED_AFTER = 0.3


@dataclass
class Counted:
    """What all threads were answered. numbers: those of the counter for all.  wrong: errors, as text."""

    numbers: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--counts", type=int, default=100, help="of every thread")
    options = parser.parse_args()
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="cacheflow-counters-") as folder,
        LocalCluster(3, Path(folder), say=lambda _: None) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        print(f"three nodes: {', '.join(cluster.urls)}", flush=True)
        return int(not _exact(cluster, options.threads, options.counts))


def _exact(cluster: LocalCluster, threads: int, counts: int) -> bool:
    """Have all threads count while the leader is killed; return whether every number was answered once."""
    counted = Counted()
    total = threads * counts
    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(_count, cluster.urls, number, counts, counted) for number in range(threads)]
        while len(counted.numbers) + len(counted.wrong) < KILLED_AFTER * total:
            time.sleep(0.01)
        while (leader := cluster.leader()) is None:
            time.sleep(0.05)
        cluster.kill(leader)
        print(f"{leader.node_id}, the leader, is killed", flush=True)
        for each in done:
            each.result()
    exact = sorted(counted.numbers) == list(range(1, total + 1)) and not counted.wrong
    print(
        f"{total} counts by {threads} threads: {len(set(counted.numbers))} different numbers, {len(counted.wrong)} errors"
    )
    print(f"the longest count took {counted.longest_s:.2f} s")
    for wrong in counted.wrong[:5]:
        print(f"    {wrong}")
    for url in cluster.urls:
        if url == leader.url:
            continue
        with open_cache(url, discover=False) as cache:
            visits = cache.get("visits", consistency="linearizable")
            pages = sum(cache.get_many(f"page:{page}" for page in range(PAGES)).values())
        print(f"{url} has {visits} visits, {pages} on all pages")
        exact &= visits == pages == total
    print("exact" if exact else "NOT exact")
    return exact


def _count(urls: list[str], number: int, counts: int, counted: Counted) -> None:
    # Each thread asks another node first.
    first = number % len(urls)
    with open_cache(urls[first:] + urls[:first], timeout=30) as cache:
        for each in range(counts):
            began = time.monotonic()
            try:
                visit = int(cache.incr("visits", initial=0))
                cache.incr(f"page:{(number + each) % PAGES}", initial=0)
            except CacheFlowError as error:
                with counted.lock:
                    counted.wrong.append(f"{type(error).__name__}: {error}")
                continue
            with counted.lock:
                counted.numbers.append(visit)
                counted.longest_s = max(counted.longest_s, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
