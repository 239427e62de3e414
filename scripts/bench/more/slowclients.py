"""What clients cost the others that end no request or read no answer: 500 on each port, then on all at once.

The leader of three nodes is attacked. Half of the connections send the first part of a request and nothing more; the others ask
for many megabytes and never read. They come within a tenth of a second and then do nothing, so that they take no core from the
node. Meanwhile others read at a steady rate on the same node, and its health is asked, each time on a new connection.

The others are there before the attackers come, and stay. What must hold counts from when the attackers have sent all, while the
node still answers them, against the same load without them, before each of these: a minute later a machine may be twice as
quick. The seconds in which they come are measured by a load of their own and told apart; memory, health and terms are looked at
in both.
"""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.bench.harness import Verdict, cluster
from scripts.bench.loadgen import Load, LoadGenerator, Measured, percentile_us
from scripts.bench.requests import words

MUST = (
    "500 slow or unread connections on each port, one after the other and together: others' p99 <= 2 x, "
    "memory <= 192 MiB over, no leader change, /livez <= 100 ms"
)
LIMIT_S = 600
WHAT = "500 connections on each port that end no request or read no answer: others' p99, memory, /livez"
MEMORY_MIB = 192.0
P99_TIMES = 2.0
LIVEZ_MS = 100.0
# Values of a megabyte, and how many of them one request asks for.
LARGE = 120
VALUE = b"x" * 1_000_000
PIPELINED = 60
RATE = 400.0
EVERY_S = 0.05
# Seconds of the load that sees the attackers come, and for how many of these it runs before they do.
COMING_S = 2.0
BEFORE_S = 0.2


def run(connections: int = 500, seconds: float = 8.0) -> Verdict:
    """Before, then each port for ``seconds``, then all of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    flags = ("--resp-port", "0", "--memcached-port", "0")
    with contextlib.closing(LoadGenerator()) as generator, cluster(*flags) as nodes:
        leader = nodes.led_by()
        ports = {
            "http": urlsplit(leader.url).port or 0,
            "resp": leader.wire_ports["--resp-port"],
            "memcached": leader.wire_ports["--memcached-port"],
        }
        _fill(ports["resp"])
        watched = Watched(nodes.pid(leader), ports["http"])

        def others(for_s: float = seconds) -> Load:
            at = [ports["resp"]]
            return generator.begin("resp", "get", at, connections=8, seconds=for_s, rate=RATE, keys=1000)

        others().result()
        calms: list[dict[str, float]] = []
        before: list[Measured] = []
        attacked: dict[str, Measured] = {}
        steps: dict[str, dict[str, float]] = {}
        for name, chosen in (*((port, [port]) for port in ports), ("all", list(ports))):
            with watched.during() as calm:
                before.append(others().result())
            calms.append(calm)
            with watched.during() as health:
                load, coming = others(), others(COMING_S)
                time.sleep(BEFORE_S)
                with _attackers(ports, chosen, connections):
                    load.begin_anew()
                    during = load.result()
                came = coming.result()
            attacked[name] = during
            steps[name] = {**health, "coming_p99_ms": came.p99_us / 1000}
            steps[name]["memory_mib"] = health["rss_mib"] - calms[0]["rss_mib"]
        p99_ms = percentile_us(before, 0.99) / 1000
        for name, during in attacked.items():
            steps[name] |= {"p99_ms": during.p99_us / 1000, "times": during.p99_us / 1000 / p99_ms}
        return judge(steps, p99_ms, max(each["livez_ms"] for each in calms))


def judge(steps: dict[str, dict[str, float]], p99_ms: float, livez_ms: float) -> Verdict:
    """By the worst of the steps."""
    worst = {
        "times": max(each["times"] for each in steps.values()),
        "memory_mib": max(each["memory_mib"] for each in steps.values()),
        "livez_ms": max(each["livez_ms"] for each in steps.values()),
        "terms": max(each["terms"] for each in steps.values()),
    }
    told = "; ".join(
        f"{name}: p99 {each['p99_ms']:.2f} ms ({each['times']:.1f} x; as they come {each['coming_p99_ms']:.2f} ms), "
        f"{each['memory_mib']:.0f} MiB over, "
        f"/livez {each['livez_ms']:.0f} ms, {each['terms']:.0f} terms"
        for name, each in steps.items()
    )
    passed = (
        worst["times"] <= P99_TIMES
        and worst["memory_mib"] <= MEMORY_MIB
        and worst["livez_ms"] <= LIVEZ_MS
        and not worst["terms"]
    )
    told += f"; before: p99 {p99_ms:.2f} ms, /livez {livez_ms:.0f} ms"
    return Verdict(told, passed, {name: round(value, 1) for name, value in worst.items()}, steps)


def shown(figures: dict[str, Any]) -> str:
    """The worst of all steps."""
    return (
        f"p99 x {figures['times']:.1f}, {figures['memory_mib']:.0f} MiB over, /livez {figures['livez_ms']:.0f} ms, "
        f"{figures['terms']:.0f} new terms"
    )


class Watched:
    """The node that is attacked: its memory, its health and its cluster's term."""

    def __init__(self, pid: int, port: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._port = port

    @contextlib.contextmanager
    def during(self) -> Iterator[dict[str, float]]:
        """Look again and again; in what is given, afterwards: the longest answer to /livez, the most memory, the terms more."""
        found = {"livez_ms": 0.0, "rss_mib": 0.0, "terms": 0.0}
        term = self._term()
        over = threading.Event()
        with ThreadPoolExecutor(1) as looking:
            looks = looking.submit(self._look, found, over)
            try:
                yield found
            finally:
                over.set()
            looks.result()
        found["terms"] = self._term() - term

    def _look(self, found: dict[str, float], over: threading.Event) -> None:
        while not over.wait(EVERY_S):
            began = time.monotonic()
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30.0)) as asked:
                asked.request("GET", "/livez")
                assert asked.getresponse().read() == b"ok"
            found["livez_ms"] = max(found["livez_ms"], (time.monotonic() - began) * 1000)
            found["rss_mib"] = max(found["rss_mib"], self._rss_mib())

    def _rss_mib(self) -> float:
        lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(lines["VmRSS"].split()[0]) / 1024

    def _term(self) -> float:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30.0)) as asked:
            asked.request("GET", "/metrics", headers={"Accept": "text/plain"})
            lines = asked.getresponse().read().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith("cacheflow_term ")))


def _fill(port: int) -> None:
    """Write the large values."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number in range(LARGE):
            connection.sendall(words("SET", f"large:{number}", VALUE))
            assert connection.recv(5) == b"+OK\r\n"


@contextlib.contextmanager
def _attackers(ports: dict[str, int], chosen: list[str], count: int) -> Iterator[None]:
    """``count`` connections on each of the ``chosen`` ports."""
    large = [f"large:{number}" for number in range(LARGE)]
    get = b"GET /cache/large:%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    half = {
        "http": b"PUT /cache/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nxxx",
        "resp": b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1000000\r\nxxx",
        "memcached": b"set half 0 0 1000000\r\nxxx",
    }
    unread = {
        "http": b"".join([get % (number % LARGE) for number in range(PIPELINED)]),
        "resp": words("MGET", *large),
        "memcached": f"get {' '.join(large)}\r\n".encode(),
    }
    with contextlib.ExitStack() as stack:
        for port in chosen:
            for number in range(count):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", ports[port]), 30.0))
                # Little is kept for a client that does not read.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                with contextlib.suppress(OSError):
                    connection.sendall((half if number % 2 else unread)[port])
        yield
