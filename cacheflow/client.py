"""CacheClient: a cluster over HTTP, with the verbs of the embedded store.

Every write carries an Idempotency-Key of its own, the same on every retry: a write whose connection broke is sent again
and never counts twice. How nodes are chosen and retried is the business of ``failover``.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import math
import secrets
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
)
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import quote, urlencode

from cacheflow import values
from cacheflow.errors import InvalidRequest, KeyNotFound, PreconditionFailed
from cacheflow.failover import Answer, Nodes, Request, check_is_ours, error_of, problem_of
from cacheflow.results import Item, SetResult

# A node waits 10 s for an outcome (--request-timeout); the rest is for the way and for one more node.
TIMEOUT_S_DEFAULT: Final = 15.0
KEYS_PAGE: Final = 1000
# One batch is one log entry: larger ones make every other write wait.
BATCH_OPS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 512 * 1024

P = ParamSpec("P")
R = TypeVar("R")
_MISSING: Final = object()


class CacheClient(MutableMapping[str, Any]):
    """A replicated cache behind HTTP, as a mapping and as verbs. Safe for concurrent use, also after a fork.

    urls: one or more nodes.  timeout_s: for a whole call, fail-over included.  token: what the nodes' --api-token-file
    holds.  Values are str, bytes or anything JSON can hold; keys are str.
    Raises NotCommitted (certainly not applied), OutcomeUnknown (a write that may have been), InvalidRequest.
    """

    def __init__(
        self, urls: str | Iterable[str], timeout_s: float = TIMEOUT_S_DEFAULT, token: str | None = None
    ) -> None:
        if not 0 < timeout_s < math.inf:
            raise InvalidRequest(f"timeout_s = {timeout_s!r}: must be above 0")
        self._nodes = Nodes([urls] if isinstance(urls, str) else list(urls), timeout_s)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def urls(self) -> list[str]:
        """The nodes' addresses, in the order given."""
        return self._nodes.urls

    # Reading

    def get(
        self,
        key: str,
        default: Any = None,
        *,
        consistency: str | None = None,
        max_staleness: float | None = None,
        peek: bool = False,
    ) -> Any:
        """The value, or ``default``. See ``get_item`` for the options."""
        document = self._read(key, consistency, max_staleness, peek)
        return default if document is None else _value(document)

    def get_item(
        self, key: str, *, consistency: str | None = None, max_staleness: float | None = None, peek: bool = False
    ) -> Item | None:
        """The entry with its version and TTL, or None.

        consistency: local (the default), bounded (with max_staleness in seconds) or linearizable.
        peek: does not count as a use.
        """
        document = self._read(key, consistency, max_staleness, peek)
        if document is None:
            return None
        kind, data = values.encode(_value(document))
        return Item(key, data, kind, document.get("content_type"), document["version"], document.get("ttl"))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those ``keys`` that are there."""
        found: dict[str, Any] = {}
        for result in self._batches({"op": "get", "key": key} for key in keys):
            if _succeeded(result):
                found[result["key"]] = result["value"]
        return found

    def keys(self, prefix: str = "") -> KeysView[str]:
        """A live view of the keys that start with ``prefix``, fetched page by page while it is iterated."""
        return _Keys(self, prefix)

    def items(self) -> ItemsView[str, Any]:
        """A live view; a key that vanishes while the view is iterated is left out."""
        return _Items(self)

    def __getitem__(self, key: str) -> Any:
        document = self._read(key)
        if document is None:
            raise KeyNotFound(key)
        return _value(document)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._read(key, peek=True, method="HEAD") is not None

    def __iter__(self) -> Iterator[str]:
        return self._pages("")

    def __len__(self) -> int:
        return sum(1 for _ in self._pages(""))

    # Writing

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        keep_ttl: bool = False,
        only_if_absent: bool = False,
        only_if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> SetResult:
        """Replicate ``key = value``; returns once a majority has it.

        ttl: seconds > 0; None keeps it until evicted, or what the key has with keep_ttl.
        idempotency_key: one of your own, so that also another process may send the same write again.
        Raises PreconditionFailed, ValueTooLarge, InvalidRequest, NotCommitted, OutcomeUnknown.
        """
        if keep_ttl and ttl is not None:
            raise InvalidRequest("give ttl or keep_ttl, not both")
        if only_if_absent and only_if_version is not None:
            raise InvalidRequest("give only_if_absent or only_if_version, not both")
        ttl = _checked_ttl(ttl)
        headers = {}
        if only_if_absent:
            headers["If-None-Match"] = "*"
        if only_if_version is not None:
            headers["If-Match"] = f'"{only_if_version}"'
        kind, data = values.encode(value)
        query: dict[str, Any] = {"keep_ttl": keep_ttl or None}
        if kind == values.BYTES:
            headers["Content-Type"] = "application/octet-stream"
            query["ttl"] = ttl
        else:
            shown = data if kind == values.JSON else json.dumps(value).encode()
            data = b'{"value":' + shown + (b"}" if ttl is None else b',"ttl":%s}' % json.dumps(ttl).encode())
        target = _target(key) + _query(**query)
        answer = self._write("PUT", target, data, headers, idempotency_key)
        document = answer.json()
        return SetResult(document["version"], answer.status == 201, document.get("ttl"))

    def add(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """Set ``key`` if it is absent; whether it was."""
        try:
            self.set(key, value, ttl=ttl, only_if_absent=True)
        except PreconditionFailed:
            return False
        return True

    def compare_and_set(self, key: str, value: Any, *, version: int, ttl: float | None = None) -> SetResult:
        """Set ``key`` if its version is still ``version``. Raises PreconditionFailed, with the present version."""
        return self.set(key, value, ttl=ttl, only_if_version=version)

    def delete(self, key: str) -> bool:
        """Remove ``key``; whether it was there."""
        return self._found("DELETE", _target(key))

    def incr(self, key: str, delta: int = 1, *, initial: int | None = None, ttl: float | None = None) -> int:
        """Add ``delta`` and return the sum; an absent key becomes ``initial + delta`` with ``ttl``.

        Raises KeyNotFound (absent and no initial), NotAnInteger.
        """
        body = {"delta": delta, "initial": initial, "ttl": _checked_ttl(ttl)}
        body = {name: given for name, given in body.items() if given is not None}
        answer = self._write("POST", _target(key) + "/incr", json.dumps(body).encode())
        return int(answer.json()["value"])

    def decr(self, key: str, delta: int = 1, *, initial: int | None = None, ttl: float | None = None) -> int:
        """Subtract ``delta``; otherwise as ``incr``."""
        return self.incr(key, -delta, initial=initial, ttl=ttl)

    def touch(self, key: str, ttl: float | None) -> bool:
        """Give ``key`` a new TTL in seconds (None: for ever); whether it is there."""
        body = json.dumps({"ttl": _checked_ttl(ttl)}).encode()
        return self._found("POST", _target(key) + "/touch", body)

    def persist(self, key: str) -> bool:
        """Take the TTL of ``key`` away; whether the key is there."""
        return self.touch(key, None)

    def batch(self, ops: Iterable[Mapping[str, Any]], atomic: bool = False) -> list[dict[str, Any]]:
        """Several operations as one log entry; with ``atomic`` all or none. The answer has one result an operation.

        ops: ``{"op": "set", "key": "k", "value": any, "ttl": 5}``, or get, delete, incr, touch, cas, add.
        """
        body = json.dumps({"ops": [_op(op) for op in ops], "atomic": atomic}).encode()
        results: list[dict[str, Any]] = self._write("POST", "/cache/_batch", body).json()["results"]
        for result in results:
            if "value" in result:
                result["value"] = _value(result)
        return results

    def set_many(self, mapping: Mapping[str, Any], ttl: float | None = None) -> None:
        """Set every key of ``mapping``, in as few log entries as their size allows. Raises the first failure."""
        ttl = _checked_ttl(ttl)
        ops = ({"op": "set", "key": key, "value": value, "ttl": ttl} for key, value in mapping.items())
        for result in self._batches(ops):
            if not _succeeded(result):
                raise error_of(result["status"], result, "a write of set_many failed")

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove ``keys``; how many were there."""
        return sum(_succeeded(result) for result in self._batches({"op": "delete", "key": key} for key in keys))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with ``prefix``, as one write; how many there were."""
        if not prefix:
            raise InvalidRequest("the prefix is empty: clear() removes every key")
        return int(self._write("DELETE", "/cache" + _query(prefix=prefix)).json()["deleted"])

    def clear(self) -> None:
        """Remove every key, as one write."""
        self._write("DELETE", "/cache?all=true")

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove ``key`` and return its value, in one step: of several callers one gets it."""
        while (item := self.get_item(key, consistency="linearizable")) is not None:
            try:
                if self._found("DELETE", _target(key), headers={"If-Match": f'"{item.version}"'}):
                    return item.value
            except PreconditionFailed:
                continue  # written in between: take the newer value
        if default is _MISSING:
            raise KeyNotFound(key)
        return default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, after setting it to ``default`` if it is absent."""
        while (value := self.get(key, _MISSING, consistency="linearizable")) is _MISSING:
            if self.add(key, default):
                return default
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyNotFound(key)

    # The cluster

    def nodes(self) -> list[dict[str, Any]]:
        """The members as the answering node knows them."""
        found: list[dict[str, Any]] = self._get("/nodes/list")
        return found

    def status(self) -> dict[str, Any]:
        """Leader, term, indexes and lag."""
        found: dict[str, Any] = self._get("/cluster/status")
        return found

    def digest(self, *, index: int | None = None, full: bool = False) -> dict[str, Any]:
        """The digest over effects, now or at ``index``; with ``full`` over the whole contents."""
        found: dict[str, Any] = self._get("/cluster/digest" + _query(index=index, full=full or None))
        return found

    def remove_node(self, node_id: str) -> None:
        """Take a member out of the cluster. Raises MemberUnknown, MemberConflict (it cannot be spared now).

        A call that was sent twice because its first answer got lost may find no such member any more.
        """
        self._write("DELETE", "/nodes/" + quote(node_id, safe=""))

    def close(self) -> None:
        """Close idle connections; the client stays usable."""
        self._nodes.close()

    def __enter__(self) -> CacheClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # On the wire

    def _read(
        self,
        key: str,
        consistency: str | None = None,
        max_staleness: float | None = None,
        peek: bool = False,
        method: str = "GET",
    ) -> dict[str, Any] | None:
        query = _query(consistency=consistency, max_staleness=max_staleness, peek=peek or None)
        answer = self._nodes.call(Request(method, _target(key) + query, None, self._headers, write=False))
        if answer.status == 404:
            check_is_ours(answer)
            return None
        if answer.status != 200:
            raise problem_of(answer)
        document: dict[str, Any] = {} if method == "HEAD" else answer.json()
        return document

    def _get(self, target: str) -> Any:
        answer = self._nodes.call(Request("GET", target, None, self._headers, write=False))
        if answer.status != 200:
            raise problem_of(answer)
        return answer.json()

    def _write(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
        idempotency_key: str | None = None,
    ) -> Answer:
        sent = {"Content-Type": "application/json", **headers} if body is not None else dict(headers)
        sent |= self._headers
        if idempotency_key is not None and not (idempotency_key.isascii() and idempotency_key.isprintable()):
            raise InvalidRequest("an idempotency key is printable ASCII: it travels as a header")
        sent["Idempotency-Key"] = idempotency_key or secrets.token_hex(16)
        answer = self._nodes.call(Request(method, target, body, sent, write=True))
        if answer.status >= 300:
            raise problem_of(answer)
        return answer

    def _found(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
    ) -> bool:
        try:
            self._write(method, target, body, headers)
        except KeyNotFound:
            return False
        return True

    def _batches(self, ops: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        group: list[Mapping[str, Any]] = []
        size = 0
        for op in ops:
            group.append(op)
            value = op.get("value", "")
            size += len(value) if isinstance(value, (str, bytes)) else len(values.encode(value)[1])
            if len(group) >= BATCH_OPS_MAX or size >= BATCH_BYTES_MAX:
                yield from self.batch(group)
                group, size = [], 0
        if group:
            yield from self.batch(group)

    def _pages(self, prefix: str) -> Iterator[str]:
        cursor: str | None = None
        while True:
            page = self._get("/cache" + _query(prefix=prefix or None, limit=KEYS_PAGE, cursor=cursor))
            yield from page["keys"]
            cursor = page.get("cursor")
            if not cursor:
                return


class _Keys(KeysView[str]):
    def __init__(self, client: CacheClient, prefix: str) -> None:
        super().__init__(client)
        self._client = client
        self._prefix = prefix

    def __iter__(self) -> Iterator[str]:
        return self._client._pages(self._prefix)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.startswith(self._prefix) and key in self._client


class _Items(ItemsView[str, Any]):
    def __init__(self, client: CacheClient) -> None:
        super().__init__(client)
        self._client = client

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key in self._client:
            value = self._client.get(key, _MISSING, peek=True)
            if value is not _MISSING:
                yield key, value


def _in_thread(
    method: Callable[Concatenate[CacheClient, P], R],
) -> Callable[Concatenate[AsyncCacheClient, P], Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def call(self: AsyncCacheClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self._client, *args, **kwargs)

    return call


class AsyncCacheClient:
    """CacheClient for asyncio: the same verbs as coroutines, each run in a thread of the loop's default executor."""

    def __init__(
        self, urls: str | Iterable[str], timeout_s: float = TIMEOUT_S_DEFAULT, token: str | None = None
    ) -> None:
        self._client = CacheClient(urls, timeout_s, token)

    get = _in_thread(CacheClient.get)
    get_item = _in_thread(CacheClient.get_item)
    get_many = _in_thread(CacheClient.get_many)
    set = _in_thread(CacheClient.set)
    add = _in_thread(CacheClient.add)
    compare_and_set = _in_thread(CacheClient.compare_and_set)
    delete = _in_thread(CacheClient.delete)
    incr = _in_thread(CacheClient.incr)
    decr = _in_thread(CacheClient.decr)
    touch = _in_thread(CacheClient.touch)
    persist = _in_thread(CacheClient.persist)
    batch = _in_thread(CacheClient.batch)
    set_many = _in_thread(CacheClient.set_many)
    delete_many = _in_thread(CacheClient.delete_many)
    delete_prefix = _in_thread(CacheClient.delete_prefix)
    clear = _in_thread(CacheClient.clear)
    pop = _in_thread(CacheClient.pop)
    setdefault = _in_thread(CacheClient.setdefault)
    nodes = _in_thread(CacheClient.nodes)
    status = _in_thread(CacheClient.status)
    digest = _in_thread(CacheClient.digest)
    remove_node = _in_thread(CacheClient.remove_node)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that start with ``prefix``, fetched page by page."""
        pages = self._client._pages(prefix)
        while (key := await asyncio.to_thread(next, pages, None)) is not None:
            yield key

    async def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    async def __aenter__(self) -> AsyncCacheClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _target(key: str) -> str:
    return "/cache/" + quote(values.check_key(key), safe="")


def _query(**options: Any) -> str:
    given = {name: _query_value(value) for name, value in options.items() if value is not None}
    return "?" + urlencode(given) if given else ""


def _query_value(value: Any) -> Any:
    if value is True:
        return "true"
    # Microseconds: a float's 17 digits are more than a node takes.
    return max(round(value, 6), 1e-6) if isinstance(value, float) else value


def _checked_ttl(ttl: float | None) -> float | None:
    if ttl is None or (isinstance(ttl, (int, float)) and 0 < ttl < math.inf):
        return ttl
    raise InvalidRequest(f"ttl = {ttl!r}: must be seconds above 0, or None")


def _value(document: Mapping[str, Any]) -> Any:
    value = document["value"]
    return base64.b64decode(value) if document.get("encoding") == "base64" else value


def _op(op: Mapping[str, Any]) -> dict[str, Any]:
    # None is "not given", but a value may be null, and touch takes null for "for ever".
    kept = ("value", "ttl") if op.get("op") == "touch" else ("value",)
    sent = {name: given for name, given in op.items() if given is not None or name in kept}
    if "key" in sent:
        values.check_key(sent["key"])
    if "value" in sent:
        kind, data = values.encode(sent["value"])
        if kind == values.BYTES:
            sent |= {"value": base64.b64encode(data).decode(), "encoding": "base64"}
    return sent


def _succeeded(result: Mapping[str, Any]) -> bool:
    return result.get("status") in (200, 201)
