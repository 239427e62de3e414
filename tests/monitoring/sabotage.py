"""A node that can be told to go wrong from inside, as machines and programs do: a process of its own, and how to tell it.

Everything else in it is the product: what is broken here is what the node relies on, never what it reports.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from typing import Any

from cluster.processes import HOST, NodeProcess, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.snapshots import building, helper_process
from cacheflow.store import ReplicatedStore

PORT = "SABOTAGE_PORT"
# As ``processes.PROGRAM``, but it listens for what is to go wrong.
PROGRAM = """
import ctypes, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
sys.path[:0] = ["tests"]
from monitoring.sabotage import listen
listen()
from cacheflow.__main__ import run
sys.exit(run())
"""
# The store of this process, and whether its loop may go on.
_stores: list[ReplicatedStore] = []
_released = threading.Event()


def may_be_sabotaged(node: NodeProcess) -> NodeProcess:
    """Have a node that is not started yet listen for what is to go wrong; return it."""
    node.program = PROGRAM
    node.environment = {**node.environment, PORT: str(free_ports(1)[0])}
    return node


def sabotage(node: NodeProcess, what: str, *arguments: Any) -> None:
    """Have something go wrong in a node; return when it has. what: a function of this module that ends in ``_here``."""
    with socket.create_connection((HOST, int(node.environment[PORT])), 30) as told, told.makefile("rwb") as lines:
        lines.write(json.dumps([what, *arguments]).encode() + b"\n")
        lines.flush()
        said = lines.readline()
        assert said == b"done\n", f"{what}{arguments} in {node.node_id}: {said.decode()}{node.output()[-2000:]}"


def hold_loop_here(seconds: float) -> None:
    """Keep the node's loop for so long."""
    _stores[0]._engine.call(lambda: time.sleep(seconds))


def hang_loop_here() -> None:
    """Keep the node's loop until it is released."""

    def stand_still() -> None:
        _released.wait(600)

    _released.clear()
    _stores[0]._engine.on_loop(stand_still)


def release_loop_here() -> None:
    """Let the node's loop go on."""
    _released.set()


def damage_here(key: str) -> None:
    """Change a value in the node's memory, as a broken memory chip would."""

    def change() -> None:
        contents = _stores[0]._engine.local.machine.contents
        contents.raw[key] = (b"7000", *contents.raw[key][1:])

    _stores[0]._engine.call(change)


def break_helper_here(at_bytes: int) -> None:
    """Let no snapshot be built any more, as without memory for another process, and try one at ``at_bytes`` of journal."""
    helper_process._RUN_HELPER = "/nonexistent"  # type: ignore[misc]
    building.JOURNAL_BYTES_MIN = at_bytes
    building.BUILD_AGAIN_MS = building.BUILD_AGAIN_MS_MAX = 1


def break_disk_here() -> None:
    """Let the journal's next write fail, as on a disk that is broken."""

    def fail(self: Disk, handle: int, offset: int, data: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    Disk.write = Disk.write_durably = fail  # type: ignore[method-assign]


def bound_unsent_here(bytes_max: int) -> None:
    """Give the node room for so much that clients do not take."""
    _stores[0].unsent.bytes_max = bytes_max


def bound_connections_here(connections_max: int) -> None:
    """Let each wire port have so many connections."""
    for port, _ in _stores[0]._engine.ports._open:
        port.connections_max = connections_max  # type: ignore[attr-defined]


def listen() -> None:
    """Serve ``sabotage`` in a thread of this process, which is going to be a node."""
    start = ReplicatedStore.start

    def started(self: ReplicatedStore, http_address: str = "") -> ReplicatedStore:
        _stores[:] = [self]
        return start(self, http_address)

    ReplicatedStore.start = started  # type: ignore[method-assign]
    threading.Thread(target=_serve, daemon=True).start()


def _serve() -> None:
    # The port of its last process may not be free at once.
    server = wait_for(lambda: _bound(int(os.environ[PORT])), "the port is free")[0]
    while True:
        client, _ = server.accept()
        with client, client.makefile("rwb") as lines:
            name, *arguments = json.loads(lines.readline())
            try:
                globals()[f"{name}_here"](*arguments)
                lines.write(b"done\n")
            except Exception as error:
                lines.write(f"{type(error).__name__}: {error}\n".encode())


def _bound(port: int) -> list[socket.socket]:
    try:
        return [socket.create_server((HOST, port))]
    except OSError:
        return []
