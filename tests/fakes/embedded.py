"""Embedded nodes for tests: in this process, on ports from the kernel, always closed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cacheflow.cli.launcher import free_ports
from cacheflow.store import ReplicatedStore

DEADLINE_S = 20.0
# Elections that a test waits for need not take a second; a busy machine must not cause others.
QUICK: dict[str, Any] = {"election_timeout_s": 0.5, "heartbeat_s": 0.05}

# How the names of clients' threads begin.
CLIENTS = ("cacheflow-client", "cacheflow-members", "cacheflow-names")

T = TypeVar("T")


def wait_for(condition: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + deadline_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not so within {deadline_s} s"
        time.sleep(0.005)


def node_threads() -> list[str]:
    """The threads of nodes in this process; clients of other tests may still have theirs."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("cacheflow") and not name.startswith(CLIENTS)]


@contextlib.contextmanager
def three_nodes(folder: Path, **settings: Any) -> Iterator[list[ReplicatedStore]]:
    """Three founding nodes that know each other by their peer addresses, ready."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    stores = [
        ReplicatedStore(
            node_id=f"node-{number}",
            raft_address=address,
            peers=addresses,
            data_dir=folder / f"node-{number}",
            **{**QUICK, **settings},
        )
        for number, address in enumerate(addresses, 1)
    ]
    with contextlib.ExitStack() as stack:
        for store in stores:
            stack.callback(store.close)
            store.start()
        for store in stores:
            store.wait_ready(DEADLINE_S)
        # The third vote comes when the third node has caught up.
        wait_for(lambda: all(row["voter"] and row["status"] == "up" for row in stores[0].nodes()))
        wait_for(lambda: len(stores[0].nodes()) == 3)
        yield stores


def leader_of(stores: list[ReplicatedStore]) -> ReplicatedStore:
    """The node that leads."""
    # An empty cache is false, as any mapping: look at the list.
    return wait_for(lambda: [store for store in stores if store.status()["role"] == "leader"])[0]


class Waiting:
    """A call in a thread of its own, and how it ended."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.began_at = time.monotonic()
        self.took_s = 0.0
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # told by ``end``
            self.error = error
        self.took_s = time.monotonic() - self.began_at

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return not self._thread.is_alive()

    def end(self, deadline_s: float = DEADLINE_S) -> BaseException | None:
        """Wait for its end; its error, or None."""
        self._thread.join(deadline_s)
        assert self.ended, "the call still waits"
        return self.error
