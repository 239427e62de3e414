#!/usr/bin/env python3
"""Measure what one item costs in memory and one write on the disk and the network: the table of docs/operating.md.

    .venv/bin/python scripts/packaging/sizing.py                      some minutes on two cores
    .venv/bin/python scripts/packaging/sizing.py --items 2000 --writes 200

Clusters of one and of three nodes run on this machine, in a network of their own, in which nobody else sends: so what three
send more than one goes to two followers. Needs root for that network, and Linux for its counters.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cacheflow.cli.launcher import Child, LocalCluster
from cacheflow.cli.printing import print_table

# (bytes of a key, bytes of a value)
SHAPES: Final = ((10, 100), (40, 1000), (40, 10_000))
# Commands that a client has under way in the columns "at once".
PIPELINE: Final = 100
# Bytes of values that one cluster is filled with.
BYTES_MAX: Final = 200_000_000
_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


@dataclass
class Used:
    """What a cluster has used so far.

    files: bytes that the leader has handed to its files.  network: bytes that all nodes and the client have sent.
    """

    files: int
    network: int


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/packaging/sizing.py", description=__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="how many items are kept for the memory of one")
    parser.add_argument("--writes", type=int, default=5_000, help="how many writes are made for the bytes of one")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes of items are measured")
    given = parser.parse_args()
    if not _own_network():
        print("needs root, and Linux: a network of its own cannot be had here", file=sys.stderr)
        return 2
    rows = []
    for key_bytes, value_bytes in SHAPES[: given.shapes]:
        items = min(given.items, BYTES_MAX // value_bytes)
        alone = _measured(1, key_bytes, value_bytes, items, given.writes)
        three = _measured(3, key_bytes, value_bytes, items, given.writes)
        rows.append(
            {
                "key": key_bytes,
                "value": value_bytes,
                "memory an item": three["memory"],
                "disk a write": three["disk"],
                "network a write and follower": (three["network"] - alone["network"]) // 2,
                f"disk, {PIPELINE} at once": three["disk_many"],
                f"network, {PIPELINE} at once": (three["network_many"] - alone["network_many"]) // 2,
            }
        )
    print_table(rows)
    print(
        "bytes; memory: of a process filled with the items; disk: handed to the journal by one node; "
        "network: with the headers of TCP/IP"
    )
    return 0


def _measured(nodes: int, key_bytes: int, value_bytes: int, items: int, writes: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--resp-port", "0", "--max-items", "10000000"]
        with LocalCluster(nodes, Path(folder), flags=flags, say=lambda _: None) as cluster:
            cluster.start()
            cluster.wait_ready()
            leader = cluster.leader() or cluster.children[0]
            with _resp(leader) as send:
                measured: dict[str, int] = {}
                for name, at_once in (("", 1), ("_many", PIPELINE)):
                    before = _used(leader)
                    for begin in range(0, writes, at_once):
                        send([_set(key_bytes, value_bytes, begin + number) for number in range(at_once)])
                    after = _used(leader)
                    measured[f"disk{name}"] = (after.files - before.files) // writes
                    measured[f"network{name}"] = (after.network - before.network) // writes
                filled_from, memory = writes, _memory(leader)
                for begin in range(0, items, PIPELINE):
                    send([_set(key_bytes, value_bytes, filled_from + begin + number) for number in range(PIPELINE)])
                measured["memory"] = (_memory(leader) - memory) // items
                return measured


@contextmanager
def _resp(node: Child) -> Iterator[Callable[[list[bytes]], None]]:
    with socket.create_connection(("127.0.0.1", node.wire_ports["--resp-port"])) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send(commands: list[bytes]) -> None:
            connection.sendall(b"".join(commands))
            expected = b"+OK\r\n" * len(commands)
            answer = b""
            while len(answer) < len(expected):
                answer += connection.recv(65536)
            if answer != expected:
                raise RuntimeError(f"the node answered {answer[:200]!r}")

        yield send


def _set(key_bytes: int, value_bytes: int, number: int) -> bytes:
    key, value = b"%0*d" % (key_bytes, number), os.urandom(8).ljust(value_bytes, b"x")
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)


def _used(node: Child) -> Used:
    # What is on its way to followers, and a commit that is told with the next message.
    time.sleep(0.5)
    assert node.process is not None
    counters = dict(line.split(": ") for line in Path(f"/proc/{node.process.pid}/io").read_text().splitlines())
    (loopback,) = [
        line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith("lo:")
    ]
    return Used(int(counters["wchar"]), int(loopback.split(":")[1].split()[0]))


def _memory(node: Child) -> int:
    assert node.process is not None
    (line,) = [
        line for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS:")
    ]
    return int(line.split()[1]) * 1024


def _own_network() -> bool:
    """Leave the machine's network for an empty one; return whether that was possible."""
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(_CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    return True


if __name__ == "__main__":
    sys.exit(main())
