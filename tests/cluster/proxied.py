"""A network of real nodes that can be cut without any privilege: every node advertises the address of a proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from cluster.partitions import Cut
from cluster.processes import HOST, ROOT, Place

# The proxy stands on the node's own port, at another of Linux's loopback addresses.
PROXY_HOST = "127.0.0.2"


def missing() -> str:
    """Return why there can be no proxy here; "" when there can."""
    return "" if sys.platform == "linux" else f"the proxy needs {PROXY_HOST} beside {HOST}, as Linux has it"


class ProxyNetwork:
    """A ``Network``. One process carries everything between the nodes.

    bytes_per_s: in each direction of a connection; None for any number.
    """

    kind = "a proxy"

    def __init__(self, bytes_per_s: int | None = None) -> None:
        narrow = [] if bytes_per_s is None else [str(bytes_per_s)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.proxy", *narrow],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def place(self, node_id: str) -> Place:
        """Return a place on loopback that is advertised at the proxy's address."""
        return Place(HOST, PROXY_HOST)

    def attach(self, node_id: str, raft_port: int) -> None:
        """Have the proxy listen for a node."""
        self._order("relay", [node_id, PROXY_HOST, raft_port, HOST])

    def namespace(self, node_id: str) -> str | None:
        """Return None: all nodes are in this process's namespace."""
        return None

    def cut(self, pairs: Cut) -> None:
        """See ``Network``."""
        self._order("cut", sorted(pairs))

    def close(self) -> None:
        """End the proxy's process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _order(self, order: str, given: Any) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({order: given}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == "done\n", f"the proxy did not obey {order} {given}: {answer!r}"
