"""Storages for limits, and so for Flask-Limiter and slowapi: rate limits that hold in a whole CacheFlow cluster.

    import cacheflow.integrations.limits  # makes the schemes known

    storage = limits.storage.storage_from_string("cacheflow://127.0.0.1:8080,127.0.0.1:8081")

A hit of a fixed window is one command, INCR. A hit of the two others reads the window, decides by ``rate_windows.py`` and writes
it by compare-and-set, again when another hit was faster. So each strategy is exact, whichever nodes are asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from operator import methodcaller
from typing import Any, Final

from limits.aio.storage import base as aio_base
from limits.storage import base

from cacheflow.errors import CacheFlowError, NotCommitted, PreconditionFailed
from cacheflow.integrations import rate_windows
from cacheflow.integrations.gathering import Gathering
from cacheflow.integrations.keys import storable
from cacheflow.integrations.rate_windows import Counts, Found, Rule
from cacheflow.opening import asynchronous, blocking

# Seconds after which a hit gives up on a window that others change all the time.
CONTENDED_S_MAX: Final = 5.0

# What is asked of a cache, which may be an asyncio one; its answer comes back into the generator.
Steps = Generator[Callable[[Any], Any], Any, list[bool]]


class _Names:
    """Makes the cluster's keys from the keys that the Python package limits uses. prefix: how all these keys begin."""

    def __init__(self, prefix: str) -> None:
        self.all = f"{prefix}:"

    def fixed(self, key: str) -> str:
        return storable(key, self.all)

    def moving(self, key: str) -> str:
        return storable(f"{key}/moving", self.all)

    def sliding(self, key: str) -> str:
        return storable(f"{key}/sliding", self.all)


def _found(item: Any, expiry: int) -> Found:
    """Return the state of a rate limit's window in ``item``, which a read has found. Raises CacheFlowError if it is no window.

    expiry: the window's period in seconds.
    """
    if item is None:
        return Found(None, 0)
    if item.ttl_s is None or not isinstance(item.value, list):
        raise CacheFlowError(f"{item.key!r} holds no window of a rate limit: remove it")
    return Found(item.value, max((2 * expiry - item.ttl_s) * 1000, 0))


def _acquired(rule: Rule, key: str, limit: int, expiry: int, amounts: Sequence[int]) -> Steps:
    """Decide which of ``amounts``, the hits of several callers, fit into the rate limit's window ``key``; count these hits.

    A generator that yields calls to the cluster; returns a bool for each amount. Raises NotCommitted when others change the
    window all the time.
    """
    deadline = time.monotonic() + CONTENDED_S_MAX
    consistency = "local"
    while time.monotonic() < deadline:
        item = yield methodcaller("get_item", key, consistency=consistency)
        fits, hit = rate_windows.together(rule, _found(item, expiry), limit, expiry * 1000, amounts)
        if hit is None:
            return fits
        told: dict[str, Any] = {"keep_ttl": True} if hit.lives_ms is None else {"ttl": hit.lives_ms / 1000}
        told |= {"only_if_absent": True} if item is None else {"only_if_version": item.version}
        try:
            yield methodcaller("set", key, hit.state, **told)
        except PreconditionFailed:
            # Another hit was faster, and this node's memory may not have it yet.
            consistency = "linearizable"
        else:
            return fits
    raise NotCommitted(f"others change the window all the time; this hit does not count after {CONTENDED_S_MAX:g} s")


def _run(cache: Any, steps: Steps) -> list[bool]:
    try:
        ask = next(steps)
        while True:
            try:
                answer = ask(cache)
            except PreconditionFailed as error:
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as end:
        fits: list[bool] = end.value
        return fits


async def _run_async(cache: Any, steps: Steps) -> list[bool]:
    try:
        ask = next(steps)
        while True:
            try:
                answer = await ask(cache)
            except PreconditionFailed as error:
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as end:
        fits: list[bool] = end.value
        return fits


def _shown(counts: Counts) -> tuple[int, float, int, float]:
    return counts.previous, counts.previous_ms / 1000, counts.current, counts.current_ms / 1000


def _start_and_count(item: Any, expiry: int) -> tuple[float, int]:
    found = _found(item, expiry)
    groups = rate_windows.entries(found, expiry * 1000)
    age_ms = found.now_ms - groups[0][0] if groups else 0
    return time.time() - age_ms / 1000, sum(hits for _, hits in groups)


