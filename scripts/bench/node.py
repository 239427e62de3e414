"""The processes that rows start in the place of a plain node: ``node.py KIND ...``.

    without DELAY serve FLAGS               a node without one of its delays: a name of more/delays.py, or "-" for all as they are
    skewed SHIM SECONDS,... serve FLAGS     a node whose wall clock is off; the number behind ``--node-id node-N`` chooses
    on-demand serve FLAGS                   a node that builds a snapshot when it gets SIGUSR1, and otherwise none
    of TREE serve FLAGS                     a node of another version of the project, whose files are in the folder TREE
    empty                                   no node: an empty Flask view on a waitress that is set as a node's is

A kind imports what it needs only when it is chosen: more would count in what rows measure of a node's start and memory.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def without(delay: str, *arguments: str) -> int:
    """Take the delay away, then serve."""
    from cacheflow.cli.main import main
    from scripts.bench.more.delays import DELAYS

    if delay != "-":
        DELAYS[delay].take_away()
    return main(arguments)


def skewed(shim: str, seconds: str, *arguments: str) -> None:
    """Replace this process, so that its pid is the node's."""
    from scripts.bench.clock_shim import skewed_by

    number = int(arguments[arguments.index("--node-id") + 1].rpartition("-")[2])
    environment = {**os.environ, **skewed_by(shim, int(seconds.split(",")[number - 1]))}
    os.execve(sys.executable, [sys.executable, "-m", "cacheflow", *arguments], environment)


def of(tree: str, *arguments: str) -> int:
    """Serve with the files in ``tree``."""
    sys.path[0] = tree
    import cacheflow
    from cacheflow.cli.main import main

    if not str(cacheflow.__file__).startswith(tree):
        raise RuntimeError(f"there is no cacheflow/ in {tree}")
    return main(arguments)


def on_demand(*arguments: str) -> int:
    """A row decides what is on this node's disk: no journal is long enough for a snapshot."""
    from unittest import mock

    from cacheflow.cli.main import main
    from cacheflow.raft import node
    from cacheflow.raft.snapshots import building

    asked: list[int] = []

    class OnDemand(building.Building):
        """Looks once a heartbeat whether it was asked."""

        def consider(self) -> None:
            """As always; and what was asked."""
            super().consider()
            if asked:
                asked.clear()
                self.build()

    def ask(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)

    building.JOURNAL_BYTES_MIN = sys.maxsize
    signal.signal(signal.SIGUSR1, ask)
    with mock.patch.object(node, "Building", OnDemand):
        return main(arguments)


def empty() -> None:
    """The yardstick of row ``rest``: print its port, and serve until stdin ends, as it does when the parent is gone."""
    from flask import Flask

    from cacheflow.config import NodeConfig
    from cacheflow.rest import HttpServer, body_bytes_max

    app = Flask("empty")
    app.add_url_rule("/empty", view_func=lambda: "", methods=["GET", "PUT"])
    threads = NodeConfig().http_threads
    with HttpServer(app, "127.0.0.1", 0, threads=threads, body_bytes_max=body_bytes_max(0)) as server:
        print(server.port, flush=True)
        sys.stdin.read()


KINDS: dict[str, Callable[..., int | None]] = {
    "without": without,
    "skewed": skewed,
    "on-demand": on_demand,
    "of": of,
    "empty": empty,
}

if __name__ == "__main__":
    sys.exit(KINDS[sys.argv[1]](*sys.argv[2:]))
