"""CacheFlowCache: Django's cache on a CacheFlow cluster.

    CACHES = {
        "default": {
            "BACKEND": "cacheflow.integrations.django.CacheFlowCache",
            "LOCATION": ["http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:8082"],
        }
    }

1. Django makes the keys (KEY_PREFIX, VERSION, KEY_FUNCTION) and chooses the timeouts; a key is sent as Django has made it.
2. Each method exists once, as a generator of steps: a call of the cache, or a pause. The method that blocks runs the steps on a
   client of this process, the coroutine (``aget`` ...) on that client's asyncio twin. Neither belongs to a thread or a loop.
3. Django makes a CacheFlowCache for every thread and every asynchronous request; all with the same settings share one client,
   whose connections outlive the request.
4. When no node answers, methods raise ``cacheflow.ReplicationError``, at the latest after OPTIONS["timeout"] seconds, as Django's
   Redis back end raises its library's error.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheKey, default_key_func
from django.core.exceptions import ImproperlyConfigured

from cacheflow import values
from cacheflow.arguments import TTL_S_MAX
from cacheflow.errors import CacheFlowError, InvalidRequest, KeyNotFound, NotAnInteger, PreconditionFailed
from cacheflow.opening import asynchronous, blocking

# Seconds that get_or_set's function may take before another caller computes, too: longer than a page should take to make, and
# as long as the others wait for a process that has died.
LEASE_S_DEFAULT: Final = 30.0
# Seconds between two looks at a value that another caller is computing: doubled after each look, up to PAUSE_S_MAX.
PAUSE_S_FIRST: Final = 0.01
PAUSE_S_MAX: Final = 0.25
# Processes have a handful of caches; tests that change the settings have more.
CLIENTS_MAX: Final = 64

_MISSING: Final = object()

# A call of the cache, blocking or as a coroutine function; or the seconds of a pause.
Step: TypeAlias = Callable[[Any], Any] | float
Steps: TypeAlias = Generator[Step, Any, Any]


def _blocking(verb: Callable[..., Steps]) -> Callable[..., Any]:
    """Return a method of a Django cache that runs ``verb``, a generator of calls to the cluster, in the calling thread."""

    @functools.wraps(verb)
    def call(self: CacheFlowCache, /, *args: Any, **kwargs: Any) -> Any:
        steps = verb(self, *args, **kwargs)
        try:
            step = next(steps)
            while True:
                try:
                    found = _pause(step) if isinstance(step, float) else step(self._client)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(found)
        except StopIteration as end:
            return end.value

    call.__name__ = verb.__name__.lstrip("_")
    return call


def _coroutine(verb: Callable[..., Steps]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a coroutine method of a Django cache that runs ``verb``, a generator of calls to the cluster, under asyncio."""

    @functools.wraps(verb)
    async def call(self: CacheFlowCache, /, *args: Any, **kwargs: Any) -> Any:
        steps = verb(self, *args, **kwargs)
        try:
            step = next(steps)
            while True:
                try:
                    found = await (asyncio.sleep(step) if isinstance(step, float) else step(self._twin))
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(found)
        except StopIteration as end:
            return end.value

    call.__name__ = f"a{verb.__name__.lstrip('_')}"
    return call


def _pause(seconds: float) -> Any:
    time.sleep(seconds)


@functools.lru_cache(CLIENTS_MAX)
def _shared(
    opened_by: Callable[..., Any], location: str | tuple[str, ...], options: tuple[tuple[str, Any], ...]
) -> Any:
    """Return the CacheFlow cache that this process's Django caches with the same settings share.

    The cache is safe for all threads and event loops, and in children after a fork.
    """
    return opened_by(location if isinstance(location, str) else list(location), **dict(options))


