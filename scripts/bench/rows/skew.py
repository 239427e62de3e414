"""Two hours' clock skew between the nodes, the leader killed in between: a TTL ends when it should, on every node."""

from __future__ import annotations

import asyncio
import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from scripts.bench.clock_shim import build_shim
from scripts.bench.expiry import watch
from scripts.bench.harness import Cluster, Verdict, cluster, node_command
from scripts.bench.load import Connection, put, request

MUST = "two hours' clock skew, leader killed in between: a 10 s TTL ends at 10 s +- 0.2 s on every node"
LIMIT_S = 240
SHORT = {"rounds": 2}
WHAT = "wall clocks two hours apart, leader killed in between: a 10 s TTL ends on every node after"
SECONDS = "0,7200,-7200"
TTL_S = 10.0
KILL_AT_S = 3.0
RESTART_AT_S = 5.0
MARGIN_S = 0.2


def run(rounds: int = 3) -> Verdict:
    """In each round another node leads and is killed then. Skipped without a C compiler."""
    with tempfile.TemporaryDirectory(prefix="cacheflow-bench-") as folder:
        try:
            shim = build_shim(Path(folder))
        except OSError as error:
            return Verdict(str(error), None)
        with cluster(command=node_command("skewed", shim, SECONDS)) as nodes:
            asyncio.run(_check_clocks(nodes))
            found = [asyncio.run(_round(nodes, number)) for number in range(rounds)]
    ended_s = [at for each in found for at in each["ended_s"].values()]
    bad = [text for each in found for text in each["bad"]]
    passed = not bad and all(at is not None and abs(at - TTL_S) <= MARGIN_S for at in ended_s)
    known = [at for at in ended_s if at is not None]
    told = (
        f"ended after {min(known):.3f} to {max(known):.3f} s on 3 nodes in {rounds} rounds" if known else "never ended"
    )
    told += f" (clocks {SECONDS} s off; leaders killed: {', '.join(each['killed'] for each in found)})"
    figures = {"least_s": min(known), "most_s": max(known)} if known else {}
    return Verdict(told + (f"; {bad[0]}" if bad else ""), passed, figures, {"rounds": found})


def shown(figures: dict[str, Any]) -> str:
    """The earliest and the latest end."""
    return f"{figures['least_s']:.3f} to {figures['most_s']:.3f} s"


async def _check_clocks(nodes: Cluster) -> None:
    """Raise RuntimeError unless the nodes' own Date headers show the skew."""
    for child, shift in zip(nodes.children, SECONDS.split(","), strict=True):
        connection = await Connection.open(child.url)
        told = (await connection.ask(request("GET", "/livez"))).header("Date")
        connection.close()
        off_s = parsedate_to_datetime(told or "").timestamp() - time.time()
        if abs(off_s - int(shift)) > 5:
            raise RuntimeError(f"{child.node_id}'s clock is {off_s:.0f} s off instead of {shift}")


async def _round(nodes: Cluster, number: int) -> dict[str, Any]:
    leader = nodes.children[number]
    chosen = nodes.others(leader)[0]
    writer = await Connection.open(chosen.url)
    handed = await writer.ask(request("POST", "/cluster/leader", {"id": leader.node_id}))
    if handed.status != 200:
        raise RuntimeError(f"no hand-over to {leader.node_id}: {handed.status} {handed.body[:200]!r}")
    key = f"skew:{number}"
    before = time.monotonic()
    reply = await writer.ask(put(key, "x", TTL_S))
    written = (before + time.monotonic()) / 2
    watching = [asyncio.create_task(watch(url, [key], written + TTL_S + 2)) for url in nodes.urls]
    await asyncio.sleep(written + KILL_AT_S - time.monotonic())
    killed = nodes.led_by()
    nodes.kill(killed)
    await asyncio.sleep(written + RESTART_AT_S - time.monotonic())
    nodes.restart(killed)
    seen = [found[key] for found in await asyncio.gather(*watching)]
    await asyncio.to_thread(nodes.wait_ready)
    bad = [text for each in seen for text in each.bad]
    bad += [f"PUT {reply.status}"] if reply.status not in (200, 201) else []
    bad += [] if killed is leader else [f"{killed.node_id} led instead of {leader.node_id}"]
    ended = {
        child.node_id: None
        if each.last_readable is None or each.first_missing_after is None
        # Between the last question that found it and the first answer that did not.
        else round((each.last_readable + each.first_missing_after) / 2 - written, 3)
        for child, each in zip(nodes.children, seen, strict=True)
    }
    writer.close()
    return {"killed": killed.node_id, "ended_s": ended, "bad": bad}
