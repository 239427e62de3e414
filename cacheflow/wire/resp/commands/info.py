"""The command INFO: what tools ask a Redis server about itself."""

from __future__ import annotations

import os
import platform
import resource
import sys
from typing import Final

from cacheflow.contract import CHANNEL, PATTERN, SHARD
from cacheflow.machine.language.databases import DATABASES
from cacheflow.measuring.histogram import quantile_of
from cacheflow.wire.resp.command_stats import command_stats
from cacheflow.wire.resp.replies import text
from cacheflow.wire.resp.session import Arguments, RespSession, Spec

# The release of Redis whose commands and answers these are.
REDIS_VERSION: Final = "7.0.15"

_UNITS: Final = ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))


def _sections(session: RespSession) -> dict[str, dict[str, object]]:
    service = session.service
    metrics = service.store.metrics()

    def whole(name: str) -> int:
        return int(metrics.get(name, 0))

    subscribed = service.store.channels.subscribed
    uptime_s = int(service.wall() - service.started_at)
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "Server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "standalone",
            "server_name": "cacheflow",
            "os": f"{platform.system()} {platform.release()} {platform.machine()}",
            "arch_bits": sys.maxsize.bit_length() + 1,
            "process_id": os.getpid(),
            "run_id": service.run_id,
            "uptime_in_seconds": uptime_s,
            "uptime_in_days": uptime_s // 86400,
        },
        # No command waits for another client here.
        "Clients": {
            "connected_clients": len(service.connections),
            "blocked_clients": 0,
            "tracking_clients": whole("tracking_clients"),
        },
        "Memory": {
            "used_memory": whole("bytes"),
            "used_memory_human": _human(whole("bytes")),
            "maxmemory": whole("max_bytes"),
            "maxmemory_human": _human(whole("max_bytes")),
            "maxmemory_policy": f"allkeys-{service.store.settings().eviction}",
        },
        # What is served is loaded, and a snapshot is another process's work.
        "Persistence": {"loading": 0, "rdb_bgsave_in_progress": 0, "aof_enabled": 1, "aof_rewrite_in_progress": 0},
        "Stats": {
            **{name: number - service.stats_before.get(name, 0) for name, number in stats(session).items()},
            "pubsub_channels": len(subscribed[CHANNEL]),
            "pubsub_patterns": len(subscribed[PATTERN]),
            "pubsubshard_channels": len(subscribed[SHARD]),
            "tracking_total_keys": whole("tracking_keys"),
            "tracking_total_items": whole("tracking_reads"),
            "tracking_total_prefixes": whole("tracking_prefixes"),
        },
        # Every node is a master to clients: all take writes.
        "Replication": {
            "role": "master",
            "raft_role": "leader" if whole("is_leader") else "follower",
            "raft_has_leader": whole("has_leader"),
            "raft_term": whole("term"),
            "raft_applied_index": whole("applied_index"),
            "raft_members": whole("members"),
            "raft_voters": whole("voters"),
        },
        "CPU": {
            "used_cpu_sys": f"{own.ru_stime:.6f}",
            "used_cpu_user": f"{own.ru_utime:.6f}",
            "used_cpu_sys_children": f"{children.ru_stime:.6f}",
            "used_cpu_user_children": f"{children.ru_utime:.6f}",
        },
        # Redis Cluster's protocol, which is not spoken.
        "Cluster": {"cluster_enabled": 0},
        "Keyspace": _keyspace(session),
    }


def stats(session: RespSession) -> dict[str, int]:
    """Return, as counted since this node's start, those counters of INFO that CONFIG RESETSTAT sets back to 0."""
    service = session.service
    metrics = service.store.metrics()
    return {
        "total_connections_received": service.accepted,
        "total_commands_processed": service.requests,
        "expired_keys": int(metrics.get("expired_total", 0)),
        "evicted_keys": int(metrics.get("evicted_total", 0)),
        "keyspace_hits": int(metrics.get("hits_total", 0)),
        "keyspace_misses": int(metrics.get("misses_total", 0)),
    }


def _of_commands(session: RespSession) -> dict[str, dict[str, object]]:
    """Return the sections of INFO that tell of each command; as in Redis they are shown to who asks for them, or for all."""
    stats = command_stats(session.service.times, session.service.commands_before)
    calls: dict[str, object] = {}
    latencies: dict[str, object] = {}
    for name, told in stats.items():
        us = told.seconds * 1e6
        calls[f"cmdstat_{name}"] = (
            f"calls={told.calls},usec={us:.0f},usec_per_call={us / told.calls:.2f}"
            f",rejected_calls={told.refused},failed_calls={told.failed}"
        )
        shares = ((share, quantile_of(told.counts, share / 100) or 0.0) for share in (50, 99, 99.9))
        latencies[f"latency_percentiles_usec_{name}"] = ",".join(
            f"p{share:g}={seconds * 1e6:.3f}" for share, seconds in shares
        )
    return {"Commandstats": calls, "Latencystats": latencies}


def _keyspace(session: RespSession) -> dict[str, object]:
    store = session.service.store
    told: dict[str, object] = {}
    for database in range(DATABASES):
        keys = store.count_of(database)
        if keys:
            expires, left_ms = store.expiring_of(database)
            told[f"db{database}"] = f"keys={keys},expires={expires},avg_ttl={left_ms}"
    return told


def _human(size: int) -> str:
    return next((f"{size / unit:.2f}{name}" for unit, name in _UNITS if size >= unit), f"{size}B")


def info(session: RespSession, arguments: Arguments) -> bytes:
    wanted = {argument.decode("utf-8", "replace").lower() for argument in arguments[1:]}
    everything = not wanted.isdisjoint({"all", "everything"})
    usual = everything or not wanted or "default" in wanted
    shown = [
        "\r\n".join([f"# {title}", *[f"{name}:{value}" for name, value in lines.items()], ""])
        for sections, all_shown in ((_sections, usual), (_of_commands, everything))
        for title, lines in sections(session).items()
        if all_shown or title.lower() in wanted
    ]
    return text(session.protocol, "\r\n".join(shown))


SPECS: Final = (
    Spec("info", -1, "Tells about the node.", group="server", flags=("loading", "stale", "fast"), local=info),
)
