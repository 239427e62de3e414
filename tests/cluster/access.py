"""One client's way to one node, over HTTP or in this process, with the same calls and the same three bad ends.

Refused: certainly not done.  Unknown: it may have been done (504, or the connection was lost).  Broken: an answer that
no node may give.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from cluster.connection import Answer, path_of
from cluster.processes import NodeProcess

from cacheflow.errors import NotCommitted, OutcomeUnknown, PreconditionFailed
from cacheflow.store import ReplicatedStore

T = TypeVar("T")

# A node answers after its request timeout at the latest; the rest is for a paused process and a busy machine.
SILENCE_S = 25.0


class Refused(Exception):
    """The call was certainly not carried out."""


class Unknown(Exception):
    """The call may have been carried out."""


class Broken(Exception):
    """A node gave an answer that no node may give."""


class Access(Protocol):
    """The calls of one client to one node, used by one thread. name: the node's.  version: of the key, 0 when it is absent."""

    name: str

    def get(self, key: str, *, linearizable: bool) -> tuple[str | int | None, int]:
        """Return (value, version) of a key."""

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """Write a key."""

    def cas(self, key: str, value: str, version: int) -> bool:
        """Write a key if it has this version; return whether it had."""

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it was there."""

    def incr(self, key: str) -> int:
        """Add 1 to a counter and return it; the first call makes it 1."""

    def close(self) -> None:
        """Give back the connection or whatever else is held."""


class HttpAccess:
    """The calls over one connection to a node's HTTP API. Nothing is sent twice."""

    def __init__(self, node: NodeProcess) -> None:
        self.name = node.node_id
        self._connection = node.connect(SILENCE_S)

    def get(self, key: str, *, linearizable: bool) -> tuple[str | int | None, int]:
        """See ``Access``."""
        query = "?consistency=linearizable" if linearizable else ""
        answer = self._ask("GET", path_of(key, query), (200, 404))
        return (answer.body["value"], answer.body["version"]) if answer.status == 200 else (None, 0)

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """See ``Access``."""
        body = {"value": value} if ttl_s is None else {"value": value, "ttl": ttl_s}
        self._ask("PUT", path_of(key), (200, 201), body)

    def cas(self, key: str, value: str, version: int) -> bool:
        """See ``Access``."""
        when = {"If-Match": f'"{version}"'} if version else {"If-None-Match": "*"}
        return self._ask("PUT", path_of(key), (200, 201, 412), {"value": value}, when).status != 412

    def delete(self, key: str) -> bool:
        """See ``Access``."""
        return self._ask("DELETE", path_of(key), (200, 204, 404)).status != 404

    def incr(self, key: str) -> int:
        """See ``Access``."""
        number: int = self._ask("POST", f"{path_of(key)}/incr", (200,), {"delta": 1, "initial": 0}).body["value"]
        return number

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(
        self, method: str, path: str, good: tuple[int, ...], body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        try:
            self._connection.open()
        except OSError as error:
            raise Refused(str(error)) from None
        try:
            answer = self._connection.request(method, path, body, headers)
        except TimeoutError:
            raise Broken(f"{self.name} does not answer {method} {path} within {SILENCE_S:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unknown(str(error)) from None
        if answer.status in good:
            return answer
        if answer.status == 503:
            raise Refused(str(answer.body))
        if answer.status == 504:
            raise Unknown(str(answer.body))
        raise Broken(f"{self.name} answers {method} {path} with {answer.status} {answer.body}")


class EmbeddedAccess:
    """The calls to a member in this process. store: returns its present store, since a member may be opened again."""

    def __init__(self, name: str, store: Callable[[], ReplicatedStore]) -> None:
        self.name = name
        self._store = store

    def get(self, key: str, *, linearizable: bool) -> tuple[str | int | None, int]:
        """See ``Access``."""
        level = "linearizable" if linearizable else "local"
        item = self._call(lambda store: store.get_item(key, consistency=level))
        return (item.value, item.version) if item is not None else (None, 0)

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """See ``Access``."""
        self._call(lambda store: store.set(key, value, ttl=ttl_s))

    def cas(self, key: str, value: str, version: int) -> bool:
        """See ``Access``."""

        def write(store: ReplicatedStore) -> bool:
            try:
                store.set(key, value, only_if_absent=not version, only_if_version=version or None)
            except PreconditionFailed:
                return False
            return True

        return self._call(write)

    def delete(self, key: str) -> bool:
        """See ``Access``."""
        return self._call(lambda store: store.delete(key))

    def incr(self, key: str) -> int:
        """See ``Access``."""
        return self._call(lambda store: int(store.incr(key, initial=0)))

    def close(self) -> None:
        """The store is another's."""

    def _call(self, what: Callable[[ReplicatedStore], T]) -> T:
        try:
            return what(self._store())
        except NotCommitted as error:
            raise Refused(str(error)) from None
        except OutcomeUnknown as error:
            raise Unknown(str(error)) from None
        except Exception as error:
            raise Broken(f"{self.name} raises {error!r}") from error
