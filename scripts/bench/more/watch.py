"""What a thousand watches cost, and whether each sees everything: also when their node is killed.

Three nodes; one connection writes at a steady rate through the leader. A thousand clients watch a prefix each, no two the same,
and ten watch everything, all of them at one follower. Others read there by RESP. Then that follower is killed, and all watches
go on at the third node from where they are. In the end each must have seen each write under its prefix once, in order.

Without, with one, and with all watches is measured in turns: a minute later a machine may be twice as quick.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.bench.harness import Verdict, cluster, process_cpu_s, wait_until
from scripts.bench.loadgen import LoadGenerator, Measured, percentile_us
from scripts.bench.requests import words

MUST = (
    "1,000 watchers of disjoint prefixes and ten of everything, 2,000 writes a second, their node killed in between: each sees "
    "each of its events once, in order, or a 410; GET p99 <= 2 x; no thread held"
)
LIMIT_S = 240
WHAT = "1,000 watches of a prefix each and ten of everything, at 2,000 writes a second; their node is killed"
P99_TIMES = 2.0
PIPELINE = 20
GET_RATE = 400.0


class Writer:
    """Writes numbered keys at a steady rate until it is stopped: number N under prefix N % prefixes."""

    def __init__(self, port: int, rate: float, prefixes: int) -> None:
        self.written = 0
        self._stop = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._every_s = PIPELINE / rate
        self._prefixes = prefixes
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self) -> None:
        """Return once the last write is acknowledged."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _write(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            numbers = range(self.written, self.written + PIPELINE)
            keys = [f"w{number % self._prefixes:04}/{number}" for number in numbers]
            self._socket.sendall(b"".join([words("SET", key, "value") for key in keys]))
            answers = b""
            while answers.count(b"\r\n") < PIPELINE:
                answers += self._socket.recv(1 << 16)
            assert b"-" not in answers, answers
            self.written += PIPELINE
            due += self._every_s
            time.sleep(max(0.0, due - time.monotonic()))


class Watcher:
    """One watch: the numbers that it was told. What comes is read when somebody asks: a client's work is not the node's."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        # Filled by another thread.
        self.came: deque[bytes] = deque()
        self.socket: socket.socket | None = None
        self._numbers: list[int] = []
        self._position = ""
        self._status = ""
        self._left = b""

    @property
    def numbers(self) -> list[int]:
        """All that it was told, in order."""
        self._read()
        return self._numbers

    @property
    def position(self) -> str:
        """Up to where it was told everything; "" before it has begun."""
        self._read()
        return self._position

    @property
    def status(self) -> str:
        """The HTTP status that it was answered last."""
        self._read()
        return self._status

    def begin_anew(self) -> None:
        """Another connection: what is left of an event is told again."""
        self._read()
        self._left = b""

    def _read(self) -> None:
        came = [self.came.popleft() for _ in range(len(self.came))]
        *blocks, self._left = b"".join([self._left, *came]).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"HTTP/1.1"):
                self._status = block[9:12].decode()
            for line in block.split(b"\n"):
                if line.startswith(b"id: "):
                    self._position = line[4:].decode()
                elif line.startswith(b"data: "):
                    self._numbers.append(int(json.loads(line[6:])["key"].partition("/")[2]))


class Watchers:
    """All watches, read by one thread."""

    def __init__(self, prefixes: list[str]) -> None:
        self.all = [Watcher(prefix) for prefix in prefixes]
        self._port = 0
        self._selector = selectors.DefaultSelector()
        self._over = False
        self._lock = threading.Lock()  # guards the port and what is registered
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def go_to(self, port: int, some: int | None = None) -> None:
        """Let so many watches, all by default, be served at this port from where they are."""
        with self._lock:
            self._port = port
            for watcher in self.all[:some]:
                if watcher.socket is None:
                    self._connect(watcher)

    def _connect(self, watcher: Watcher) -> None:
        since = f"Last-Event-ID: {watcher.position}\r\n" if watcher.position else ""
        watcher.socket = socket.create_connection(("127.0.0.1", self._port))
        watcher.socket.sendall(
            f"GET /watch?prefix={watcher.prefix} HTTP/1.1\r\nHost: localhost\r\n{since}\r\n".encode()
        )
        watcher.begin_anew()
        self._selector.register(watcher.socket, selectors.EVENT_READ, watcher)

    def _read(self) -> None:
        while not self._over:
            with self._lock:
                ready = self._selector.select(0.01)
            for key, _ in ready:
                watcher: Watcher = key.data
                sock = watcher.socket
                assert sock is not None
                data = b""
                with contextlib.suppress(ConnectionError):
                    data = sock.recv(1 << 18)
                watcher.came.append(data)
                if not data:
                    with self._lock:
                        self._selector.unregister(sock)
                    sock.close()
                    watcher.socket = None

    def close(self) -> None:
        """End all watches."""
        self._over = True
        self._thread.join()
        for watcher in self.all:
            if watcher.socket is not None:
                watcher.socket.close()


class Step:
    """What others' reads were like, and what their node took, with so many watches: in all rounds together.

    cpu: of a core.
    """

    def __init__(self) -> None:
        self.threads = 0.0
        self._reads: list[Measured] = []
        self._cpu: list[float] = []

    def add(self, reads: Measured, cpu: float, threads: float) -> None:
        """One more round."""
        self._reads.append(reads)
        self._cpu.append(cpu)
        self.threads = max(self.threads, threads)

    @property
    def p99_ms(self) -> float:
        """Of all reads."""
        return percentile_us(self._reads, 0.99) / 1000

    @property
    def cpu(self) -> float:
        """On average."""
        return sum(self._cpu) / len(self._cpu)


def run(
    watches: int = 1000, everything: int = 10, rate: float = 2000.0, seconds: float = 16.0, rounds: int = 8
) -> Verdict:
    """Without watches, with one, with all of them, in turns; then with all of them behind the death of their node."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    prefixes = [f"w{number:04}" for number in range(watches)] + [""] * everything
    with (
        contextlib.closing(LoadGenerator()) as generator,
        cluster("--resp-port", "0", "--max-items", "1000000") as nodes,
    ):
        leader = nodes.led_by()
        first, second = nodes.others(leader)
        writer = Writer(leader.wire_ports["--resp-port"], rate, watches)
        generator.fill("resp", leader.wire_ports["--resp-port"])
        pid = nodes.pid(first)
        http, resp = urlsplit(first.url).port or 0, first.wire_ports["--resp-port"]

        def reads(step: str, port: int, of: int, for_s: float) -> None:
            before = process_cpu_s(of)
            ran = generator.run("resp", "get", [port], connections=8, seconds=for_s, rate=GET_RATE)
            steps.setdefault(step, Step()).add(ran, (process_cpu_s(of) - before) / for_s, _threads(of))

        steps: dict[str, Step] = {}
        reads("warm-up", resp, pid, seconds)
        del steps["warm-up"]

        def measure(watchers: Watchers) -> int:
            """From which number on all watches have to be told all: what is on its way when they begin may come before."""
            for name, some in (("none", 0), ("one", 1), ("all", len(prefixes))):
                watchers.go_to(http, some)
                wait_until(lambda some=some: all(each.position for each in watchers.all[:some]), "watches begin")  # type: ignore[misc]
                since = writer.written + 2 * PIPELINE
                reads(name, resp, pid, seconds / rounds)
            return since

        wrong = 0
        for _ in range(rounds - 1):
            with contextlib.closing(Watchers(prefixes)) as watchers:
                since = measure(watchers)
                wrong += sum(not _is_right(each, since, None, watches) for each in watchers.all)
        with contextlib.closing(Watchers(prefixes)) as watchers:
            since = measure(watchers)
            nodes.kill(first)
            wait_until(lambda: all(each.socket is None for each in watchers.all), "watches end")
            watchers.go_to(urlsplit(second.url).port or 0)
            reads("behind a kill", second.wire_ports["--resp-port"], nodes.pid(second), seconds)
            writer.stop()
            last = writer.written - 1
            with contextlib.suppress(AssertionError):
                wait_until(lambda: all(_is_at_end(each, last, watches) for each in watchers.all), "all is told", 30.0)
        ended = [each.status == "410" for each in watchers.all]
        right = [
            _is_right(each, since, None if gone else last, watches)
            for each, gone in zip(watchers.all, ended, strict=True)
        ]
        return judge(steps, sum(right) - wrong, sum(ended), len(prefixes), writer.written)


