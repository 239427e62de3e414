"""The servers that are compared: each is started for the run, on ports of its own, with its data in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacheflow.cli.launcher import free_ports
from scripts.bench.harness import cluster

READY_WITHIN_S = 30.0


@dataclass(frozen=True)
class Served:
    """A running server: its protocol, the port of each node, the leader's first, and who leads by now, where one does."""

    name: str
    protocol: str
    ports: tuple[int, ...]
    led_by: Callable[[], int] | None = None

    def still_led(self) -> bool:
        """Whether the first port is the leader's still. Raises RuntimeError when there is none."""
        return self.led_by is None or self.led_by() == self.ports[0]


@contextlib.contextmanager
def cacheflow(nodes: int = 3, *flags: str, items: int = 1_000_000) -> Iterator[dict[str, Served]]:
    """A cluster; by protocol."""
    wires = ("--memcached-port", "0", "--resp-port", "0")
    with cluster("--max-items", str(items), *wires, *flags, nodes=nodes) as running:
        leader = running.led_by()
        children = [leader, *running.others(leader)]
        ports = {
            "resp": [child.wire_ports["--resp-port"] for child in children],
            "memcached": [child.wire_ports["--memcached-port"] for child in children],
            "http": [int(child.url.rpartition(":")[2]) for child in children],
        }

        def served(protocol: str) -> Served:
            by_node = dict(zip((child.node_id for child in children), ports[protocol], strict=True))
            return Served("CacheFlow", protocol, tuple(ports[protocol]), lambda: by_node[running.led_by().node_id])

        yield {protocol: served(protocol) for protocol in ports}


def _redis(folder: Path) -> tuple[list[list[str]], list[int], str]:
    (port,) = free_ports(1)
    return [["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]], [port], "resp"


def _memcached(folder: Path) -> tuple[list[list[str]], list[int], str]:
    (port,) = free_ports(1)
    # -u: it refuses to run as root.
    return [["memcached", "-l", "127.0.0.1", "-p", str(port), "-m", "2048", "-u", "nobody"]], [port], "memcached"


def _etcd(nodes: int) -> Callable[[Path], tuple[list[list[str]], list[int], str]]:
    def commands(folder: Path) -> tuple[list[list[str]], list[int], str]:
        ports = free_ports(2 * nodes)
        clients, peers = ports[:nodes], ports[nodes:]
        members = ",".join(f"n{n}=http://127.0.0.1:{port}" for n, port in enumerate(peers))
        return (
            [
                [
                    *("etcd", "--name", f"n{n}", "--data-dir", str(folder / f"n{n}"), "--log-level", "error"),
                    *("--listen-client-urls", f"http://127.0.0.1:{clients[n]}"),
                    *("--advertise-client-urls", f"http://127.0.0.1:{clients[n]}"),
                    *("--listen-peer-urls", f"http://127.0.0.1:{peers[n]}"),
                    *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peers[n]}"),
                    *("--initial-cluster", members, "--initial-cluster-token", "bench"),
                    *("--quota-backend-bytes", str(8 * 1024**3)),
                ]
                for n in range(nodes)
            ],
            clients,
            "etcd",
        )

    return commands


PEERS = {
    "redis": ("redis-server", _redis),
    "memcached": ("memcached", _memcached),
    "etcd": ("etcd", _etcd(3)),
    "etcd, one node": ("etcd", _etcd(1)),
}


@contextlib.contextmanager
def peer(name: str) -> Iterator[Served | None]:
    """A running peer; None when it is not installed."""
    program, commands_in = PEERS[name]
    if shutil.which(program) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="cacheflow-peer-") as folder, contextlib.ExitStack() as stack:
        commands, ports, protocol = commands_in(Path(folder))
        for command in commands:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=folder
            )
            stack.callback(process.wait, 15)
            stack.callback(process.terminate)
        for port in ports:
            _wait_for(port, name)
        if protocol != "etcd":
            yield Served(name, protocol, tuple(ports))
            return
        leader = etcd_led_by(ports)
        others = [port for port in ports if port != leader]
        yield Served(name, protocol, (leader, *others), lambda: etcd_led_by(ports))


def etcd_led_by(ports: Sequence[int]) -> int:
    """The port of the node that says that it leads. Raises RuntimeError when none says so in time."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        for port in ports:
            status = _etcd_status(port)
            if status and status.get("leader") == status["header"]["member_id"]:
                return port
        time.sleep(0.05)
    raise RuntimeError(f"no etcd of ports {', '.join(map(str, ports))} leads")


def _etcd_status(port: int) -> dict[str, Any] | None:
    """What the gateway says; None while the node cannot."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v3/maintenance/status", b"{}")
    try:
        with urllib.request.urlopen(asked, timeout=5.0) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except OSError:
        return None


def _wait_for(port: int, name: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not listen on port {port}")
        time.sleep(0.05)
