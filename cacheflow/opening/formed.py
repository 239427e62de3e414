"""Caches with a key prefix or a serializer: the same verbs over a cache that has none.

What becomes of keys and values is the form's (``forms/form.py``). These two classes hand commands and reads on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

from cacheflow import arguments
from cacheflow.arguments import KEYS_PAGE
from cacheflow.client.client import CacheClient
from cacheflow.faces import AsyncFace, Face
from cacheflow.forms.form import Form
from cacheflow.machine.language.commands import Command, Result
from cacheflow.results import Item
from cacheflow.watching.watch import AsyncWatch, Watch

P = ParamSpec("P")
T = TypeVar("T")


def _handed_on(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[FormedCache, P], T]:
    """Return a method for a cache that wraps another one: it calls the wrapped cache's method that is named as ``method``."""

    @functools.wraps(method)
    def call(self: FormedCache, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = getattr(self.cache, method.__name__)(*args, **kwargs)
        return answer

    call.__doc__ = inspect.getdoc(method)
    return call


def _handed_on_async(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[AsyncFormedCache, P], Coroutine[Any, Any, T]]:
    """Return a coroutine method for a cache that wraps another: it calls the wrapped cache's method named as ``method``."""

    @functools.wraps(method)
    async def call(self: AsyncFormedCache, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = await getattr(self.cache, method.__name__)(*args, **kwargs)
        return answer

    call.__doc__ = inspect.getdoc(method)
    return call


class FormedCache(Face):
    """A cache that wraps another one, and adds a prefix to the keys in the cluster, a serializer for the values, or both.

    ``cache`` is the wrapped one, which has no prefix and no serializer. Made by ``open_cache``.
    """

    def __init__(self, cache: Any, form: Form) -> None:
        self.cache = cache
        self._form = form

    def __repr__(self) -> str:
        return f"<FormedCache {self._form!r} over {self.cache!r}>"

    def __enter__(self) -> FormedCache:
        self.cache.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cache.__exit__(*_)

    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        return self._form.item(
            self.cache.get_item(
                self._form.key(key), consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict
            )
        )

    def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Any:
        read = super().get
        if self._form.serializer is None:
            # The cache behind has a shorter way to a value than over its item.
            read, key = self.cache.get, self._form.key(key)
        return read(key, default, consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._form.key(key) in self.cache

    def __len__(self) -> int:
        return sum(1 for _ in self) if self._form.prefix else len(self.cache)

    def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        arguments.check_page(prefix, limit, cursor)
        keys, cursor = self.cache.keys_page(self._form.under(prefix), limit, cursor)
        return [self._form.own(key) for key in keys], cursor

    def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        found: dict[str, Any] = self.cache._get_many(form, keys, consistency, max_staleness, peek)
        return found

    def _watch(self, form: Form, prefix: str, since: str | None) -> Watch:
        watch: Watch = self.cache._watch(form, prefix, since)
        return watch

    def _replicate(self, command: Command) -> tuple[Result, int]:
        answer: tuple[Result, int] = self.cache._replicate(command)
        return answer

    nodes = _handed_on(CacheClient.nodes)
    status = _handed_on(CacheClient.status)
    digest = _handed_on(CacheClient.digest)
    transfer_leadership = _handed_on(CacheClient.transfer_leadership)
    remove_node = _handed_on(CacheClient.remove_node)
    promote_node = _handed_on(CacheClient.promote_node)
    demote_node = _handed_on(CacheClient.demote_node)
    raise_level = _handed_on(CacheClient.raise_level)
    settings = _handed_on(CacheClient.settings)
    change_settings = _handed_on(CacheClient.change_settings)

    def close(self) -> Any:
        """Close the cache that this one wraps, and return what the wrapped cache's ``close`` returns."""
        return self.cache.close()


class AsyncFormedCache(AsyncFace):
    """A cache for asyncio that wraps another one, and adds a prefix to the keys in the cluster, a serializer, or both.

    Made by ``aio.open_cache``.
    """

    def __init__(self, cache: Any, form: Form) -> None:
        self.cache = cache
        self._form = form

    def __repr__(self) -> str:
        return f"<AsyncFormedCache {self._form!r} over {self.cache!r}>"

    async def __aenter__(self) -> AsyncFormedCache:
        await self.cache.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cache.__aexit__(*_)

    async def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        return self._form.item(
            await self.cache.get_item(
                self._form.key(key), consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict
            )
        )

    async def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Any:
        read = super().get
        if self._form.serializer is None:
            # The cache behind has a shorter way to a value than over its item.
            read, key = self.cache.get, self._form.key(key)
        return await read(key, default, consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict)

    async def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        arguments.check_page(prefix, limit, cursor)
        keys, cursor = await self.cache.keys_page(self._form.under(prefix), limit, cursor)
        return [self._form.own(key) for key in keys], cursor

    async def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self.cache._get_many(form, keys, consistency, max_staleness, peek)
        return found

    async def _watch(self, form: Form, prefix: str, since: str | None) -> AsyncWatch:
        watch: AsyncWatch = await self.cache._watch(form, prefix, since)
        return watch

    async def _replicate(self, command: Command) -> tuple[Result, int]:
        answer: tuple[Result, int] = await self.cache._replicate(command)
        return answer

    nodes = _handed_on_async(CacheClient.nodes)
    status = _handed_on_async(CacheClient.status)
    digest = _handed_on_async(CacheClient.digest)
    transfer_leadership = _handed_on_async(CacheClient.transfer_leadership)
    remove_node = _handed_on_async(CacheClient.remove_node)
    promote_node = _handed_on_async(CacheClient.promote_node)
    demote_node = _handed_on_async(CacheClient.demote_node)
    raise_level = _handed_on_async(CacheClient.raise_level)
    settings = _handed_on_async(CacheClient.settings)
    change_settings = _handed_on_async(CacheClient.change_settings)

    async def close(self) -> Any:
        """Close the cache that this one wraps, and return what the wrapped cache's ``close`` returns."""
        return await self.cache.close()
