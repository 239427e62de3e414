"""Clients that write and count without ever sending anything twice, and remember what was acknowledged."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cluster.connection import Connection, path_of
from cluster.processes import NodeProcess, wait_for


class Writer:
    """One client: one connection to one node, keys of its own, one counter shared with all clients.

    acknowledged: key -> the last value that a node acknowledged.  maybe: key -> values whose request was cut or timed
    out since.  refused: answers that are no success and no cut.
    """

    def __init__(self, name: str, node: NodeProcess, counter: str) -> None:
        self.name = name
        self.node = node
        self.counter = counter
        self.acknowledged: dict[str, int] = {}
        self.maybe: dict[str, set[int]] = {}
        self.counted = 0
        self.maybe_counted = 0
        self.refused: list[Any] = []
        self.cuts = 0
        self._stop = threading.Event()
        self._step = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def done(self) -> int:
        """The number of requests that were answered."""
        return self._step - self.cuts

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the request under way, and end."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self.name} still waits for an answer"

    def _run(self) -> None:
        with self.node.connect(timeout_s=40) as connection:
            while not self._stop.is_set():
                self._step += 1
                if self._step % 3:
                    self._write(connection)
                else:
                    self._count(connection)

    def _write(self, connection: Connection) -> None:
        key, value = f"{self.name}/{self._step % 20}", self._step
        try:
            answer = connection.request("PUT", path_of(key), {"value": value})
        except (OSError, http.client.HTTPException):
            self.maybe.setdefault(key, set()).add(value)
            self._cut()
            return
        if answer.status in (200, 201):
            self.acknowledged[key] = value
            self.maybe.pop(key, None)
        else:
            self.maybe.setdefault(key, set()).add(value)
            self.refused.append(answer)

    def _count(self, connection: Connection) -> None:
        try:
            answer = connection.request("POST", path_of(self.counter) + "/incr", {"initial": 0})
        except (OSError, http.client.HTTPException):
            self.maybe_counted += 1
            self._cut()
            return
        if answer.status == 200:
            self.counted += 1
        else:
            self.maybe_counted += 1
            self.refused.append(answer)

    def _cut(self) -> None:
        self.cuts += 1
        # The node is down: come back when it answers again, or when the test is over.
        while not self._stop.wait(0.05):
            if self.node.try_get("/livez").status == 200:
                return


class Load:
    """Several writers on each of several nodes. Leaving the context ends them."""

    def __init__(self, nodes: Sequence[NodeProcess], clients: int = 2, name: str = "load") -> None:
        self.counter = f"{name}/counter"
        self.writers = [
            Writer(f"{name}/{node.node_id}/{number}", node, self.counter) for node in nodes for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers:
            writer.stop()

    def wait_progress(self, steps: int, but: NodeProcess | None = None) -> None:
        """Wait until every writer (except those on ``but``) had that many more answers."""
        before = {writer.name: writer.done for writer in self.writers}
        wait_for(
            lambda: all(writer.node is but or writer.done >= before[writer.name] + steps for writer in self.writers),
            f"every client gets {steps} answers",
        )

    def refused(self, but: NodeProcess | None = None) -> list[Any]:
        """Return the answers that were no success; those of ``but``'s clients left out."""
        return [answer for writer in self.writers if writer.node is not but for answer in writer.refused]

    def cuts(self, but: NodeProcess | None = None) -> int:
        """Return the number of requests without an answer; those of ``but``'s clients left out."""
        return sum(writer.cuts for writer in self.writers if writer.node is not but)

    def check(self, node: NodeProcess) -> None:
        """Check that nothing acknowledged is missing on ``node``, and that nothing was counted twice."""
        node.value(self.counter)
        with node.connect() as connection:
            lost = []
            for writer in self.writers:
                for key, value in writer.acknowledged.items():
                    answer = connection.request("GET", path_of(key))
                    found = answer.body.get("value")
                    if found != value and found not in writer.maybe.get(key, ()):
                        lost.append((key, value, found))
            assert not lost, f"{node.node_id} lost acknowledged writes: {lost[:5]} and {len(lost)} in all"
            counted = sum(writer.counted for writer in self.writers)
            maybe = sum(writer.maybe_counted for writer in self.writers)
            found = connection.request("GET", path_of(self.counter)).body["value"]
        assert counted <= int(found) <= counted + maybe, (node.node_id, counted, found, maybe)

    def summary(self) -> Counter[str]:
        """Return how much was done, for a failing test's message."""
        total: Counter[str] = Counter()
        for writer in self.writers:
            total.update(done=writer.done, cut=writer.cuts, refused=len(writer.refused), counted=writer.counted)
        return total
