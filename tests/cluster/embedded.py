"""A member of a real cluster in this process, with its loop in the network namespace that the network of the run names."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.partitions import Network
from cluster.processes import NodeProcess, wait_for

from cacheflow.cli.launcher import free_ports
from cacheflow.store import ReplicatedStore

CLONE_NEWNET = 0x40000000


class EmbeddedMember:
    """A member that runs in this process. Not safe for concurrent use, except ``store``."""

    def __init__(self, network: Network, folder: Path, nodes: Sequence[NodeProcess], request_timeout_s: float) -> None:
        self.name = "embedded"
        place = network.place(self.name)
        (raft_port,) = free_ports(1)
        network.attach(self.name, raft_port)
        self._namespace = network.namespace(self.name)
        flags = dict(zip(place.flags[::2], place.flags[1::2], strict=True))
        self._settings: dict[str, Any] = {
            "raft_address": f"{place.host}:{raft_port}",
            "advertise": place.advertise,
            "node_id": self.name,
            # Without HTTP of its own it joins over the peer protocol.
            "peers": [node.raft_address for node in nodes],
            "data_dir": str(folder / self.name),
            "request_timeout_s": request_timeout_s,
            "cluster_secret_file": flags.get("--cluster-secret-file"),
            "api_token_file": flags.get("--api-token-file"),
        }
        self._store: ReplicatedStore

    def store(self) -> ReplicatedStore:
        """The store of the present start."""
        return self._store

    def start(self) -> None:
        """Open the store, or open it again."""
        self._store = ReplicatedStore(**self._settings)
        failed: list[BaseException] = []

        def start() -> None:
            try:
                if self._namespace is not None:
                    _enter(self._namespace)
                self._store.start()
            except BaseException as error:  # raised in the caller's thread
                failed.append(error)

        # A thread begins in the namespace of the one that starts it: the store's loop follows this one.
        thread = threading.Thread(target=start, name="embedded-start")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def is_ready(self) -> bool:
        """Return whether the store answers and knows a leader."""
        return all(good for _, good, _ in self._store.readiness())

    def wait_ready(self) -> None:
        """Wait until the member is ready."""
        wait_for(self.is_ready, "the embedded member is ready")

    def votes(self) -> bool:
        """Return whether this member is a voter, as far as it knows."""
        return any(row["id"] == self.name and row["voter"] for row in self._store.nodes())

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(descriptor)
