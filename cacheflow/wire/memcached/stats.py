"""The command ``stats``: figures of this node. What a replicated cache does not have (slabs, threads) is left out."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
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
    # What this node does not know yet is left out.
    told = [(name, value) for name, value in section(connection).items() if value is not None]
    return b"".join([f"STAT {name} {value}\r\n".encode() for name, value in told] + [b"END\r\n"])


def _general(connection: MemcachedSession) -> dict[str, object]:
    find = _finder(connection)
    port = connection.shared.port
    used = resource.getrusage(resource.RUSAGE_SELF)
    hits, misses = find("hits_total") or 0, find("misses_total") or 0
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
        "cmd_set": find("sets_total"),
        "total_items": find("sets_total"),
        "curr_items": connection.store.count_of(0),
        "bytes": find("bytes"),
        "limit_maxbytes": find("max_bytes"),
        "evictions": find("evicted_total"),
        "requests": port.requests,
        "threads": 1,
    }


def _settings(connection: MemcachedSession) -> dict[str, object]:
    find = _finder(connection)
    port = connection.shared.port
    return {
        "maxbytes": find("max_bytes"),
        "max_items": find("max_items"),
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
    count = connection.store.count_of(0)
    if not count:
        return {}
    return {"items:1:number": count, "items:1:evicted": _finder(connection)("evicted_total")}


def _finder(connection: MemcachedSession) -> Callable[[str], int | None]:
    """Return a function that finds a figure of this node by its name; None while the node does not know it."""
    figures = connection.store.metrics()
    return lambda name: int(figures[name]) if name in figures else None