class CacheFlowCache(BaseCache):  # type: ignore[misc]  # Django has no types
    """A Django cache in a CacheFlow cluster.

    LOCATION: the address of one node or a list of several, ``http://host:port``; or ``cacheflow://host:port,host:port``.
    OPTIONS: those of ``open_cache`` (``serializer``, "pickle" unless told; ``timeout``, the seconds of one call; ``token_file``;
    ``ca``; ``discover``), and ``compute_lease``: the seconds that a function given to ``get_or_set`` may take.
    """

    def __init__(self, location: str | Iterable[str], params: Mapping[str, Any]) -> None:
        super().__init__(params)
        if not location:
            raise ImproperlyConfigured(
                "LOCATION is needed: the address of a node, such as http://127.0.0.1:8080, or several"
            )
        if isinstance(location, str) and location.startswith("cacheflow+embedded:"):
            # Each worker would need a folder and an id of its own, and its coroutines one more.
            raise ImproperlyConfigured(
                "LOCATION names nodes that run beside this site, not one inside it: start one with cacheflow serve"
            )
        options = {"serializer": "pickle", **params.get("OPTIONS", {})}
        for name in ("key_prefix", "version"):
            if name in options:
                raise ImproperlyConfigured(f"OPTIONS has {name}: the cache's own {name.upper()} is the one that counts")
        self._lease_s = options.pop("compute_lease", LEASE_S_DEFAULT)
        if type(self._lease_s) not in (int, float) or not 0 < self._lease_s <= TTL_S_MAX:
            raise ImproperlyConfigured(f"compute_lease is a number of seconds above 0, not {self._lease_s!r}")
        self._settings = (location if isinstance(location, str) else tuple(location), tuple(sorted(options.items())))
        # Opened here, so that wrong settings are told before the first call.
        self._client = _shared(blocking.open_cache, *self._settings)

    @functools.cached_property
    def _twin(self) -> Any:
        return _shared(asynchronous.open_cache, *self._settings)

    # Keys and timeouts

    def validate_key(self, key: str) -> None:
        """Raise InvalidCacheKey for a ``key`` that no cluster takes: over 1024 bytes, or with control characters.

        Warns, as all of Django's own back ends do, of keys that memcached would not take.
        """
        try:
            values.check_key(key)
        except InvalidRequest as error:
            raise InvalidCacheKey(f"{error}: {key!r:.80}") from None
        super().validate_key(key)

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Return the TTL in seconds for a Django ``timeout``, at most ten years; None for no TTL.

        A TTL of 0 or less means that the value is not kept at all.
        """
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return None if timeout is None else min(float(timeout), float(TTL_S_MAX))

    def _keys_of(self, keys: Iterable[Any], version: Any) -> dict[str, Any]:
        return {self.make_and_validate_key(key, version=version): key for key in keys}

    # One key

    def _get(self, key: Any, default: Any = None, version: Any = None) -> Steps:
        """Return the value under ``key``, or ``default`` if it is absent."""
        made = self.make_and_validate_key(key, version=version)
        return (yield lambda cache: cache.get(made, default))

    def _set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Steps:
        """Write ``value`` under ``key``; a timeout of 0 or less removes the key."""
        made, ttl = self.make_and_validate_key(key, version=version), self.get_backend_timeout(timeout)
        if _ends_at_once(ttl):
            yield lambda cache: cache.delete(made)
            return
        with _serializer_s_own_errors():
            yield lambda cache: cache.set(made, value, ttl=ttl)

    def _add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Steps:
        """Write ``value`` only if ``key`` is absent; return whether it was absent. Of several callers one writes."""
        made, ttl = self.make_and_validate_key(key, version=version), self.get_backend_timeout(timeout)
        if _ends_at_once(ttl):
            return (yield lambda cache: cache.get_item(made, peek=True)) is None
        with _serializer_s_own_errors():
            return (yield lambda cache: cache.add(made, value, ttl=ttl))

    def _touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Steps:
        """Give ``key`` a new timeout; return whether the key is present. A timeout of 0 or less removes the key."""
        made, ttl = self.make_and_validate_key(key, version=version), self.get_backend_timeout(timeout)
        if _ends_at_once(ttl):
            return (yield lambda cache: cache.delete(made))
        return (yield lambda cache: cache.touch(made, ttl))

    def _delete(self, key: Any, version: Any = None) -> Steps:
        """Remove ``key``; return whether the key was present."""
        made = self.make_and_validate_key(key, version=version)
        return (yield lambda cache: cache.delete(made))

    def _has_key(self, key: Any, version: Any = None) -> Steps:
        """Return whether ``key`` is present, which does not count as a use of the key."""
        made = self.make_and_validate_key(key, version=version)
        return (yield lambda cache: cache.get_item(made, peek=True)) is not None

    def _incr(self, key: Any, delta: int = 1, version: Any = None) -> Steps:
        """Add ``delta``, which may be negative, to the integer under ``key`` in one command; return the sum.

        The key's timeout stays. Raises ValueError if the key is absent, TypeError if its value or the sum is no 64-bit integer.
        """
        made = self.make_and_validate_key(key, version=version)
        try:
            return int((yield lambda cache: cache.incr(made, delta)))
        except KeyNotFound:
            raise ValueError(f"Key '{key}' not found") from None
        except NotAnInteger as error:
            raise TypeError(f"Key '{key}': {error}") from None

    def _incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Steps:
        """Move the value of ``key`` from ``version`` to ``version + delta`` in one command; return that version.

        The moved value has the cache's default timeout, as with Django's own back ends. Raises ValueError if the key is absent.
        """
        if version is None:
            version = self.version
        before, after = (self.make_and_validate_key(key, version=each) for each in (version, version + delta))
        ttl = self.get_backend_timeout()
        while True:
            item = yield lambda cache: cache.get_item(before, consistency="linearizable")
            if item is None:
                raise ValueError(f"Key '{key}' not found")
            # An absent key lets a whole batch fail by a cas alone: a delete is content with it.
            moved = [{"op": "cas", "key": before, "value": 0, "version": item.version}, {"op": "delete", "key": before}]
            if not _ends_at_once(ttl):
                moved.append({"op": "set", "key": after, "value": item.value, "ttl": ttl})
            # Somebody else may have written, moved or removed the value since.
            with contextlib.suppress(PreconditionFailed):
                yield functools.partial(_batch, ops=moved)
                return version + delta

    def _get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Steps:
        """Return the value under ``key``; if it is absent, write ``default``, or what ``default()`` returns, and return that.

        Of all callers in the cluster one calls ``default``, and the others wait for the result. If that call raises an error
        or takes longer than OPTIONS["compute_lease"], each of the others calls its own ``default``.
        """
        value = yield from self._get(key, _MISSING, version)
        if value is not _MISSING:
            return value
        if not callable(default):
            return (yield from self._added(key, default, timeout, version))
        if _ends_at_once(self.get_backend_timeout(timeout)):
            return default()
        made = self.make_key(key, version=version)
        lock = self._lock_of(made)
        deadline = time.monotonic() + self._lease_s
        while (held := (yield from self._taken(lock))) is None and time.monotonic() < deadline:
            yield from self._until_free(lock, deadline)
            value = yield from self._get(key, _MISSING, version)
            if value is not _MISSING:
                return value
        try:
            # Another caller may have written it, and be faster than this node is told.
            value = yield lambda cache: cache.get(made, _MISSING, consistency="linearizable")
            return (yield from self._added(key, default(), timeout, version)) if value is _MISSING else value
        finally:
            if held is not None:
                # Without an answer, and after its lease, the lock ends by itself; the lock of another is not touched.
                with contextlib.suppress(CacheFlowError):
                    yield lambda cache: cache.delete(lock, only_if_version=held)

    def _added(self, key: Any, value: Any, timeout: Any, version: Any) -> Steps:
        """Write ``value`` under ``key`` if the key is still absent; return the key's value afterwards."""
        if (yield from self._add(key, value, timeout, version)):
            return value
        return (yield from self._get(key, value, version))

    def _lock_of(self, made: str) -> str:
        """Return the key of the lock that is held while the value under the cluster's key ``made`` is computed.

        The lock's key is short, and the cache's ``clear`` removes it.
        """
        return f"{self.key_prefix}:computing:{blake2b(made.encode(), digest_size=16).hexdigest()}"

    def _taken(self, lock: str) -> Steps:
        """Take the lock under the key ``lock`` if it is free; return the key's version, None if somebody else has the lock."""
        try:
            return (yield lambda cache: _take(cache, lock, self._lease_s)).version
        except PreconditionFailed:
            return None

    def _until_free(self, lock: str, deadline: float) -> Steps:
        """Wait until nobody holds the lock under the key ``lock``, or the ``deadline`` has come."""
        pause_s = PAUSE_S_FIRST
        while (yield lambda cache: cache.get_item(lock, peek=True)) is not None and time.monotonic() < deadline:
            yield pause_s * random.uniform(0.5, 1)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    # Several keys, in one request as long as they are not more than a batch takes

    def _get_many(self, keys: Iterable[Any], version: Any = None) -> Steps:
        """Return {key: value} of those ``keys`` that are present."""
        key_of = self._keys_of(keys, version)
        found = yield lambda cache: cache.get_many(list(key_of))
        return {key_of[made]: value for made, value in found.items()}

    def _set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Steps:
        """Write all keys and values of ``data``; return [], Django's list of failed keys, as a failure raises an error."""
        made = {self.make_and_validate_key(key, version=version): value for key, value in data.items()}
        ttl = self.get_backend_timeout(timeout)
        if _ends_at_once(ttl):
            yield lambda cache: cache.delete_many(list(made))
            return []
        with _serializer_s_own_errors():
            yield lambda cache: cache.set_many(made, ttl=ttl)
        return []

    def _delete_many(self, keys: Iterable[Any], version: Any = None) -> Steps:
        """Remove all ``keys`` from the cache."""
        made = list(self._keys_of(keys, version))
        yield lambda cache: cache.delete_many(made)

    def _clear(self) -> Steps:
        """Remove each key with this cache's KEY_PREFIX, in all versions; also of caches whose prefix is that, ":" and more.

        With a KEY_FUNCTION this cache's keys cannot be told from others: then every key of the cluster is removed.
        """
        if self.key_func is default_key_func:
            yield lambda cache: cache.delete_prefix(f"{self.key_prefix}:")
        else:
            yield lambda cache: cache.clear()

    get, aget = _blocking(_get), _coroutine(_get)
    set, aset = _blocking(_set), _coroutine(_set)
    add, aadd = _blocking(_add), _coroutine(_add)
    touch, atouch = _blocking(_touch), _coroutine(_touch)
    delete, adelete = _blocking(_delete), _coroutine(_delete)
    has_key, ahas_key = _blocking(_has_key), _coroutine(_has_key)
    incr, aincr = _blocking(_incr), _coroutine(_incr)
    incr_version, aincr_version = _blocking(_incr_version), _coroutine(_incr_version)
    get_or_set, aget_or_set = _blocking(_get_or_set), _coroutine(_get_or_set)
    get_many, aget_many = _blocking(_get_many), _coroutine(_get_many)
    set_many, aset_many = _blocking(_set_many), _coroutine(_set_many)
    delete_many, adelete_many = _blocking(_delete_many), _coroutine(_delete_many)
    clear, aclear = _blocking(_clear), _coroutine(_clear)


