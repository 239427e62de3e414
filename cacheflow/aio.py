"""The asyncio twin of ReplicatedStore: the same verbs as coroutines.

An embedded node's loop has a thread of its own, so that a busy application never delays a heartbeat; the twin's calls
therefore cross from the application's loop to the node's, as a thread's do. Local reads are plain memory and wait for nothing.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from cacheflow.results import IncrResult, Item, SetResult
from cacheflow.store import ReplicatedStore


class AsyncReplicatedStore:
    """``async with AsyncReplicatedStore(...) as cache: await cache.set("k", "v")``. Arguments as ReplicatedStore's."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.store = ReplicatedStore(*args, **settings)

    async def __aenter__(self) -> AsyncReplicatedStore:
        await asyncio.to_thread(self.store.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.store.close)

    async def read(self, key: str, **options: Any) -> Item | None:
        """As ReplicatedStore.read; local reads do not leave this loop."""
        if options.get("consistency", "local") == "local" and not options.get("strict"):
            return self.store.read(key, **options)
        return await asyncio.to_thread(self.store.read, key, **options)

    async def get(self, key: str, default: Any = None, *, consistency: str = "local") -> Any:
        """As ReplicatedStore.get."""
        item = await self.read(key, consistency=consistency)
        return default if item is None else item.value

    async def set(self, key: str, value: Any, **options: Any) -> SetResult:
        """As ReplicatedStore.set."""
        return await asyncio.to_thread(self.store.set, key, value, **options)

    async def add(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """As ReplicatedStore.add."""
        return await asyncio.to_thread(self.store.add, key, value, ttl)

    async def compare_and_set(self, key: str, value: Any, *, version: int, ttl: float | None = None) -> SetResult:
        """As ReplicatedStore.compare_and_set."""
        return await asyncio.to_thread(self.store.compare_and_set, key, value, version=version, ttl=ttl)

    async def delete(self, key: str, **options: Any) -> bool:
        """As ReplicatedStore.delete."""
        return await asyncio.to_thread(self.store.delete, key, **options)

    async def incr(self, key: str, delta: int = 1, **options: Any) -> IncrResult:
        """As ReplicatedStore.incr."""
        return await asyncio.to_thread(self.store.incr, key, delta, **options)

    async def decr(self, key: str, delta: int = 1, **options: Any) -> IncrResult:
        """As ReplicatedStore.decr."""
        return await asyncio.to_thread(self.store.decr, key, delta, **options)

    async def touch(self, key: str, ttl: float | None) -> bool:
        """As ReplicatedStore.touch."""
        return await asyncio.to_thread(self.store.touch, key, ttl)

    async def remove_node(self, node_id: str) -> None:
        """As ReplicatedStore.remove_node."""
        await asyncio.to_thread(self.store.remove_node, node_id)

    async def clear(self) -> None:
        """As ReplicatedStore.clear."""
        await asyncio.to_thread(self.store.clear)
