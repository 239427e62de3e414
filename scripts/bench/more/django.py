"""What a read costs a Django application: our back end over HTTP, and Django's Redis back end on a redis-server and on a node.

One thread calls, as in a worker of a site. The three take turns, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from scripts.bench.harness import Verdict, cluster, median, spread
from scripts.bench.peers.servers import peer

MUST = "printed: cache.get and cache.get_many(100) of Django, one thread, three ways in one run"
LIMIT_S = 300
WHAT = "Django's `cache.get` / `get_many(100)`: own back end by HTTP; Redis back end on redis-server; on a node's Redis port"
KEYS = 100
VALUE = "x" * 100


def run(repeats: int = 7, seconds: float = 1.0) -> Verdict:
    """Our back end and the Redis port read from the same node, a follower."""
    try:
        from django.core.cache.backends.redis import RedisCache

        from cacheflow.integrations.django import CacheFlowCache
    except ImportError as error:
        return Verdict(f"Django is not installed (the extra django): {error}", None)
    with cluster("--resp-port", "0") as nodes, peer("redis") as redis:
        if redis is None:
            return Verdict("there is no redis-server here (Debian's package redis-server)", None)
        node = nodes.others(nodes.led_by())[0]
        caches = {
            "own": CacheFlowCache(node.url, {"OPTIONS": {"discover": False}}),
            "redis": RedisCache(f"redis://127.0.0.1:{redis.ports[0]}", {}),
            "port": RedisCache(f"redis://127.0.0.1:{node.wire_ports['--resp-port']}/1", {}),
        }
        names = [f"key{number}" for number in range(KEYS)]
        for cache in caches.values():
            cache.set_many(dict.fromkeys(names, VALUE), None)
        found: dict[str, dict[str, list[float]]] = {kind: {who: [] for who in caches} for kind in ("get", "get_many")}
        for _ in range(repeats):
            for who, cache in caches.items():
                found["get"][who].append(_us(_get(cache, names), VALUE, seconds))
                found["get_many"][who].append(_us(_get_many(cache, names), dict.fromkeys(names, VALUE), seconds))
    told = "; ".join(
        f"{kind} " + ", ".join(f"{who} {spread(turns, 0)} µs" for who, turns in by.items())
        for kind, by in found.items()
    )
    figures = {kind: {who: round(median(turns)) for who, turns in by.items()} for kind, by in found.items()}
    return Verdict(told, True, figures, found)


def shown(figures: dict[str, Any]) -> str:
    """The medians, in microseconds a call."""
    one, many = figures["get"], figures["get_many"]
    return "; ".join(f"{one[who]:,} / {many[who]:,} µs" for who in ("own", "redis", "port"))


def _get(cache: Any, names: Sequence[str]) -> Callable[[int], Any]:
    return lambda turn: cache.get(names[turn % len(names)])


def _get_many(cache: Any, names: Sequence[str]) -> Callable[[int], Any]:
    return lambda turn: cache.get_many(names)


def _us(call: Callable[[int], Any], wanted: Any, seconds: float) -> float:
    """The microseconds of one call, on average over ``seconds``. Raises RuntimeError for a wrong answer."""
    began, count = time.perf_counter(), 0
    while (took_s := time.perf_counter() - began) < seconds or not count:
        if call(count) != wanted:
            raise RuntimeError("a wrong answer")
        count += 1
    return took_s / count * 1e6
