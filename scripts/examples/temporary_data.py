#!/usr/bin/env python3
"""Data that ends by itself, in three nodes: codes for one use, a lock that frees itself, values with a TTL; the leader is killed.

    scripts/examples/temporary_data.py [--codes 20] [--ttl 3]

Threads on all nodes redeem the same codes at once: each code may be redeemed by one of them alone. A lock has one holder, and
is free again after its TTL when its holder says nothing more. Values with a TTL must be there until it is over, and gone right
after, on both living nodes, though the leader that gave them is dead. Exit code 1 when that is not so.
docs/usecases/temporary_data.md is about it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cacheflow import CacheClient, open_cache
from cacheflow.cli.launcher import LocalCluster, terminable

# Who tries to redeem each code, and to get the lock.
CALLERS = 9
# Seconds behind the end of a TTL after which nobody may see the value: promised is the time of a message.
LATE_S = 1.0
# Seconds before the end of a TTL at which a value may be gone: the cluster's time is counted in whole milliseconds.
EARLY_S = 0.002


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=20)
    parser.add_argument("--ttl", type=float, default=3.0, help="seconds that the values and the lock last")
    options = parser.parse_args()
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="cacheflow-temporary-") as folder,
        LocalCluster(3, Path(folder), say=lambda _: None) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        print(f"three nodes: {', '.join(cluster.urls)}", flush=True)
        urls = cluster.urls
        clients = [CacheClient(urls[first:] + urls[:first], timeout_s=30) for first in range(3)]
        kept = [_redeemed_once(clients, options.codes), _ended_in_time(cluster, clients, options.ttl)]
        for client in clients:
            client.close()
        return int(not all(kept))


def _redeemed_once(clients: list[CacheClient], codes: int) -> bool:
    """Have everybody redeem every code at once; return whether each was redeemed by one caller alone."""
    made = {f"code:{secrets.token_hex(8)}": f"user-{number}" for number in range(codes)}
    for code, user in made.items():
        clients[0].set(code, user, ttl=600)
    with ThreadPoolExecutor(CALLERS) as pool:
        redeemed = {
            code: list(pool.map(lambda caller, code=code: clients[caller % 3].pop(code, None), range(CALLERS)))
            for code in made
        }
    good = all([user for user in found if user is not None] == [made[code]] for code, found in redeemed.items())
    print(f"{codes} codes, each tried by {CALLERS} callers at once: {'each' if good else 'NOT each'} redeemed once")
    return good


def _ended_in_time(cluster: LocalCluster, clients: list[CacheClient], ttl_s: float) -> bool:
    """Set values and a lock that end, kill the leader and watch both living nodes; return whether nothing ended early or late."""
    with ThreadPoolExecutor(CALLERS) as pool:
        holders = list(pool.map(lambda caller: clients[caller % 3].add("lock", caller, ttl=ttl_s), range(CALLERS)))
    one_holder = holders.count(True) == 1
    print(f"a lock that {CALLERS} callers want: {holders.count(True)} has it")
    # Of each value: the moments before and behind its writing.
    written: dict[str, tuple[float, float]] = {}
    for number in range(20):
        before = time.monotonic()
        clients[number % 3].set(f"value:{number}", number, ttl=ttl_s)
        written[f"value:{number}"] = (before, time.monotonic())
    while (leader := cluster.leader()) is None:
        time.sleep(0.05)
    living = [open_cache(url, discover=False, timeout=30) for url in cluster.urls if url != leader.url]
    for cache in living:
        # From here on the node has the values; until then it may be a message behind.
        cache.get("lock", consistency="linearizable")
    cluster.kill(leader)
    print(f"{leader.node_id}, the leader, is killed", flush=True)
    early, late, reads = 0, 0, 0
    watched_until = max(after for _, after in written.values()) + ttl_s + LATE_S + 0.2
    while time.monotonic() < watched_until:
        for key, (before, after) in written.items():
            for cache in living:
                began = time.monotonic()
                value = cache.get(key)
                reads += 1
                early += value is None and time.monotonic() < before + ttl_s - EARLY_S
                late += value is not None and began > after + ttl_s + LATE_S
    freed = living[0].add("lock", "another", ttl=ttl_s)
    left = [key for cache in living for key in cache.keys("value:")]
    for cache in living:
        cache.close()
    print(
        f"{len(written)} values of {ttl_s:g} s, read {reads} times on both living nodes: {early} gone early, {late} there late"
    )
    print(f"the lock is {'free' if freed else 'NOT free'} again, {len(left)} values are left")
    return one_holder and early == late == 0 and freed and not left


if __name__ == "__main__":
    sys.exit(main())
