"""The load generator of ``cacheflow bench``: many connections from one thread, and a report of the answers.

A worker is a generator: it yields one ``Call`` after another and gets each answer sent in. One selector drives them
all over keep-alive connections, one a worker and node. Requests are built before the clock starts, and of an answer
only the status is looked at, so that the nodes get the machine. Still plain HTTP/1.1: Host, Content-Length, the lot.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import lzma
import math
import random
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from cacheflow.config import split_url
from cacheflow.errors import InvalidRequest
from cacheflow.net.tls.trust import check_is_of_use, trusting

# Seconds without any answer after which every request under way has failed.
ANSWER_TIMEOUT_S: Final = 30.0
# Different requests built beforehand; after these they come again. Enough that no node sees a pattern.
REQUESTS_BUILT: Final = 2000
BATCHES_BUILT: Final = 100
TRACE_VALUE_BYTES: Final = 100
# The kinds of requests in a report.
READS: Final = "reads"
WRITES: Final = "writes"
# The latencies in a report, each with the share of the requests that took no longer.
LATENCIES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}


class Call(NamedTuple):
    """One HTTP request of the load generator to one node.

    node: the index of that node.  line, rest: the request's bytes before and behind the Host header.  kind: ``reads`` or
    ``writes``, as the report counts it.
    ops: how many operations the request counts for; several for a batch.
    """

    node: int
    kind: str
    line: bytes
    rest: bytes
    ops: int = 1


class Reply(NamedTuple):
    """One HTTP answer to the load generator: its status, 0 when no answer came, and its body."""

    status: int
    body: bytes


Worker = Generator[Call, Reply, None]
Progress = Callable[[int], None]


@dataclass
class Tally:
    """The outcome of all reads, or all writes, of a load test. latencies_s: the seconds of each request that succeeded."""

    latencies_s: list[float] = field(default_factory=list)
    ops: int = 0
    errors: int = 0


@dataclass
class Report:
    """The result of one load test.

    tallies: the outcome of all requests, by kind, ``reads`` or ``writes``.
    hits, misses: how many reads found their key, and how many did not.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    elapsed_s: float = 0.0
    hits: int = 0
    misses: int = 0
    first_error: str | None = None

    @property
    def hit_ratio(self) -> float:
        """The share of a load test's reads that found their key, 0 to 1; 0 when there were no reads."""
        return self.hits / max(self.hits + self.misses, 1)

    def rows(self) -> list[dict[str, float | int | str]]:
        """Return the rows of a load test's report, one for reads and one for writes: operations, rate and latencies in ms."""
        return [self._row(kind, tally) for kind, tally in sorted(self.tallies.items())]

    def _row(self, kind: str, tally: Tally) -> dict[str, float | int | str]:
        ordered = sorted(tally.latencies_s)
        return {
            "kind": kind,
            "ops": tally.ops,
            "requests": len(ordered),
            "ops_per_s": round(tally.ops / self.elapsed_s, 1) if self.elapsed_s else 0.0,
            **{name: round(percentile(ordered, share) * 1000, 3) for name, share in LATENCIES.items()},
            "errors": tally.errors,
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the percentile of ``ordered``, ascending values, by nearest rank; 0 without values. share: 0.99 for p99."""
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)] if ordered else 0.0


class _Connection:
    """The HTTP connection of one worker of the load generator to one node; after it broke the next request opens it again."""

    def __init__(self, url: str, token: str | None, trusted: Callable[[], ssl.SSLContext]) -> None:
        try:
            parts = split_url(url if "//" in url else f"http://{url}")
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        self._context = trusted() if parts.scheme == "https" else None
        self._address = (parts.hostname or "", parts.port or (80 if self._context is None else 443))
        self._headers = f"Host: {parts.netloc}\r\n".encode()
        if token is not None:
            self._headers += f"Authorization: Bearer {token}\r\n".encode()
        self.socket: socket.socket | None = None
        # True if the node closes the connection after the answer that came last.
        self.ends = False
        self._received = b""
        self._body_from = 0
        self._needed = 0

    def open(self) -> socket.socket | None:
        """Open this HTTP connection if it is not open; return the socket if it is new, None if it was open. Raises OSError."""
        if self.socket is not None:
            return None
        self.ends = False
        self.socket = socket.create_connection(self._address, ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            self.socket = self._context.wrap_socket(self.socket, server_hostname=self._address[0])
        return self.socket

    def send(self, call: Call) -> None:
        """Send one HTTP request, without waiting for its answer. Raises OSError."""
        assert self.socket is not None
        self._received = b""
        self._needed = 0
        self.socket.sendall(call.line + self._headers + call.rest)

    def receive(self) -> Reply | None:
        """Read the bytes that have arrived; return the HTTP answer if it is whole now, else None. Raises OSError."""
        assert self.socket is not None
        data = self.socket.recv(262_144)
        while isinstance(self.socket, ssl.SSLSocket) and (pending := self.socket.pending()):
            # The selector does not know of what is decrypted already.
            data += self.socket.recv(pending)
        if not data:
            raise ConnectionResetError("the node closed the connection")
        received = self._received = self._received + data if self._received else data
        if not self._needed:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._body_from = end + 4
            self._needed = end + 4 + _content_length(received[:end])
        if len(received) < self._needed:
            return None
        reply = Reply(int(received[9:12]), received[self._body_from : self._needed])
        self.ends = b"\r\nconnection: close" in received[: self._body_from].lower()
        return reply

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        raise ConnectionResetError("an answer without Content-Length")
    return int(lower[at + 17 :].partition(b"\r\n")[0])


def drive(
    urls: Sequence[str],
    workers: Sequence[Worker],
    *,
    token: str | None = None,
    ca: Path | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Send the requests that ``workers`` yield to the nodes at ``urls``, until all workers have ended; return the report.

    workers: generators of requests; each is sent the answer to the request that it has yielded.  progress: called with the
    number of operations whenever some are done.  Raises InvalidRequest for a malformed address in ``urls``, or a ``ca`` where
    none of them is for TLS.
    """
    with contextlib.closing(_Driver(urls, workers, token, ca, progress)) as driver:
        return driver.run()


class _Driver:
    """The load generator's loop: sends the requests of all workers and gives each worker its answers. For one thread only."""

    def __init__(
        self, urls: Sequence[str], workers: Sequence[Worker], token: str | None, ca: Path | None, progress: Progress
    ) -> None:
        check_is_of_use(ca, urls)
        trusted = functools.cache(lambda: trusting(ca))
        self._workers = workers
        self._connections = [[_Connection(url, token, trusted) for url in urls] for _ in workers]
        self._progress = progress
        self._report = Report()
        self._selector = selectors.DefaultSelector()
        # By the worker's number, while it waits for an answer: its call, the connection and when it was sent.
        self._waiting: dict[int, tuple[Call, _Connection, float]] = {}

    def run(self) -> Report:
        began = time.perf_counter()
        for number, worker in enumerate(self._workers):
            self._send(number, next(worker, None))
        while self._waiting:
            ready = self._selector.select(ANSWER_TIMEOUT_S)
            for key, _ in ready:
                self._receive(key.data)
            if not ready:
                for number in list(self._waiting):
                    self._answered(number, Reply(0, b""), "no answer in time")
        self._report.elapsed_s = time.perf_counter() - began
        return self._report

    def close(self) -> None:
        for connections in self._connections:
            for connection in connections:
                self._drop(connection)
        self._selector.close()

    def _send(self, number: int, call: Call | None) -> None:
        while call is not None:
            connection = self._connections[number][call.node]
            started = time.perf_counter()
            try:
                opened = connection.open()
                if opened is not None:
                    self._selector.register(opened, selectors.EVENT_READ, number)
                connection.send(call)
            except OSError as error:
                self._drop(connection)
                call = self._settle(number, call, 0.0, Reply(0, b""), error.strerror or str(error))
                continue
            self._waiting[number] = call, connection, started
            return

    def _receive(self, number: int) -> None:
        if number not in self._waiting:
            # Nothing was asked: the node closes an idle connection.
            for connection in self._connections[number]:
                self._drop(connection)
            return
        connection = self._waiting[number][1]
        try:
            reply = connection.receive()
        except (OSError, ValueError) as error:
            self._answered(number, Reply(0, b""), str(error))
            return
        if reply is not None:
            self._answered(number, reply, "")

    def _answered(self, number: int, reply: Reply, why: str) -> None:
        call, connection, started = self._waiting.pop(number)
        took_s = time.perf_counter() - started
        if reply.status == 0 or connection.ends:
            self._drop(connection)
        self._send(number, self._settle(number, call, took_s, reply, why))

    def _settle(self, number: int, call: Call, took_s: float, reply: Reply, why: str) -> Call | None:
        """Count ``reply``, a node's answer to the request ``call``, in the load test's report.

        Give the reply to the worker number ``number``, a generator of requests; return its next request, None if it has ended.
        why: what went wrong if the node gave no answer.
        """
        report = self._report
        tally = report.tallies.setdefault(call.kind, Tally())
        failed = _failed_ops(call, reply)
        tally.errors += failed
        tally.ops += call.ops - failed
        if failed:
            report.first_error = report.first_error or why or f"HTTP {reply.status}: {reply.body[:200]!r}"
        else:
            tally.latencies_s.append(took_s)
            if call.kind == READS:
                report.hits += reply.status == 200
                report.misses += reply.status == 404
        self._progress(call.ops)
        try:
            return self._workers[number].send(reply)
        except StopIteration:
            return None

    def _drop(self, connection: _Connection) -> None:
        if connection.socket is not None:
            self._selector.unregister(connection.socket)
            connection.close()


def _failed_ops(call: Call, reply: Reply) -> int:
    if call.kind == READS:
        return 0 if reply.status in (200, 404) else 1
    if reply.status not in (200, 201):
        return call.ops
    if call.ops == 1:
        return 0
    # A batch's results are counted, not parsed: the load generator shares the machine with the nodes.
    return max(call.ops - reply.body.count(b'"status":20') - reply.body.count(b'"status": 20'), 0)


def get_call(node: int, key: str, strict: bool = False) -> Call:
    """Return the HTTP request that reads ``key`` from the node with the index ``node``.

    strict: have the read counted exactly as a use of the key, through the log.
    """
    query = "?recency=strict" if strict else ""
    return Call(node, READS, f"GET /cache/{key}{query} HTTP/1.1\r\n".encode(), b"\r\n")


def set_call(node: int, key: str, value: str) -> Call:
    """Return the HTTP request that writes ``value`` under ``key`` on the node with the index ``node``."""
    return _with_body(node, f"PUT /cache/{key}", json.dumps({"value": value}).encode(), 1)


def batch_call(node: int, keys: Sequence[str], value: str) -> Call:
    """Return the HTTP request that writes ``value`` under all ``keys`` in one batch, on the node with the index ``node``."""
    body = json.dumps({"ops": [{"op": "set", "key": key, "value": value} for key in keys]}, separators=(",", ":"))
    return _with_body(node, "POST /cache/_batch", body.encode(), len(keys))


def _with_body(node: int, start: str, body: bytes, ops: int) -> Call:
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return Call(node, WRITES, f"{start} HTTP/1.1\r\n".encode(), head + body, ops)


def run_load(
    urls: Sequence[str],
    ops: int,
    *,
    clients: int = 8,
    value_bytes: int = 100,
    write_ratio: float = 0.5,
    batch: int = 1,
    keys: int = 1000,
    token: str | None = None,
    ca: Path | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Run a load test of ``ops`` reads and writes, over ``clients`` connections spread over the nodes; return the report.

    write_ratio: share of writes, 0 to 1.  batch: number of writes in one request.  keys: number of different keys.
    """
    if ops < 1 or clients < 1 or batch < 1 or keys < 1 or value_bytes < 0 or not 0 <= write_ratio <= 1:
        raise InvalidRequest("ops, clients, batch and keys are at least 1, value-bytes at least 0, write-ratio 0 to 1")
    source = random.Random(1)
    names = [f"bench:{number}" for number in range(keys)]
    value = "x" * value_bytes
    reads: Iterator[Call] = iter(())
    writes: Iterator[Call] = iter(())
    if write_ratio < 1:
        reads = itertools.cycle([get_call(0, source.choice(names)) for _ in range(min(REQUESTS_BUILT, ops))])
    if write_ratio > 0 and batch == 1:
        writes = itertools.cycle([set_call(0, source.choice(names), value) for _ in range(min(REQUESTS_BUILT, ops))])
    elif write_ratio > 0:
        count = min(BATCHES_BUILT, math.ceil(ops / batch))
        writes = itertools.cycle([batch_call(0, source.choices(names, k=batch), value) for _ in range(count)])
    last = ops % batch
    plan = _plan(ops, write_ratio, batch, reads, writes, lambda: batch_call(0, source.choices(names, k=last), value))

    def worker(node: int) -> Worker:
        for call in plan:
            reply = yield call._replace(node=node)
            if reply.status == 0:
                # Go on with another node: a dead one fails at once and would use up all the operations.
                node = (node + 1) % len(urls)

    return drive(urls, [worker(number % len(urls)) for number in range(clients)], token=token, ca=ca, progress=progress)


def _plan(
    ops: int, write_ratio: float, batch: int, reads: Iterator[Call], writes: Iterator[Call], rest: Callable[[], Call]
) -> Iterator[Call]:
    """Yield requests for ``ops`` operations in all: reads and writes, evenly mixed, with a share of writes of ``write_ratio``.

    reads, writes: iterators over single read requests and write requests.  batch: how many writes one write request has.
    rest: a function that returns the last write request, which has fewer writes.
    """
    done = written = 0
    while done < ops:
        if written < write_ratio * (done + 1):
            call = next(writes) if ops - done >= batch else rest()
            written += call.ops
        else:
            call = next(reads)
        done += call.ops
        yield call


def read_trace(path: Path) -> list[int]:
    """Return the keys in a file that records the accesses to a cache: big-endian 32-bit numbers, plain or xz-compressed.

    Raises InvalidRequest.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
    except (OSError, lzma.LZMAError) as error:
        raise InvalidRequest(f"--trace = {str(path)!r}: cannot be read ({error})") from None
    if not data or len(data) % 4:
        raise InvalidRequest(f"--trace = {str(path)!r}: {len(data)} bytes are no sequence of 32-bit keys")
    return list(struct.unpack(f">{len(data) // 4}I", data))


def replay(
    urls: Sequence[str],
    keys: Sequence[int],
    *,
    clients: int = 1,
    value_bytes: int = TRACE_VALUE_BYTES,
    strict: bool = False,
    token: str | None = None,
    ca: Path | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Replay recorded accesses: get each of ``keys`` from the nodes at ``urls``, set what is missing; return the report.

    Request i goes to node i modulo the number of nodes. clients: the number of connections; more than one takes the requests
    out of order, which changes hit ratios a little.
    """
    if clients < 1 or value_bytes < 0:
        raise InvalidRequest("clients is at least 1, value-bytes at least 0")
    numbered = enumerate(keys)
    value = "x" * value_bytes

    def worker() -> Worker:
        for number, key in numbered:
            node = number % len(urls)
            reply = yield get_call(node, str(key), strict)
            if reply.status == 404:
                # Progress counts the trace's requests: the set belongs to the get.
                yield set_call(node, str(key), value)

    return drive(urls, [worker() for _ in range(clients)], token=token, ca=ca, progress=progress)