def _threads(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("Threads:")))


def _is_at_end(watcher: Watcher, last: int, watches: int) -> bool:
    step = 1 if not watcher.prefix else watches
    return watcher.status == "410" or bool(watcher.numbers and watcher.numbers[-1] > last - step)


def _is_right(watcher: Watcher, since: int, last: int | None, watches: int) -> bool:
    """Return whether a watcher was told each number of its own once and in order: from ``since`` on, or from one before that.

    last: up to which number it has to be told all; None: however far it was.
    """
    step, own = (watches, int(watcher.prefix[1:])) if watcher.prefix else (1, 0)
    numbers = watcher.numbers
    return (
        bool(numbers)
        and numbers[0] <= since + (own - since) % step
        and numbers == list(range(numbers[0], (numbers[-1] if last is None else last) + 1, step))
    )


def judge(steps: dict[str, Step], right: int, gone: int, watches: int, written: int) -> Verdict:
    """By what the watches were told, and by what others were asked to wait."""
    base = steps["none"]
    times = max(each.p99_ms for each in steps.values()) / base.p99_ms
    threads = max(each.threads for name, each in steps.items() if name != "behind a kill") - base.threads
    told = "; ".join(
        f"{name}: GET p99 {each.p99_ms:.2f} ms, {each.cpu * 100:.0f} % of a core, {each.threads:.0f} threads"
        for name, each in steps.items()
    )
    told += (
        f"; of {watches} watches {right} saw each of their events of {written} once and in order, {gone} were told 410"
    )
    passed = right == watches and times <= P99_TIMES and threads <= 0
    figures = {
        "right": right,
        "gone": gone,
        "times": round(times, 1),
        "threads": threads,
        "cpu_none": round(base.cpu, 3),
        "cpu_one": round(steps["one"].cpu, 3),
        "cpu_all": round(steps["all"].cpu, 3),
    }
    details = {name: {"p99_ms": each.p99_ms, "cpu": each.cpu, "threads": each.threads} for name, each in steps.items()}
    return Verdict(told, passed, figures, details)


def shown(figures: dict[str, Any]) -> str:
    """What the watches saw, and what they cost."""
    return (
        f"{figures['right']} saw everything once, {figures['gone']} were told 410; GET p99 x {figures['times']:.1f}; "
        f"{figures['threads']:.0f} threads; the node's CPU {figures['cpu_none']:.2f}, with one {figures['cpu_one']:.2f}, "
        f"with all {figures['cpu_all']:.2f} of a core"
    )
