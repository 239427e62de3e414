"""CacheMiddleware: an ASGI application's answers in a cluster, for Starlette, FastAPI and others.

    app.add_middleware(CacheMiddleware, urls=["http://127.0.0.1:8080", "http://127.0.0.1:8081"])

1. An answer is kept when its Cache-Control says so (``http_caching/rules.py``), for all processes that share the cluster.
2. A kept answer, or one that is kept now, has an ETag; a request that names it is answered 304. Nothing else of an answer changes
   but ``Age`` and ``X-Cache: hit|miss|stale``; an answer that is not kept passes as it is, chunk by chunk.
3. Within ``stale-while-revalidate`` the old answer is given at once, and one process of all asks the application again.
4. A write (any method but GET, HEAD, OPTIONS, TRACE) that succeeds removes what is kept for its URL, before it is answered.
5. A cluster that does not answer costs a request ``timeout`` seconds at most, and for a second after that none is asked but to
   remove; the application answers meanwhile, uncached. What could not be removed is logged, and is given until it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from cacheflow.errors import CacheFlowError, ValueTooLarge
from cacheflow.integrations.http_caching import records, rules
from cacheflow.integrations.http_caching.records import Answer, Variants
from cacheflow.integrations.http_caching.rules import Fields, Lifetime
from cacheflow.opening.asynchronous import open_cache

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")

# Methods that change nothing (RFC 9110, 9.2.1) and whose answers are not kept.
SAFE: Final = frozenset({"OPTIONS", "TRACE"})
# Bytes of the largest body that is kept: half of what a cluster takes for a value unless told otherwise.
BODY_BYTES_MAX: Final = 512 * 1024
# Seconds for one call of the cluster: far more than a call takes, and what a visitor may wait for nothing.
TIMEOUT_S: Final = 1.0
# Seconds without a call behind one that failed.
PAUSE_S: Final = 1.0
# Seconds in which only one process revalidates one stale answer, and which its application has for that.
LEASE_S: Final = 30.0
# Revalidations that one process makes at once; the others' answers stay stale a little longer.
REVALIDATIONS_MAX: Final = 64

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """A kept HTTP answer found in the cluster, with its key and that key's version. age_s: seconds since it was kept."""

    key: str
    version: int
    answer: Answer
    age_s: float

    def headers(self, state: str) -> Fields:
        """Return the header fields with which this kept answer is sent. state: the value of the field X-Cache."""
        age = str(self.answer.age_s + int(self.age_s)).encode()
        return [*self.answer.fields, (b"age", age), (b"x-cache", state.encode())]


