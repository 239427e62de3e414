"""How long one request of any front keeps a node's loop from everything else, with a million items.

A process beside the node asks it for a PONG twice a millisecond, while each request of requests.py is sent alone. A hold is what
an answer to it took, without the time for which the loop's thread had no core; passes of the garbage collector count, and so do
waits for the interpreter, which another thread of the node keeps. Of several tries the shortest counts: what a request costs is
there each time, and what else the machine does is not. So who stays below the limit is tried once.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.bench import requests
from scripts.bench.harness import Verdict, busiest, cluster, ran

MUST = "the longest hold of a node's loop by any one request of any front, 10^6 items, LRU and LFU: <= 10 ms"
LIMIT_S = 1800
WHAT = "longest hold of a node's loop by one request of any front, by the number of items and the policy"
MOST_MS = 10.0
PROBER = Path(__file__).parents[1] / "prober.py"
# Requests after which the connection, the contents or the leader are others.
LAST = ("quit", "reset", "flushdb", "flushall", "flush_all", "DELETE /cache", "POST /restore", "POST /cluster/leader")
# Those of them that take the items away: the node is filled again before each try.
EMPTIES = ("flushdb", "flushall", "flush_all", "DELETE /cache", "POST /restore")
# An answer is whole when nothing more comes for so long, or longer for what other processes do.
QUIET_S = 0.15
SLOW_QUIET_S = {
    "GET /cluster/digest": 12.0,
    "keys": 1.0,
    "scan": 1.0,
    "multi": 2.0,
    "GET /cache": 1.0,
    "GET /backup": 12.0,
    "POST /restore": 12.0,
}
SHOWN = 12


def run(items: int = 1_000_000, tries: int = 3) -> Verdict:
    """One node alone, filled with ``items``, for each policy."""
    found = {policy: _measure(policy, items, tries) for policy in ("lru", "lfu")}
    worst = {policy: max(holds.values()) for policy, holds in found.items()}
    told = "; ".join(f"{policy}: {_told(holds)}" for policy, holds in found.items())
    figures = {policy: round(most, 1) for policy, most in worst.items()}
    return Verdict(told, max(worst.values()) <= MOST_MS, figures, found)


def shown(figures: dict[str, Any]) -> str:
    """The longest of each policy."""
    return "; ".join(f"{policy.upper()}: {longest:.1f} ms" for policy, longest in figures.items())


def _told(holds: dict[str, float]) -> str:
    longest = sorted(holds.items(), key=lambda item: -item[1])
    over = sum(hold > MOST_MS for hold in holds.values())
    listed = ", ".join(f"{name} {hold:.1f}" for name, hold in longest[:SHOWN])
    return f"{len(holds)} requests, {over} over {MOST_MS:g} ms; ms of the longest: {listed}"


def _measure(policy: str, items: int, tries: int) -> dict[str, float]:
    flags = ("--max-items", str(items), "--eviction", policy, "--resp-port", "0", "--memcached-port", "0")
    with cluster(*flags, nodes=1) as nodes:
        (child,) = nodes.children
        ports = {
            "resp": child.wire_ports["--resp-port"],
            "memcached": child.wire_ports["--memcached-port"],
            "http": int(child.url.rpartition(":")[2]),
        }
        before = ran(nodes.pid(child))
        _fill(ports["resp"], items)
        thread = busiest(nodes.pid(child), before)
        with _prober(ports["resp"], thread / "schedstat") as prober:
            told = {"resp": requests.resp(), "memcached": requests.memcached(), "http": requests.http()}
            jobs = [(front, name, data) for front, each in told.items() for name, data in each.items()]
            jobs.sort(key=lambda job: job[1] in LAST)
            holds = {}
            for front, name, data in jobs:
                tried = []
                for _ in range(tries):
                    if name in EMPTIES:
                        _fill(ports["resp"], items)
                    tried.append(_held(prober, ports[front], name, data))
                    if tried[-1] <= MOST_MS:
                        break
                holds[f"{front} {name}"] = min(tried)
            return holds


def _fill(port: int, items: int) -> None:
    """Write every item, in pipelines."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for start in range(0, items, 500):
            numbers = range(start, min(items, start + 500))
            connection.sendall(
                b"".join([requests.words("SET", f"key:{number}", f"value {number}") for number in numbers])
            )
            left = 5 * len(numbers)
            while left:
                left -= len(connection.recv(left))


@contextlib.contextmanager
def _prober(port: int, schedstat: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(PROBER), str(port), str(schedstat)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as prober:
        try:
            _longest_ms(prober)
            yield prober
        finally:
            prober.kill()


def _longest_ms(prober: subprocess.Popen[str]) -> float:
    assert prober.stdin is not None and prober.stdout is not None
    prober.stdin.write("\n")
    prober.stdin.flush()
    return float(prober.stdout.readline())


def _held(prober: subprocess.Popen[str], port: int, name: str, data: bytes) -> float:
    """Send the request on a connection of its own, take what is answered, and return the longest hold meanwhile, in ms."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        time.sleep(0.02)
        _longest_ms(prober)
        connection.settimeout(30.0)
        connection.sendall(data)
        with contextlib.suppress(TimeoutError):
            while connection.recv(1 << 20):
                connection.settimeout(SLOW_QUIET_S.get(name, QUIET_S))
        return _longest_ms(prober)
