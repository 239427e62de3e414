"""CacheFlowBackend: Celery's result back end ``cacheflow://host:port[,host:port…]``, chords included.

    app = Celery("app", broker="…", backend="cacheflow://127.0.0.1:8080,127.0.0.1:8081")

1. Results are read linearizably: the part of a chord that comes last, on whichever worker and node, finds what the others wrote.
2. A chord's parts are counted by one command of the log each, which counts once however often it is sent. A part that Celery
   itself runs twice is counted twice, as by its other key-value back ends. The counter knows how many parts there are: those back
   ends compare it with the number of a group's results, which is smaller where one is a group behind a chain; then a worker takes
   an earlier part for the last one and waits for the others, for ever if it is to run one of them itself.
3. No node answers: after the URL's ``timeout`` an error is raised, as by Celery's Redis back end; ``result_backend_always_retry``
   has Celery try again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import BackendStoreError
from kombu.utils.encoding import bytes_to_str

from cacheflow.errors import PreconditionFailed, ReplicationError, ValueTooLarge
from cacheflow.opening.blocking import open_cache

# What a chord's counter is when all parts have come, however many they are: more than any chord has. Before their number is known
# no part is the last.
COMPLETE: Final = 1 << 40


class CacheFlowBackend(KeyValueStoreBackend):  # type: ignore[misc]
    """A result back end of Celery: keeps each result under a key in a cluster, which expires after ``result_expires``.

    url: as ``cacheflow.open_cache`` takes it, with its options as a query, such as ``?timeout=5&token_file=/etc/token``.
    The cache client is made at the first use, and made anew by each worker process.
    """

    supports_autoexpire = True
    supports_native_join = True
    supports_failure_expires = True
    implements_incr = True
    key_t = staticmethod(bytes_to_str)

    def __init__(self, app: Any, expires: Any = None, url: str | None = None, **options: Any) -> None:
        super().__init__(app, expires_type=int, expires=expires, url=url, **options)
        failed = app.conf.get("result_failure_expires")
        self.failure_expires = self.expires if failed is None else self.prepare_expires(failed, type=int)

    @cached_property
    def client(self) -> Any:
        """The cache client that Celery's results go through, made at the first use."""
        return open_cache(self.url)

    def get(self, key: str) -> Any:
        """Return the text or bytes under ``key``, None if it is absent; sees every write that was acknowledged before."""
        return self.client.get(key, consistency="linearizable")

    def mget(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return {key: text or bytes} of those ``keys`` that are present, all read at one moment.

        Sees every write that was acknowledged before.
        """
        found: dict[str, Any] = self.client.get_many(keys, consistency="linearizable")
        return found

    def set(self, key: str, value: str | bytes) -> None:
        """Keep the result ``value`` of a task under ``key``, as long as Celery's setting ``result_expires`` says.

        Raises BackendStoreError for a result that is larger than the cluster takes.
        """
        self._keep(key, value, self.expires)

    def _set_with_state(self, key: str, value: str | bytes, state: str) -> None:
        self._keep(key, value, self.failure_expires if state == states.FAILURE else self.expires)

    def _keep(self, key: str, value: str | bytes, expires_s: int | None) -> None:
        try:
            self.client.set(key, value, ttl=expires_s or None)
        except ValueTooLarge as error:
            raise BackendStoreError(str(error)) from error

    def delete(self, key: str) -> None:
        """Remove ``key``, under which the result of a task is kept."""
        self.client.delete(key)

    def incr(self, key: str) -> int:
        """Count one more finished part of a Celery chord under ``key``; return the exact count."""
        return int(self.client.incr(key, initial=0, ttl=self.chord_expires or None))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Add COMPLETE, a large constant, minus ``chord_size``, the number of parts, to a chord's counter of finished parts.

        So the counter equals COMPLETE when the last part is counted, and not before. Celery calls this before it sends the
        last part. For a chord that Celery sends twice the number is added once.
        """
        key, rest, ttl = self.get_key_for_chord(group_id), COMPLETE - chord_size, self.chord_expires or None
        while True:
            counter = self.client.get_item(key, consistency="linearizable")
            if counter is not None and counter.value >= rest:
                return
            try:
                if counter is not None:
                    self.client.compare_and_set(key, counter.value + rest, version=counter.version, ttl=ttl)
                    return
                if self.client.add(key, rest, ttl=ttl):
                    return
            except PreconditionFailed:
                pass  # a part was counted meanwhile

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> None:
        """Count a finished part of a Celery chord; after the last part, run the chord's body."""
        if request.chord:
            request.chord = {**request.chord, "chord_size": COMPLETE}
        super().on_chord_part_return(request, state, result, **options)

    def expire(self, key: str, value: int | None) -> None:
        """Give ``key`` a new expiry, ``value`` seconds from now; None or 0 keeps the key until it is evicted."""
        self.client.touch(key, value or None)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return True if ``exc`` says that the cluster does not answer, so that Celery may safely repeat what it did."""
        return isinstance(exc, ReplicationError)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL of the cluster; without ``include_password``, asterisks replace the name and token before its hosts."""
        scheme, sign, rest = (self.url or "").partition("://")
        userinfo, at, hosts = rest.rpartition("@")
        return f"{scheme}{sign}{userinfo if include_password or not at else '**'}{at}{hosts}"

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "expires": self.expires, "url": self.url})