class CacheMiddleware:
    """ASGI middleware that keeps an application's answers to GET and HEAD in a cluster.

    urls, options: what ``cacheflow.aio.open_cache`` takes.
    prefix: the beginning of all keys; applications that share a cluster need different ones.
    default_ttl: seconds for which an answer 200 without a lifetime is kept, if its request has no cookie; None: not at all.
    max_body_bytes: larger bodies are not kept.
    """

    def __init__(
        self,
        app: App,
        urls: str | Iterable[str],
        *,
        prefix: str = "http",
        default_ttl: int | None = None,
        max_body_bytes: int = BODY_BYTES_MAX,
        timeout: float = TIMEOUT_S,
        **options: Any,
    ) -> None:
        self.app = app
        self.client = open_cache(urls, timeout=timeout, **options)
        self._prefix = prefix
        self._default_s = default_ttl
        self.max_body_bytes = max_body_bytes
        # Before this moment of the monotonic clock the cluster is not asked.
        self._paused_until_s = 0.0
        self._revalidations: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request from the cluster or by the application; called as every ASGI application is."""
        method = scope.get("method")
        if scope["type"] != "http" or method in SAFE:
            await self.app(scope, receive, send)
        elif method in ("GET", "HEAD"):
            await self._read(scope, receive, send)
        else:
            await self._write(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = rules.lowered(scope["headers"])
        wish = rules.wish_of(asked)
        if not wish.store or any(rules.told(asked, name) is not None for name in (b"range", b"upgrade")):
            await self.app(scope, receive, send)
            return
        key = self._key(scope, asked, scope["method"])
        found = await self._ask(lambda: self._find(key, asked), None)
        if found is not None and (wish.max_age_s is None or found.answer.age_s + found.age_s <= wish.max_age_s):
            state = "hit" if found.age_s < found.answer.lifetime.fresh_s else "stale"
            if state == "stale":
                self._revalidate(scope, asked, key, found)
            await _give(found.answer, asked, found.headers(state), send)
            return
        recorder = _Recorder(self, scope["method"], asked, key, send)
        await self.app(scope, receive, recorder.send)
        await recorder.end()

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = rules.lowered(scope["headers"])

        async def removing(message: Message) -> None:
            if message["type"] == "http.response.start" and 200 <= message["status"] < 400:
                await self._remove([self._key(scope, asked, method) for method in ("GET", "HEAD")])
            await send(message)

        await self.app(scope, receive, removing)

    async def _remove(self, keys: list[str]) -> None:
        """Remove the answers that are kept under ``keys``, also in the pause that follows a failed call to the cluster.

        Nobody would remove these answers later.
        """
        try:
            await self.client.delete_many(keys)
        except CacheFlowError as error:
            logger.warning("what is kept under %s is not removed, and may be old: %s", keys[0], error)

    def _key(self, scope: Scope, asked: Fields, method: str) -> str:
        host = rules.told(asked, b"host") or ""
        path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
        return rules.key_of(self._prefix, method, scope.get("scheme", "http"), host, path, scope["query_string"])

    async def _ask(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Call ``call``, a coroutine function that asks the cluster, and return its result; ``otherwise`` if that fails.

        Shortly after a failure of any such call the cluster is not asked: ``otherwise`` is returned at once.
        """
        if time.monotonic() < self._paused_until_s:
            return otherwise
        try:
            return await call()
        except ValueTooLarge as error:
            logger.warning("an answer is not kept: %s", error)
        except CacheFlowError as error:
            if time.monotonic() >= self._paused_until_s:
                logger.warning("answers are not cached for %g s: %s", PAUSE_S, error)
                self._paused_until_s = time.monotonic() + PAUSE_S
        return otherwise

    async def _find(self, key: str, asked: Fields) -> _Found | None:
        """Return the answer that is kept under ``key`` for a request with the header fields ``asked``; None if there is none."""
        item = await self.client.get_item(key)
        record = None if item is None else records.unpacked(item.data)
        if isinstance(record, Variants):
            key = rules.variant_key(key, record.made, record.names, asked)
            item = await self.client.get_item(key)
            record = None if item is None else records.unpacked(item.data)
        if item is None or item.ttl_s is None or not isinstance(record, Answer):
            return None
        if not rules.may_see(record.lifetime.audience, asked):
            return None
        return _Found(key, item.version, record, max(0.0, record.kept_s - item.ttl_s))

    async def keep(self, key: str, asked: Fields, answer: Answer) -> None:
        """Keep ``answer``, given to a request with the header fields ``asked``, under ``key``.

        An answer with a Vary is kept under a key of its variant.
        """
        await self._ask(lambda: self._keep(key, asked, answer), None)

    async def _keep(self, key: str, asked: Fields, answer: Answer) -> None:
        names = rules.varied_by(answer.fields)
        if names:
            item = await self.client.get_item(key)
            variants = None if item is None else records.unpacked(item.data)
            if not isinstance(variants, Variants) or variants.names != names:
                variants = Variants(names, os.urandom(8))
                await self._put(key, variants, answer.kept_s)
            elif item is not None and item.ttl_s is not None and item.ttl_s < answer.kept_s:
                await self.client.touch(key, answer.kept_s)
            key = rules.variant_key(key, variants.made, names, asked)
        await self._put(key, answer, answer.kept_s)

    async def _put(self, key: str, record: Answer | Variants, ttl_s: int) -> None:
        await self.client.set(key, records.packed(record), ttl=ttl_s, content_type=records.CONTENT_TYPE)

    def lifetime_of(self, asked: Fields, status: int, fields: Fields) -> Lifetime | None:
        """Return how long an answer may be kept; None for an answer that must not be kept.

        asked, fields: the header fields of the request and of the answer.  status: the answer's HTTP status.
        """
        return rules.lifetime_of(asked, status, fields, self._default_s)

    # A stale answer

    def _revalidate(self, scope: Scope, asked: Fields, key: str, found: _Found) -> None:
        """Have the application make a new answer in the place of the stale ``found``, in the background; not too many at once.

        Of all processes of the application one does so for each version of the stale answer.
        """
        if len(self._revalidations) < REVALIDATIONS_MAX:
            task = asyncio.get_running_loop().create_task(self._renewed(scope, asked, key, found))
            self._revalidations.add(task)
            task.add_done_callback(self._revalidations.discard)

    async def _renewed(self, scope: Scope, asked: Fields, key: str, found: _Found) -> None:
        # The lease is for this version of the answer: who comes late to an old one finds it taken, too.
        lease = f"{found.key}~{found.version}"
        if not await self._ask(lambda: self.client.add(lease, b"", ttl=LEASE_S), False):
            return
        unconditional = [field for field in asked if not field[0].startswith((b"if-", b"cache-control"))]
        recorder = _Recorder(self, scope["method"], unconditional, key, _nowhere)
        again = {**scope, "headers": unconditional, "extensions": {}}
        if "state" in scope:
            again["state"] = dict(scope["state"])
        try:
            async with asyncio.timeout(LEASE_S):
                await self.app(again, _nothing_more(), recorder.send)
        except Exception:
            logger.warning("%s could not be revalidated", found.key, exc_info=True)
            return
        if not recorder.kept and recorder.status < 500:
            # The answer of today is not to be kept, so the one of before is not to be given.
            await self._ask(lambda: self.client.delete(found.key), None)


