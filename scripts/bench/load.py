"""The load generator in Python: keep-alive HTTP connections on one event loop, requests built beforehand.

It shares the cores with the nodes, so a reply costs one parse of the status and the length, and one callback.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cacheflow.cli.bench import percentile

# Longer than any --request-timeout of the rows: what takes longer hangs.
ANSWER_TIMEOUT_S = 30.0


class Reply(NamedTuple):
    """One answer. Status 0: the connection was cut while it was awaited."""

    status: int
    head: bytes
    body: bytes
    took_s: float

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """A header's value, or None."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    @property
    def turned_away(self) -> bool:
        """503 with Retry-After: the one refusal that overload may cause."""
        return self.status == 503 and b"\r\nretry-after:" in self.head.lower()


Done = Callable[[Reply], None]


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: Done | None = None
        self._sent_at = 0.0
        self._received = b""
        self._body_from = 0
        self._needed = 0

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Raises OSError when nobody listens."""
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        _, connection = await asyncio.get_running_loop().create_connection(cls, parts.hostname, parts.port)
        return connection

    def send(self, request: bytes, done: Done) -> None:
        """``done`` gets the reply; with status 0 when the connection is or gets cut."""
        assert self._done is None, "one request at a time"
        self._done = done
        self._sent_at = time.perf_counter()
        if self._transport is None:
            self._finish(0)
        else:
            self._transport.write(request)

    async def ask(self, request: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> Reply:
        """Send and wait. A reply of status 0 says that the connection was cut. Raises TimeoutError."""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.send(request, lambda reply: None if answered.done() else answered.set_result(reply))
        async with asyncio.timeout(timeout_s):
            return await answered

    def close(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether the other side has not closed it."""
        return self._transport is not None

    @property
    def waited_s(self) -> float:
        """How long the request under way has waited for its answer; 0 when none is."""
        return 0.0 if self._done is None else time.perf_counter() - self._sent_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        if not self._needed:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._body_from = end + 4
            self._needed = end + 4 + _content_length(received[:end])
        if len(received) >= self._needed:
            self._finish(int(received[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._done is not None:
            self._finish(0)

    def _finish(self, status: int) -> None:
        done, self._done = self._done, None
        received, self._received, self._needed = self._received, b"", 0
        if done is not None:
            took_s = time.perf_counter() - self._sent_at
            done(Reply(status, received[: self._body_from], received[self._body_from :], took_s))


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    return int(lower[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else 0


async def open_all(urls: Sequence[str], count: int) -> list[Connection]:
    """``count`` connections, spread evenly over the nodes."""
    return [await Connection.open(urls[number % len(urls)]) for number in range(count)]


@dataclass
class Tally:
    """What became of one kind of requests."""

    latencies_s: list[float] = field(default_factory=list)
    turned_away_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.latencies_s) / self.elapsed_s if self.elapsed_s else 0.0

    def note(self, reply: Reply) -> None:
        """Count it; all that is neither success nor missing nor turned away is bad."""
        self.statuses[reply.status] += 1
        if reply.status in (200, 201, 404):
            self.latencies_s.append(reply.took_s)
        elif reply.turned_away:
            self.turned_away_s.append(reply.took_s)
        elif len(self.bad) < 5:
            self.bad.append(f"{reply.status} after {reply.took_s:.2f} s: {reply.body[:200]!r}")

    def p(self, share: float) -> float:
        """A percentile of the good answers' latencies, in ms."""
        return round(percentile(sorted(self.latencies_s), share) * 1000, 2)

    @property
    def errors(self) -> int:
        """Answers that are neither good nor 503 with Retry-After, and cut connections."""
        return sum(self.statuses.values()) - len(self.latencies_s) - len(self.turned_away_s)


async def pump(
    connections: Sequence[Connection],
    requests: Iterator[bytes],
    seconds: float,
    *,
    pause_s: float = 0.0,
    note: Done | None = None,
) -> Tally:
    """Closed loops for ``seconds``, or until the requests end; then wait for what is under way.

    requests: at least one a connection.  pause_s: from an answer to the next request.  note: counts in the tally's place.
    """
    tally = Tally()
    count = note or tally.note
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = began + seconds
    finished = asyncio.Event()
    running = len(connections)

    def start(connection: Connection) -> None:
        nonlocal running

        def done(reply: Reply) -> None:
            nonlocal running
            count(reply)
            if reply.status == 0 or loop.time() >= end or (sent := next(requests, None)) is None:
                running -= 1
                if running == 0:
                    finished.set()
            elif pause_s:
                loop.call_later(pause_s, connection.send, sent, done)
            else:
                connection.send(sent, done)

        connection.send(next(requests), done)

    for connection in connections:
        start(connection)
    async with asyncio.timeout(seconds + ANSWER_TIMEOUT_S):
        await finished.wait()
    tally.elapsed_s = loop.time() - began
    return tally


# Requests --------------------------------------------------------------------------------------------------------


def request(method: str, path: str, payload: Any = None, headers: str = "") -> bytes:
    """One HTTP/1.1 request; payload: what becomes its JSON body."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}"
    if payload is None:
        return f"{head}\r\n".encode()
    body = json.dumps(payload, separators=(",", ":")).encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(key: str, query: str = "") -> bytes:
    """GET /cache/{key}."""
    return request("GET", f"/cache/{key}{query}")


def put(key: str, value: Any, ttl: float | None = None) -> bytes:
    """PUT /cache/{key}."""
    return request("PUT", f"/cache/{key}", {"value": value} if ttl is None else {"value": value, "ttl": ttl})


def batch(operations: Sequence[dict[str, Any]]) -> bytes:
    """POST /cache/_batch."""
    return request("POST", "/cache/_batch", {"ops": list(operations)})


# Many small items ------------------------------------------------------------------------------------------------

VALUE = "x" * 100
ITEMS_A_BATCH = 1_000


def key_of(number: int) -> str:
    """16 bytes; loadgen.c has the same."""
    return f"key:{number:012}"


async def fill(url: str, items: int) -> None:
    """``items`` keys with a value of 100 bytes. Raises RuntimeError when a batch fails."""
    connection = await Connection.open(url)
    for start in range(0, items, ITEMS_A_BATCH):
        numbers = range(start, min(start + ITEMS_A_BATCH, items))
        reply = await connection.ask(
            batch([{"op": "set", "key": key_of(number), "value": VALUE} for number in numbers])
        )
        if reply.status != 200:
            raise RuntimeError(f"a batch of the filling: {reply.status} {reply.body[:200]!r}")
    connection.close()