class CacheFlowStorage(base.Storage, base.MovingWindowSupport, base.SlidingWindowCounterSupport):
    """A storage of the Python package limits in a CacheFlow cluster. Safe for concurrent use, also after a fork.

    uri: as ``cacheflow.open_cache`` takes it.  key_prefix: the beginning of all keys.  options: those of ``open_cache``, such as
    ``timeout`` and ``token_file``.
    Windows end by the cluster's clock. When no node answers, ``cacheflow.ReplicationError`` is raised after ``timeout`` seconds,
    or twice that for a hit that waits for another one on its key; ``limits.errors.StorageError`` with ``wrap_exceptions``, as
    by limits' Redis storage.
    """

    STORAGE_SCHEME = ["cacheflow", "cacheflows"]  # noqa: RUF012 - as limits declares it

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, key_prefix: str = "LIMITS", **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._cache: Any = blocking.open_cache(uri or "", serializer=None, **options)
        self._names = _Names(key_prefix)
        self._gathering = Gathering()

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The exception classes that this storage raises when the cluster fails; the package limits may wrap them."""
        return CacheFlowError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add ``amount`` to the counter under ``key`` and return the sum; a new counter ends after ``expiry`` seconds."""
        return int(self._cache.incr(self._names.fixed(key), amount, initial=0, ttl=expiry))

    def get(self, key: str) -> int:
        """Return the counter under ``key``, 0 if it is absent."""
        return int(self._cache.get(self._names.fixed(key), 0))

    def get_expiry(self, key: str) -> float:
        """Return when the counter under ``key`` ends, in seconds since the epoch; now if it is absent."""
        return time.time() + _ttl_s(self._cache.get_item(self._names.fixed(key)))

    def check(self) -> bool:
        """Return whether the cluster can count hits now, because a majority of its nodes answers."""
        try:
            self._cache.get(self._names.fixed("check"), consistency="linearizable")
        except CacheFlowError:
            return False
        return True

    def reset(self) -> int:
        """Remove every rate limit with this storage's prefix; return how many keys were removed."""
        return int(self._cache.delete_prefix(self._names.all))

    def clear(self, key: str) -> None:
        """Forget all hits that are counted under ``key``, in a fixed window and in a moving window of a rate limit."""
        self._cache.delete_many([self._names.fixed(key), self._names.moving(key)])

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Return whether ``amount`` hits fit into the moving window under ``key``; if so they are counted there."""
        return self._acquire(rate_windows.moving, self._names.moving(key), limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return (the time of the oldest hit in the moving window under ``key``, how many hits are in it).

        The time is in seconds since the epoch.
        """
        return _start_and_count(self._cache.get_item(self._names.moving(key)), expiry)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Return whether ``amount`` hits fit into the sliding window counter under ``key``; if so they are counted there."""
        return self._acquire(rate_windows.sliding, self._names.sliding(key), limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the hits in the two windows of the sliding window counter under ``key``.

        They are (hits in the previous window, seconds until these no longer count, the same two for the present window).
        """
        found = _found(self._cache.get_item(self._names.sliding(key)), expiry)
        return _shown(rate_windows.counts(found, expiry * 1000))

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget the hits of the sliding window counter under ``key``."""
        self._cache.delete(self._names.sliding(key))

    def _acquire(self, rule: Rule, key: str, limit: int, expiry: int, amount: int) -> bool:
        def decide(amounts: Sequence[int]) -> list[bool]:
            return _run(self._cache, _acquired(rule, key, limit, expiry, amounts))

        return self._gathering.ask(key, amount, decide)


def _ttl_s(item: Any) -> float:
    return 0.0 if item is None or item.ttl_s is None else item.ttl_s


class AsyncCacheFlowStorage(aio_base.Storage, aio_base.MovingWindowSupport, aio_base.SlidingWindowCounterSupport):
    """CacheFlowStorage for asyncio: the same methods as coroutines."""

    STORAGE_SCHEME = ["async+cacheflow", "async+cacheflows"]  # noqa: RUF012 - as limits declares it

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, key_prefix: str = "LIMITS", **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._cache: Any = asynchronous.open_cache((uri or "").removeprefix("async+"), serializer=None, **options)
        self._names = _Names(key_prefix)
        self._gathering = Gathering()

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The exception classes that this storage raises when the cluster fails; the package limits may wrap them."""
        return CacheFlowError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add ``amount`` to the counter under ``key`` and return the sum; a new counter ends after ``expiry`` seconds."""
        return int(await self._cache.incr(self._names.fixed(key), amount, initial=0, ttl=expiry))

    async def get(self, key: str) -> int:
        """Return the counter under ``key``, 0 if it is absent."""
        return int(await self._cache.get(self._names.fixed(key), 0))

    async def get_expiry(self, key: str) -> float:
        """Return when the counter under ``key`` ends, in seconds since the epoch; now if it is absent."""
        return time.time() + _ttl_s(await self._cache.get_item(self._names.fixed(key)))

    async def check(self) -> bool:
        """Return whether the cluster can count hits now, because a majority of its nodes answers."""
        try:
            await self._cache.get(self._names.fixed("check"), consistency="linearizable")
        except CacheFlowError:
            return False
        return True

    async def reset(self) -> int:
        """Remove every rate limit with this storage's prefix; return how many keys were removed."""
        return int(await self._cache.delete_prefix(self._names.all))

    async def clear(self, key: str) -> None:
        """Forget all hits that are counted under ``key``, in a fixed window and in a moving window of a rate limit."""
        await self._cache.delete_many([self._names.fixed(key), self._names.moving(key)])

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Return whether ``amount`` hits fit into the moving window under ``key``; if so they are counted there."""
        return await self._acquire(rate_windows.moving, self._names.moving(key), limit, expiry, amount)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return (the time of the oldest hit in the moving window under ``key``, how many hits are in it).

        The time is in seconds since the epoch.
        """
        return _start_and_count(await self._cache.get_item(self._names.moving(key)), expiry)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Return whether ``amount`` hits fit into the sliding window counter under ``key``; if so they are counted there."""
        return await self._acquire(rate_windows.sliding, self._names.sliding(key), limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the hits in the two windows of the sliding window counter under ``key``.

        They are (hits in the previous window, seconds until these no longer count, the same two for the present window).
        """
        found = _found(await self._cache.get_item(self._names.sliding(key)), expiry)
        return _shown(rate_windows.counts(found, expiry * 1000))

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget the hits of the sliding window counter under ``key``."""
        await self._cache.delete(self._names.sliding(key))

    async def _acquire(self, rule: Rule, key: str, limit: int, expiry: int, amount: int) -> bool:
        async def decide(amounts: Sequence[int]) -> list[bool]:
            return await _run_async(self._cache, _acquired(rule, key, limit, expiry, amounts))

        return await self._gathering.ask_async(key, amount, decide)
