"""The command ``stats``: figures of this node. What a replicated cache does not have (slabs, threads) is left out."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Final

from cacheflow.wire.memcached.lines import ERROR
from cacheflow.wire.memcached.session import MemcachedSession

_STARTED_S: Final = time.monotonic()


def statistics(connection: MemcachedSession, words: list[bytes]) -> bytes:
    """Return the reply to memcached's ``stats``, ``stats settings`` or ``stats items``; ERROR for any other section.

    words: the words behind ``stats``.
    """
    section = {(): _general, (b"settings",): _settings, (b"items",): _items}.get(tuple(words))
    if section is None:
        return ERROR
    told = section(connection)
    return b"".join([f"STAT {name} {value}\r\n".encode() for name, value in told.items()] + [b"END\r\n"])


def _general(connection: MemcachedSession) -> dict[str, object]:
    numbers = connection.store.metrics()
    port = connection.shared.port
    used = resource.getrusage(resource.RUSAGE_SELF)
    hits, misses = int(numbers["hits_total"]), int(numbers["misses_total"])
    return {
        "pid": os.getpid(),
        "uptime": int(time.monotonic() - _STARTED_S),
        "time": int(connection.wall_s()),
        "version": connection.shared.version,
        "pointer_size": sys.maxsize.bit_length() + 1,
        "rusage_user": f"{used.ru_utime:.6f}",
        "rusage_system": f"{used.ru_stime:.6f}",
        "max_connections": port.connections_max,
        "curr_connections": port.connections,
        "total_connections": port.accepted,
        "rejected_connections": port.refused,
        # Reads through every front of this node are counted, not those of this port alone.
        "cmd_get": hits + misses,
        "get_hits": hits,
        "get_misses": misses,
        "cmd_set": int(numbers["sets_total"]),
        "total_items": int(numbers["sets_total"]),
        "curr_items": connection.store.count_of(0),
        "bytes": int(numbers["bytes"]),
        "limit_maxbytes": int(numbers["max_bytes"]),
        "evictions": int(numbers["evicted_total"]),
        "requests": port.requests,
        "threads": 1,
    }


def _settings(connection: MemcachedSession) -> dict[str, object]:
    numbers = connection.store.metrics()
    port = connection.shared.port
    return {
        "maxbytes": int(numbers["max_bytes"]),
        "max_items": int(numbers["max_items"]),
        "maxconns": port.connections_max,
        "evictions": "on",
        "cas_enabled": "yes",
        "flush_enabled": "yes",
        "dump_enabled": "no",
        "auth_enabled_ascii": "no" if connection.shared.access is None else "yes",
        "item_size_max": connection.shared.value_bytes_max,
        "client_flags_size": 4,
        "consistency": "linearizable" if connection.linearizable else "local",
    }


def _items(connection: MemcachedSession) -> dict[str, object]:
    """Return the figures of memcached's ``stats items`` by name; this cache has a single class of items, number 1."""
    numbers = connection.store.metrics()
    count = connection.store.count_of(0)
    if not count:
        return {}
    return {"items:1:number": count, "items:1:evicted": int(numbers["evicted_total"])}