class _Recorder:
    """Passes one HTTP answer of an application on to the client, and keeps it in the cluster.

    An answer that may be kept and whose length is known, or that comes as one piece, is passed on when it is whole, with an ETag,
    or as a 304; any other at once, piece by piece. The answer is kept before its last byte is passed on, because then the
    application may be cancelled, and a client that has the whole answer expects it to be kept.
    """

    def __init__(self, middleware: CacheMiddleware, method: str, asked: Fields, key: str, send: Send) -> None:
        self._middleware = middleware
        self._method = method
        self._asked = asked
        self._key = key
        self._send = send
        self._lifetime: Lifetime | None = None
        self._fields: Fields = []
        # What came and was not passed on yet, the start first.
        self._held: list[Message] = []
        self._body: list[bytes] = []
        self._size = 0
        # The length that the answer says it has.
        self._length: int | None = None
        self.status = 500
        self.kept = False

    async def send(self, message: Message) -> None:
        """Take ``message``, one ASGI message of the application's answer, to be passed on to the client now or later."""
        kind = message["type"]
        if kind == "http.response.start" and not self._held:
            await self._start(message)
        elif self._lifetime is None:
            await self._send(message)
        elif kind != "http.response.body":
            # An extension of the server's, which sends a file by itself, or more behind the body.
            await self._pass_on()
            await self._send(message)
        else:
            await self._part(message)

    async def end(self) -> None:
        """Send the client the messages that are held back, as the application has ended without completing its answer."""
        await self._pass_on()

    async def _start(self, message: Message) -> None:
        self.status, self._fields = message["status"], rules.lowered(message.get("headers", ()))
        said = rules.told(self._fields, b"content-length")
        self._length = None if said is None else rules.seconds(said)
        self._lifetime = self._middleware.lifetime_of(self._asked, self.status, self._fields)
        large = self._method != "HEAD" and (self._length or 0) > self._middleware.max_body_bytes
        if self._lifetime is None or large or message.get("trailers"):
            self._lifetime = None
            await self._send(message)
        else:
            self._held.append({**message, "headers": [*self._fields, (b"x-cache", b"miss")]})

    async def _part(self, message: Message) -> None:
        # An answer to HEAD has no body, whatever an application makes.
        body = b"" if self._method == "HEAD" else message.get("body", b"")
        more = message.get("more_body", False)
        self._body.append(body)
        self._size += len(body)
        if self._size > self._middleware.max_body_bytes:
            await self._pass_on()
            await self._send(message)
        elif not more and self._held:
            await self._whole()
        elif not self._held or self._length is None:
            await self._flush()
            if not more:
                await self._keep(self._answer())
            await self._send(message)
        else:
            self._held.append(message)

    async def _whole(self) -> None:
        """Keep the application's answer, which is complete, in the cluster, and send it to the client."""
        answer = self._answer()
        self._held.clear()
        await self._keep(answer)
        await _give(answer, self._asked, [*answer.fields, (b"x-cache", b"miss")], self._send)

    def _answer(self) -> Answer:
        assert self._lifetime is not None
        body = b"".join(self._body)
        fields = [field for field in self._fields if field[0] not in rules.DROPPED]
        if self._method == "GET" and self.status == 200:
            if rules.told(fields, b"etag") is None:
                fields.append((b"etag", rules.tag_of(body).encode()))
            if self._length is None:
                fields.append((b"content-length", str(len(body)).encode()))
        return Answer(self.status, fields, body, self._lifetime, rules.seconds(rules.told(self._fields, b"age") or ""))

    async def _keep(self, answer: Answer) -> None:
        whole = self._method == "HEAD" or self._length in (None, len(answer.body))
        if whole:
            self.kept = True
            await self._middleware.keep(self._key, self._asked, answer)

    async def _pass_on(self) -> None:
        """Send the client what is held back of the application's answer, and do not keep that answer in the cluster."""
        self._lifetime = None
        self._body.clear()
        await self._flush()

    async def _flush(self) -> None:
        held, self._held = self._held, []
        for message in held:
            await self._send(message)


async def _give(answer: Answer, asked: Fields, headers: Fields, send: Send) -> None:
    """Send the kept ``answer`` with ``headers`` to a client; send 304 if the client has the same answer already.

    asked: the header fields of the client's request.
    """
    status, body = answer.status, answer.body
    if status == 200 and rules.is_the_same(asked, answer.fields):
        told = rules.TOLD_BY_304 | {b"age", b"x-cache"}
        status, body, headers = 304, b"", [field for field in headers if field[0] in told]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _nowhere(message: Message) -> None:
    """Do nothing with ``message``, a part of an answer that no client waits for."""


def _nothing_more() -> Receive:
    """Return an ASGI ``receive`` for a request without a body, whose client never disconnects."""
    waiting: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        never: Message = await asyncio.get_running_loop().create_future()
        return never

    return receive
