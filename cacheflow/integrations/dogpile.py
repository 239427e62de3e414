"""CacheFlowBackend for dogpile.cache: regions whose values live in a CacheFlow cluster, and locks that hold in all of it.

region = make_region().configure(
    "cacheflow",
    expiration_time=300,
    arguments={"urls": ["http://127.0.0.1:8080", "http://127.0.0.1:8081"], "distributed_lock": True},
)
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex

from cacheflow.errors import ConfigError, PreconditionFailed
from cacheflow.integrations.keys import storable
from cacheflow.opening.blocking import open_cache

# Seconds after which a lock is free again when its holder was killed: more than making a value should take.
LEASE_S_DEFAULT: Final = 60.0
# Seconds between two looks at a lock that another process holds, at first and at most.
LOOK_S_MIN: Final = 0.005
LOOK_S_MAX: Final = 0.1
# Arguments that go to open_cache as they are; dogpile.cache's other arguments, of whatever kind, are none of ours.
_OPTIONS: Final = ("key_prefix", "version", "timeout", "token", "token_file", "ca", "discover")


class CacheFlowBackend(BytesBackend):
    """A back end of dogpile.cache in a CacheFlow cluster. Safe for concurrent use, also after a fork.

    Arguments: ``urls``, as ``cacheflow.open_cache`` takes them, and its options ``key_prefix``, ``version``, ``timeout``,
    ``token``, ``token_file``, ``ca`` and ``discover``.
    ``cacheflow_expiration_time``: seconds after which the cluster drops a value; more than the region's expiration_time,
    which decides when a value is made anew. Without it values stay until they are evicted.
    ``distributed_lock``: make a value once in the whole cluster; without it, once in each process.
    ``lock_timeout``: seconds after which such a lock is free in any case; a creator that takes longer may have company.
    When no node answers, ``cacheflow.ReplicationError`` is raised after ``timeout`` seconds, as by dogpile's Redis back end.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        urls = arguments.get("urls")
        if not urls:
            raise ConfigError('the argument "urls" is missing: give the HTTP addresses of the cluster\'s nodes')
        options = {name: arguments[name] for name in _OPTIONS if name in arguments}
        self._cache = open_cache(urls, serializer=None, **options)
        self._ttl = arguments.get("cacheflow_expiration_time") or None
        self._locks = bool(arguments.get("distributed_lock"))
        self._lease_s = arguments.get("lock_timeout") or LEASE_S_DEFAULT
        self.key_mangler = storable

    def has_lock_timeout(self) -> bool:
        """Return whether a lock of this back end may become free before its holder releases it."""
        return self._locks

    def get_mutex(self, key: str) -> CacheMutex | None:
        """Return the lock of ``key`` in the cluster; None without ``distributed_lock``: dogpile then uses its own locks."""
        return Mutex(self._cache, storable(f"lock:{key}"), self._lease_s) if self._locks else None

    def get_serialized(self, key: str) -> Any:
        """Return the bytes under ``key``; dogpile's NO_VALUE if the key is absent."""
        return _bytes_or_none(self._cache.get(key))

    def get_serialized_multi(self, keys: Iterable[str]) -> list[Any]:
        """Return the bytes under each of ``keys``, in this order, NO_VALUE for each absent key, by one request."""
        wanted = list(keys)
        found = self._cache.get_many(wanted) if wanted else {}
        return [_bytes_or_none(found.get(key)) for key in wanted]

    def set_serialized(self, key: str, value: bytes) -> None:
        """Write ``key = value``; the value is bytes that dogpile has serialized."""
        self._cache.set(key, value, ttl=self._ttl)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        """Write the keys and values of ``mapping`` in one request; the values are bytes."""
        if mapping:
            self._cache.set_many(mapping, ttl=self._ttl)

    def delete(self, key: str) -> None:
        """Remove ``key``, which may be absent."""
        self._cache.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Remove ``keys``, which may be absent, in one request."""
        self._cache.delete_many(keys)


def _bytes_or_none(value: Any) -> Any:
    # Somebody else may have written a text or a number there.
    return value if isinstance(value, bytes) else NO_VALUE


class Mutex(CacheMutex):
    """A lock in the cluster: whoever adds the lock's key holds it, until the key expires or the holder removes it.

    A holder that is killed, or cannot reach the cluster to release the lock, has it for ``lease_s`` seconds and no longer.
    Threads that share this object wait for each other, and one at a time asks the cluster for the lock.
    """

    def __init__(self, cache: Any, key: str, lease_s: float) -> None:
        self._cache = cache
        self._key = key
        self._lease_s = lease_s
        # Held by the thread that has the lock in the cluster, or waits for it. A thread may release another one's.
        self._here = threading.Lock()
        # The version of the key that the holder added: nobody else's lock has it.
        self._version = 0

    def acquire(self, wait: bool = True) -> bool:
        """Take this lock, if ``wait`` is true after waiting as long as it takes; return whether the lock was taken."""
        if not self._here.acquire(wait):
            return False
        try:
            taken = self._added()
            pause_s = LOOK_S_MIN
            while wait and not taken:
                # Looking costs a node's memory a read; only who finds the lock free asks for it again.
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LOOK_S_MAX)
                taken = not self.locked() and self._added()
        except BaseException:
            self._here.release()
            raise
        if not taken:
            self._here.release()
        return taken

    def release(self) -> None:
        """Release this lock. If its lease has ended meanwhile nothing is removed, as somebody else may have the lock now.

        Raises RuntimeError if no thread of this process holds the lock.
        """
        version, self._version = self._version, 0
        if not version:
            raise RuntimeError("the lock is not held")
        try:
            self._cache.delete(self._key, only_if_version=version)
        except PreconditionFailed:
            pass
        finally:
            self._here.release()

    def locked(self) -> bool:
        """Return whether somebody in the cluster has the lock now."""
        return self._key in self._cache

    def _added(self) -> bool:
        holder = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
        try:
            result = self._cache.set(self._key, holder, ttl=self._lease_s, only_if_absent=True)
        except PreconditionFailed:
            return False
        self._version = result.version
        return True