@contextlib.contextmanager
def _serializer_s_own_errors() -> Iterator[None]:
    """A context manager that raises a serializer's own error, such as a PicklingError, instead of an InvalidRequest."""
    try:
        yield
    except InvalidRequest as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def _batch(cache: Any, ops: list[dict[str, Any]]) -> Any:
    return cache.batch(ops, atomic=True)


def _take(cache: Any, lock: str, lease_s: float) -> Any:
    """Write the key ``lock`` into ``cache`` for ``lease_s`` seconds if it is absent.

    Returns what the cache's ``set`` returns, which is a coroutine if the cache is one for asyncio.
    """
    asked = cache.set(lock, 1, ttl=lease_s, only_if_absent=True)
    return _take_or_free(cache, lock, asked) if inspect.isawaitable(asked) else asked


async def _take_or_free(cache: Any, lock: str, asked: Any) -> Any:
    """Await ``asked``, a call that adds the key ``lock`` to ``cache``, and return its result.

    If the awaiting task is cancelled, the key ``lock`` is removed again.
    """
    task = asyncio.ensure_future(asked)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # What was sent takes the lock all the same, and nobody would give it back before its lease is over.
        with contextlib.suppress(CacheFlowError):
            await cache.delete(lock, only_if_version=(await task).version)
        raise


def _ends_at_once(ttl: float | None) -> bool:
    return ttl is not None and ttl <= 0
