"""What TLS costs on the RESP port: the same requests from the same clients, to nodes with certificates and to nodes without."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cacheflow.cli import signing
from cacheflow.net.tls.trust import trusting
from scripts.bench.harness import Cluster, Verdict, cluster, median, process_cpu_s, rounded

MUST = "GET and SET with TLS answer right; what they cost is told"
LIMIT_S = 300
WHAT = "RESP with TLS / without, 16 connections: GET/s; SET/s; node's CPU a GET; TLS connections made a second"
HOST = "127.0.0.1"
KEYS = 1000
VALUE = b"x" * 100
KINDS = ("plain", "tls")


def run(seconds: float = 4.0, rounds: int = 3, connections: int = 16) -> Verdict:
    """Both clusters run at once and are measured in turns, so that whatever else the machine does harms both alike."""
    with tempfile.TemporaryDirectory(prefix="cacheflow-bench-") as folder, contextlib.ExitStack() as stack:
        ca, (cert, key) = _certificates(Path(folder))
        flags = {"plain": (), "tls": ("--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(ca))}
        running = {kind: stack.enter_context(cluster("--resp-port", "0", *flags[kind])) for kind in KINDS}
        contexts = {"plain": None, "tls": trusting(ca)}
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for kind in KINDS:
                for name, value in _measure(running[kind], contexts[kind], seconds, connections).items():
                    found.setdefault(f"{kind}_{name}", []).append(value)
        found["connects_per_s"] = [_connects(running["tls"], trusting(ca), seconds / 2)]
    figures = {name: round(median(values), 1) for name, values in found.items()}
    return Verdict(shown(figures), True, figures, found)


def shown(figures: dict[str, Any]) -> str:
    """Each with TLS and without."""
    rates = [
        f"{rounded(figures[f'tls_{name}'])} / {rounded(figures[f'plain_{name}'])}"
        for name in ("get_per_s", "set_per_s")
    ]
    cpu = f"{figures['tls_get_cpu_us']:.0f} / {figures['plain_get_cpu_us']:.0f} µs"
    return "; ".join([*rates, cpu, rounded(figures["connects_per_s"])])


def _certificates(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    signing.make_ca(folder, "benchmark", 1)
    return folder / "ca.crt", signing.make_node(folder, (HOST,), folder, "node", 1)


def _measure(nodes: Cluster, context: ssl.SSLContext | None, seconds: float, connections: int) -> dict[str, float]:
    leader = nodes.led_by()
    port = leader.wire_ports["--resp-port"]
    sets = [_request(b"SET", b"key:%d" % number, VALUE) for number in range(KEYS)]
    gets = [_request(b"GET", b"key:%d" % number) for number in range(KEYS)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_connected(port, context)) for _ in range(connections)]
        set_per_s, _ = _asked(clients, sets, b"+OK\r\n", seconds)
        _asked(clients, sets, b"+OK\r\n", 0.0)
        before = process_cpu_s(nodes.pid(leader))
        get_per_s, count = _asked(clients, gets, b"$%d\r\n%b\r\n" % (len(VALUE), VALUE), seconds)
        cpu_us = (process_cpu_s(nodes.pid(leader)) - before) / count * 1e6
    return {"get_per_s": get_per_s, "set_per_s": set_per_s, "get_cpu_us": cpu_us}


def _asked(clients: list[socket.socket], requests: list[bytes], answer: bytes, seconds: float) -> tuple[float, int]:
    """Ask on all connections and read all answers, again and again, each request once at least; return (a second, how many)."""
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds or count < len(requests):
        for offset, client in enumerate(clients):
            client.sendall(requests[(count + offset) % len(requests)])
        for client in clients:
            said = client.recv(4096)
            while len(said) < len(answer):
                said += client.recv(4096)
            if said != answer:
                raise RuntimeError(f"a wrong answer: {said[:80]!r}")
        count += len(clients)
    return count / (time.monotonic() - began), count


def _connects(nodes: Cluster, context: ssl.SSLContext, seconds: float) -> float:
    """How many connections one client makes in a second, one after the other, each with a request."""
    port = nodes.led_by().wire_ports["--resp-port"]
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        with _connected(port, context) as client:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            client.recv(100)
        count += 1
    return count / (time.monotonic() - began)


@contextlib.contextmanager
def _connected(port: int, context: ssl.SSLContext | None) -> Iterator[socket.socket]:
    with contextlib.closing(socket.create_connection((HOST, port), 10)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            yield plain
        else:
            with contextlib.closing(context.wrap_socket(plain, server_hostname=HOST)) as secured:
                yield secured


def _request(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)
