"""100,000 mixed operations through all nodes with eviction and TTL at work; then the nodes must be identical."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

from scripts.bench.harness import Verdict, cluster
from scripts.bench.load import Connection, Reply, Tally, batch, get, open_all, pump, put, request

MUST = "digests of three nodes after 100,000 mixed operations with eviction and TTL: equal at an equal index, ?full too"
LIMIT_S = 500
SHORT = {"operations": 50_000}
WHAT = "digests of three nodes after mixed operations through all of them, with eviction and TTL, LRU and LFU"
CONNECTIONS = 12
KEYS = 5000
OPS_A_BATCH = 40
# How many log indexes are compared, and how far apart.
COMPARED = 20
APART = 50
DIGEST = request("GET", "/cluster/digest")
FULL_DIGEST = request("GET", "/cluster/digest?full")


def run(operations: int = 100_000) -> Verdict:
    """The whole number once under LRU and once under LFU, both at the default limit of 1,000 items."""
    found = {}
    for policy in ("lru", "lfu"):
        with cluster("--eviction", policy) as nodes:
            found[policy] = asyncio.run(_measure(nodes.urls, operations))
    passed = all(
        each["equal"] and each["equal_full"] and each["evicted"] > 1000 and each["expired"] > 100 and not each["bad"]
        for each in found.values()
    )
    equal = all(each["equal"] and each["equal_full"] for each in found.values())
    told = "; ".join(f"{policy}: {each}" for policy, each in found.items())
    return Verdict(told, passed, {"operations": operations, "equal": equal}, found)


def shown(figures: dict[str, Any]) -> str:
    """Whether they were equal, after how many operations."""
    return f"{'equal' if figures['equal'] else 'different'} after {figures['operations']:,} operations"


async def _measure(urls: Sequence[str], operations: int) -> dict[str, Any]:
    tally = Tally()
    connections = await open_all(urls, CONNECTIONS)

    def note(reply: Reply) -> None:
        # Conditions that fail are part of the mixture.
        tally.note(reply._replace(status=200) if reply.status in (409, 412) else reply)

    await pump(connections, _mixture(random.Random(1), operations), LIMIT_S, note=note)
    asked = connections[: len(urls)]
    index, rolling = await _rolling(asked)
    full = await _full(asked)
    metrics = (await asked[0].ask(request("GET", "/metrics?format=json"))).json()
    return {
        "equal": all(len(set(digests)) == 1 for digests in rolling),
        "equal_full": full is not None and len(set(full)) == 1,
        "index": index,
        "revision": metrics["revision"],
        "evicted": metrics["evicted_total"],
        "expired": metrics["expired_total"],
        "bad": tally.bad,
    }


def _mixture(source: random.Random, operations: int) -> Iterator[bytes]:
    """Requests for that many operations: most in batches, some of every kind alone."""
    done = 0
    while done < operations:
        key = f"mix:{source.randrange(KEYS)}"
        match source.randrange(12):
            case 0:
                yield put(key, source.randrange(1000), source.choice([None, 0.05, 0.2, 60]))
            case 1:
                yield request("DELETE", f"/cache/{key}")
            case 2:
                yield request("POST", f"/cache/{key}/incr", {"delta": 3, "initial": 0})
            case 3:
                yield request("POST", f"/cache/{key}/touch", {"ttl": source.choice([None, 0.1, 30])})
            case 4:
                yield get(key, source.choice(["", "?recency=strict", "?consistency=linearizable"]))
            case 5 if source.random() < 0.02:
                yield request("DELETE", f"/cache?prefix=mix:{source.randrange(10, 100)}")
            case _:
                yield batch([_operation(source) for _ in range(OPS_A_BATCH)])
                done += OPS_A_BATCH - 1
        done += 1


def _operation(source: random.Random) -> dict[str, Any]:
    operation: dict[str, Any] = {"key": f"mix:{source.randrange(KEYS)}"}
    match source.randrange(10):
        case 0:
            return operation | {"op": "delete"}
        case 1:
            return operation | {"op": "incr", "delta": 1, "initial": 5, "ttl": 0.2}
        case 2:
            return operation | {"op": "cas", "value": "swapped", "version": source.randrange(1, 50_000)}
        case 3:
            return operation | {"op": "add", "value": "added", "ttl": 0.1}
        case 4:
            return operation | {"op": "get"}
        case 5:
            return operation | {"op": "touch", "ttl": 0.05}
        case 6:
            return operation | {"op": "set", "value": source.randrange(100), "ttl": source.choice([0.02, 0.1, 100])}
        case _:
            return operation | {"op": "set", "value": "x" * source.randrange(200)}


async def _rolling(connections: Sequence[Connection]) -> tuple[int, list[list[str]]]:
    """The newest index that all have applied, and every node's digest there and at some indexes before."""
    index = min([_told(await connection.ask(DIGEST))["index"] for connection in connections])
    compared = []
    for at in range(index, max(index - COMPARED * APART, 0), -APART):
        replies = [await each.ask(request("GET", f"/cluster/digest?index={at}")) for each in connections]
        compared.append([reply.json().get("digest", f"HTTP {reply.status}") for reply in replies])
    return index, compared


async def _full(connections: Sequence[Connection]) -> list[str] | None:
    """Every node's digest of its whole contents at one index; None when the cluster never comes to rest."""
    for _ in range(400):
        found = [_told(await connection.ask(FULL_DIGEST)) for connection in connections]
        if len({each["index"] for each in found}) == 1:
            return [each["digest"] for each in found]
        await asyncio.sleep(0.05)
    return None


def _told(reply: Reply) -> dict[str, Any]:
    """The digest and its index that a node has answered. Raises RuntimeError, with what it says, if it answered anything else."""
    if reply.status != 200:
        raise RuntimeError(f"GET /cluster/digest {reply.status} {reply.body[:300]!r}")
    told: dict[str, Any] = reply.json()
    return told
