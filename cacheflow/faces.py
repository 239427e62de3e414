"""Face and AsyncFace: a cache's verbs (``verbs.py``) as methods or as coroutines, and the mapping around them.

The four classes that an application uses derive from these two. Each adds how it reads and how it has a command
replicated; so their verbs have the same names, options, defaults and refusals.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import inspect
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    MutableMapping,
    ValuesView,
)
from typing import Any, Concatenate, ParamSpec, TypeVar

from cacheflow import operations, verbs
from cacheflow.aio.threads import Threads
from cacheflow.arguments import KEYS_PAGE, check_watch
from cacheflow.errors import KeyNotFound
from cacheflow.forms.form import PLAIN, Form
from cacheflow.machine.language.commands import Command, Result
from cacheflow.results import Item
from cacheflow.verbs import MISSING, Steps
from cacheflow.watching.watch import AsyncWatch, Watch

P = ParamSpec("P")
T = TypeVar("T")


def blocking(verb: Callable[Concatenate[Form, P], Steps[T]]) -> Callable[Concatenate[Face, P], T]:
    """Return a blocking method of a cache that runs ``verb``, a generator which yields the commands to be replicated.

    ``verb`` is called with the cache's form, which is its key prefix and its serializer, before the method's own arguments."""

    def call(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _run(self, verb(self._form, *args, **kwargs))

    return _named(call, verb)


def _run(face: Face, steps: Steps[T]) -> T:
    """Have the cache ``face`` replicate each command that the generator ``steps`` yields, and send the result to ``steps``.

    Returns what ``steps`` returns.
    """
    try:
        command = next(steps)
        while True:
            command = steps.send(face._replicate(command))
    except StopIteration as end:
        answer: T = end.value
        return answer


def coroutine(
    verb: Callable[Concatenate[Form, P], Steps[T]],
) -> Callable[Concatenate[AsyncFace, P], Coroutine[Any, Any, T]]:
    """Return a coroutine method of a cache that runs ``verb``: a function that yields the commands to be replicated, one by one.

    ``verb`` is called with the cache's form, which is its key prefix and its serializer, before the method's own arguments.
    """

    def call(self: AsyncFace, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return _run_async(self, verb(self._form, *args, **kwargs))

    return _named(call, verb)


async def _run_async(face: AsyncFace, steps: Steps[T]) -> T:
    """Have the cache ``face`` replicate each command that the generator ``steps`` yields, and send the result to ``steps``.

    Returns what ``steps`` returns.
    """
    try:
        command = next(steps)
        while True:
            command = steps.send(await face._replicate(command))
    except StopIteration as end:
        answer: T = end.value
        return answer


def in_thread(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[AsyncFace, P], Coroutine[Any, Any, T]]:
    """Return a coroutine method of a cache that calls the blocking ``method`` in one of the cache's own threads."""

    @functools.wraps(method)
    async def call(self: AsyncFace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.run(functools.partial(method, self._blocking, *args, **kwargs))

    # Also the words that the method itself has from its base.
    call.__doc__ = inspect.getdoc(method)
    return call


def _named(call: Callable[..., Any], verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give the method ``call`` the name, docstring and signature of the function ``verb``; return ``call``."""
    functools.update_wrapper(call, verb)
    del call.__wrapped__  # type: ignore[attr-defined]  # its signature has a form in the place of self
    call.__name__ = verb.__name__.rstrip("_")
    told = inspect.signature(verb)
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    answer = str(told.return_annotation).removeprefix("Steps[").removesuffix("]")
    call.__signature__ = told.replace(  # type: ignore[attr-defined]
        parameters=[this, *list(told.parameters.values())[1:]], return_annotation=answer
    )
    return call


# Made here and not in the class, where mypy would take the first overload of MutableMapping for the type of each.
_update = blocking(verbs.update)
_pop = blocking(verbs.pop)
_setdefault = blocking(verbs.setdefault)


class Face(MutableMapping[str, Any]):
    """Base class of the caches with blocking methods, which are mappings too. Subclasses define how to read and replicate."""

    # What is done with keys and values on their way.
    _form: Form = PLAIN

    @abc.abstractmethod
    def _replicate(self, command: Command) -> tuple[Result, int]:
        """Replicate ``command``, which is checked already; return (the state machine's result, the present time in ms).

        The difference between an expiry time in the result and that time is the TTL which is left.
        """

    @abc.abstractmethod
    def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        """Return the item under ``key``, with its version and TTL; None when the key is absent.

        consistency: ``local`` (the memory of the node asked), ``bounded`` (not older than max_staleness, in seconds),
        ``linearizable`` (everything acknowledged before this call).  peek: the read does not count as a use.
        strict: the read counts as a use exactly, through the log.
        Raises InvalidRequest, NotReady, and for linearizable and strict reads the errors of ``set``.
        """

    @abc.abstractmethod
    def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        """Return one page of keys: (up to ``limit`` keys that start with ``prefix``, in order; next page's cursor or None).

        cursor: where the page begins, as returned with the page before; None for the first page.
        """

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
        """Return the value under ``key``, or ``default`` if it is absent. The options are those of ``get_item``."""
        item = self.get_item(key, consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict)
        return default if item is None else item.value

    def get_many(
        self,
        keys: Iterable[str],
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
    ) -> dict[str, Any]:
        """Return {key: value} of those ``keys`` that are present; the options are those of ``get_item``.

        Up to 1,000 keys whose values are no more than 64 MiB are read at one moment, between two entries of the log;
        more are read in groups, each at its own moment. Raises the errors of ``get_item``.
        """
        return self._get_many(self._form, keys, consistency, max_staleness, peek)

    def watch(self, prefix: str = "", *, since: str | None = None) -> Watch:
        """Return an iterator over the changes of keys that begin with ``prefix``, from now on or from ``since`` on.

        since: a position that a watch, or one of its changes, has told. The iterator waits for changes, goes on over nodes that
        fail, and must be closed: it is a context manager. Raises PositionGone, now or later, when changes were missed: list the
        keys anew and watch from then on; NotReady; InvalidRequest.
        """
        check_watch(prefix, since)
        return self._watch(self._form, prefix, since)

    @abc.abstractmethod
    def _watch(self, form: Form, prefix: str, since: str | None) -> Watch:
        """Return an iterator over changes of keys, for a cache that wraps this one and has the key prefix of ``form``.

        prefix: how the watched keys begin in the wrapping cache.  since: the position to go on from; None: from now on.
        """

    @abc.abstractmethod
    def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        """Return {key: value} of those ``keys`` that are present, for ``get_many`` of this cache or of one that wraps it.

        form: the key prefix and serializer of the cache whose ``get_many`` was called.
        """

    set = blocking(verbs.set_)
    add = blocking(verbs.add)
    compare_and_set = blocking(verbs.compare_and_set)
    delete = blocking(verbs.delete)
    incr = blocking(verbs.incr)
    decr = blocking(verbs.decr)
    touch = blocking(verbs.touch)
    persist = blocking(verbs.persist)
    batch = blocking(operations.batch)
    set_many = blocking(verbs.set_many)
    update = _update
    delete_many = blocking(verbs.delete_many)
    delete_prefix = blocking(verbs.delete_prefix)
    clear = blocking(verbs.clear)
    pop = _pop
    setdefault = _setdefault

    def popitem(self) -> tuple[str, Any]:
        """Remove any one key; return (key, its value). Raises KeyNotFound when the cache is empty."""
        for key in self:
            # Somebody else may have removed it since.
            with contextlib.suppress(KeyNotFound):
                return key, self.pop(key)
        raise KeyNotFound("the cache is empty")

    def keys(self, prefix: str = "") -> KeysView[str]:
        """Return a live view of the keys that start with ``prefix``; it fetches them page by page while it is iterated."""
        return _Keys(self, prefix)

    def values(self) -> ValuesView[Any]:
        """Return a live view of all values in the cache; keys that vanish during an iteration are skipped.

        Reads through the view do not count as uses of the keys.
        """
        return _Values(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a live view of all (key, value) in the cache; keys that vanish during an iteration are skipped.

        Each pair was in the cache at some moment of the iteration. Reads through the view do not count as uses of the keys.
        """
        return _Items(self)

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyNotFound(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyNotFound(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get_item(key, peek=True) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Keys(KeysView[str]):
    _mapping: Face

    def __init__(self, face: Face, prefix: str) -> None:
        super().__init__(face)
        self._prefix = prefix

    def __iter__(self) -> Iterator[str]:
        cursor: str | None = None
        while True:
            page, cursor = self._mapping.keys_page(self._prefix, KEYS_PAGE, cursor)
            yield from page
            if not cursor:
                return

    def __len__(self) -> int:
        return len(self._mapping) if self._prefix == "" else sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.startswith(self._prefix) and key in self._mapping


class _Items(ItemsView[str, Any]):
    _mapping: Face

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key in self._mapping:
            value = self._mapping.get(key, MISSING, peek=True)
            if value is not MISSING:
                yield key, value

    def __contains__(self, pair: object) -> bool:
        key, value = pair if isinstance(pair, tuple) and len(pair) == 2 else (None, None)
        return isinstance(key, str) and self._mapping.get(key, MISSING, peek=True) == value


class _Values(ValuesView[Any]):
    _mapping: Face

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.items())

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)


class AsyncFace(abc.ABC):
    """Base class of the caches with coroutine methods; ``keys``, ``values`` and ``items`` are asynchronous iterators."""

    # The face behind this one, whose methods ``in_thread`` calls, and the threads in which it does.
    _blocking: Face
    _threads: Threads
    # What is done with keys and values on their way.
    _form: Form = PLAIN

    @abc.abstractmethod
    async def _replicate(self, command: Command) -> tuple[Result, int]:
        """Replicate ``command``, which is checked already; return (the state machine's result, the present time in ms).

        The difference between an expiry time in the result and that time is the TTL which is left.
        """

    @abc.abstractmethod
    async def get_item(
        self,
        key: str,
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
        strict: bool = False,
    ) -> Item | None:
        """Return the item under ``key``, with its version and TTL; None if the key is absent.

        Options are those of ``Face.get_item``.
        """

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
        """Return the value under ``key``, or ``default`` if it is absent. The options are those of ``get_item``."""
        item = await self.get_item(key, consistency=consistency, max_staleness=max_staleness, peek=peek, strict=strict)
        return default if item is None else item.value

    @abc.abstractmethod
    async def keys_page(
        self, prefix: str = "", limit: int = KEYS_PAGE, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        """Return one page of keys: (up to ``limit`` keys that start with ``prefix``, in order; next page's cursor or None).

        cursor: where the page begins, as returned with the page before; None for the first page.
        """

    async def get_many(
        self,
        keys: Iterable[str],
        *,
        consistency: str = "local",
        max_staleness: float | None = None,
        peek: bool = False,
    ) -> dict[str, Any]:
        """Return {key: value} of those ``keys`` that are present; the options are those of ``get_item``.

        Up to 1,000 keys whose values are no more than 64 MiB are read at one moment, between two entries of the log;
        more are read in groups, each at its own moment. Raises the errors of ``get_item``.
        """
        return await self._get_many(self._form, keys, consistency, max_staleness, peek)

    @abc.abstractmethod
    async def _get_many(
        self, form: Form, keys: Iterable[str], consistency: str, max_staleness: float | None, peek: bool
    ) -> dict[str, Any]:
        """Return {key: value} of those ``keys`` that are present, for ``get_many`` of this cache or of one that wraps it.

        form: the key prefix and serializer of the cache whose ``get_many`` was called.
        """

    async def watch(self, prefix: str = "", *, since: str | None = None) -> AsyncWatch:
        """Return an asynchronous iterator over the changes of keys that begin with ``prefix``; see ``Face.watch``."""
        check_watch(prefix, since)
        return await self._watch(self._form, prefix, since)

    async def _watch(self, form: Form, prefix: str, since: str | None) -> AsyncWatch:
        """Return an iterator over changes of keys, for a cache that wraps this one and has the key prefix of ``form``.

        prefix: how the watched keys begin in the wrapping cache.  since: the position to go on from; None: from now on.
        """
        return await AsyncWatch.begin(functools.partial(self._blocking._watch, form, prefix, since))

    set = coroutine(verbs.set_)
    add = coroutine(verbs.add)
    compare_and_set = coroutine(verbs.compare_and_set)
    delete = coroutine(verbs.delete)
    incr = coroutine(verbs.incr)
    decr = coroutine(verbs.decr)
    touch = coroutine(verbs.touch)
    persist = coroutine(verbs.persist)
    batch = coroutine(operations.batch)
    set_many = coroutine(verbs.set_many)
    update = coroutine(verbs.update)
    delete_many = coroutine(verbs.delete_many)
    delete_prefix = coroutine(verbs.delete_prefix)
    clear = coroutine(verbs.clear)
    pop = coroutine(verbs.pop)
    setdefault = coroutine(verbs.setdefault)

    async def popitem(self) -> tuple[str, Any]:
        """Remove any one key; return (key, its value). Raises KeyNotFound when the cache is empty."""
        async for key in self.keys():
            # Somebody else may have removed it since.
            with contextlib.suppress(KeyNotFound):
                return key, await self.pop(key)
        raise KeyNotFound("the cache is empty")

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the cache's keys that start with ``prefix``, fetched page by page."""
        cursor: str | None = None
        while True:
            page, cursor = await self.keys_page(prefix, KEYS_PAGE, cursor)
            for key in page:
                yield key
            if not cursor:
                return

    async def values(self) -> AsyncIterator[Any]:
        """Yield all values in the cache; keys that vanish meanwhile are skipped.

        The reads do not count as uses of the keys.
        """
        async for _, value in self.items():
            yield value

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield all (key, value) in the cache; keys that vanish meanwhile are skipped.

        The reads do not count as uses of the keys.
        """
        async for key in self.keys():
            value = await self.get(key, MISSING, peek=True)
            if value is not MISSING:
                yield key, value

    def __aiter__(self) -> AsyncIterator[str]:
        return self.keys()
