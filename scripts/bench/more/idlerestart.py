"""A cluster idles for minutes, a follower restarts and then leads: TTLs go on unchanged, nothing expired comes back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from scripts.bench.expiry import watch
from scripts.bench.harness import Cluster, Verdict, cluster
from scripts.bench.load import Connection, put, request

MUST = (
    "cluster idle for 5 minutes, a follower restarted, then made leader: TTLs unchanged, no expired key readable, ever"
)
LIMIT_S = 500
WHAT = "TTLs after five idle minutes, the restart of a follower and its lead: how far off an end or a named TTL was"
MARGIN_S = 0.2
DOWN_S = 2.0
# Keys that live this much longer than the idle time end while the follower is down, as it starts, or once it leads.
BEYOND_S = (1.0, 2.5, 3.0, 8.0, 15.0)


def run(idle_s: float = 300.0) -> Verdict:
    """One key expires half-way through the idle time, the others around and after the restart."""
    with cluster() as nodes:
        found = asyncio.run(_measure(nodes, idle_s))
    return Verdict(found["told"], found["passed"], {"off_s": round(found["wrong_s"], 3)}, found)


def shown(figures: dict[str, Any]) -> str:
    """The worst of all keys and answers."""
    return f"at most {figures['off_s']:.3f} s"


async def _measure(nodes: Cluster, idle_s: float) -> dict[str, Any]:
    ttls = {f"early:{idle_s / 2:g}": idle_s / 2, **{f"late:{beyond:g}": idle_s + beyond for beyond in BEYOND_S}}
    ends: dict[str, float] = {}
    writer = await Connection.open(nodes.led_by().url)
    for key, ttl_s in ttls.items():
        before = time.monotonic()
        reply = await writer.ask(put(key, "x", ttl_s))
        if reply.status != 201:
            raise RuntimeError(f"PUT {reply.status} {reply.body[:200]!r}")
        ends[key] = (before + time.monotonic()) / 2 + ttl_s
    idle_until = time.monotonic() + idle_s
    await asyncio.sleep(idle_s)
    follower = nodes.others(await asyncio.to_thread(nodes.led_by))[0]
    nodes.kill(follower)
    await asyncio.sleep(DOWN_S)
    nodes.restart(follower)
    watching = asyncio.create_task(watch(follower.url, list(ttls), idle_until + max(BEYOND_S) + 2))
    await asyncio.to_thread(nodes.wait_ready)
    asker = await Connection.open(follower.url)
    handed = await asker.ask(request("POST", "/cluster/leader", {"id": follower.node_id}))
    leads_after_s = time.monotonic() - idle_until
    leads = await asyncio.to_thread(nodes.led_by) is follower
    seen = await watching
    bad = [text for each in seen.values() for text in each.bad]
    if handed.status != 200 or not leads:
        bad.append(f"hand-over: {handed.status} {handed.body[:200]!r}")
    # Where it was readable last, against where it should end; and how wrong the TTL was that each answer named.
    late_s = {key: each.last_readable - ends[key] for key, each in seen.items() if each.last_readable is not None}
    ttl_off_s = [at + ttl - ends[key] for key, each in seen.items() for at, ttl in each.ttls]
    early_s = {
        key: ends[key] - each.first_missing_after
        for key, each in seen.items()
        if each.first_missing_after is not None and each.readable
    }
    for key, each in seen.items():
        if ends[key] < idle_until + DOWN_S and each.readable:
            bad.append(f"{key} expired before the restart and was readable {each.readable} times after it")
        if each.first_missing_after is None:
            bad.append(f"{key} was never missing")
    wrong = max([*map(abs, late_s.values()), *map(abs, early_s.values()), *map(abs, ttl_off_s), 0.0])
    told = (
        f"idle {idle_s:g} s, leads {leads_after_s:.1f} s later; {len(ttl_off_s)} readings: "
        f"TTLs off by {min(ttl_off_s, default=0):+.3f} to {max(ttl_off_s, default=0):+.3f} s, last readable "
        f"{max(late_s.values(), default=0):+.3f} s, first missing {-max(early_s.values(), default=0):+.3f} s"
    )
    passed = not bad and wrong <= MARGIN_S and bool(late_s)
    return {
        "passed": passed,
        "wrong_s": wrong,
        "told": told + (f"; {bad[0]}" if bad else ""),
        "late_s": late_s,
        "early_s": early_s,
        "bad": bad,
    }
