"""Rolling upgrades of real nodes under load: ``python -m tests.cluster.upgrades --minutes 10``.

Three nodes get a newer build one after the other and go back to the older one, again and again, while clients with their
default settings write and count through all of them. In the end the level is raised; the older build then refuses to start,
and the cluster goes on with the newer one. Exit code 1 when a call of a client failed, a write was lost, or nodes differ.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cluster import newer_build, processes  # noqa: E402 - the path comes first
from cluster.processes import NodeProcess, Nodes, wait_for  # noqa: E402
from fakes.newer_build import LABELLED  # noqa: E402

from cacheflow import CacheClient  # noqa: E402
from cacheflow.cli.launcher import terminable  # noqa: E402

OLDER, NEWER = processes.PROGRAM, newer_build.PROGRAM
COUNTER = "upgrades/counter"
KEYS_EACH = 50


class Caller:
    """A client with its default settings, whose calls must all succeed. failures: those that did not."""

    def __init__(self, name: str, urls: Sequence[str]) -> None:
        self.name = name
        self.counted = self.calls = 0
        self.written: dict[str, int] = {}
        self.failures: list[str] = []
        self._urls = urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the call under way, and end."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self.name} still waits for an answer"

    def _run(self) -> None:
        with CacheClient(self._urls, discover=False) as client:
            while not self._stop.is_set():
                self.calls += 1
                try:
                    self._call(client)
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _call(self, client: CacheClient) -> None:
        step = self.calls
        if step % 3 == 0:
            client.incr(COUNTER, initial=0)
            self.counted += 1
            return
        key = f"upgrades/{self.name}/{step % KEYS_EACH}"
        client.set(key, step)
        self.written[key] = step
        if step % 3 == 1:
            found = client.get(key, consistency="linearizable")
            assert found == step, f"{key} is {found}, and {step} was acknowledged"


class Load:
    """Callers that begin with different nodes. Leaving the context ends them."""

    def __init__(self, nodes: Nodes, callers: int = 4) -> None:
        urls = [node.url for node in nodes.all]
        turned = [urls[number % len(urls) :] + urls[: number % len(urls)] for number in range(callers)]
        self._nodes = nodes
        self.callers = [Caller(f"caller-{number}", each) for number, each in enumerate(turned)]

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self.callers:
            caller.stop()

    @property
    def calls(self) -> int:
        """Calls of all callers so far."""
        return sum(caller.calls for caller in self.callers)

    def check(self) -> None:
        """Check, after the end, that no call failed, nothing was lost, each was counted once, and all nodes are equal."""
        failures = [failure for caller in self.callers for failure in caller.failures]
        assert not failures, f"{len(failures)} of {self.calls} calls failed: {failures[:3]}"
        for node in self._nodes.all:
            assert node.value(COUNTER) == sum(caller.counted for caller in self.callers)
            for caller in self.callers:
                lost = {key: value for key, value in caller.written.items() if node.own_value(key) != value}
                assert not lost, f"{node.node_id} has lost {lost}"
        self._nodes.wait_level()
        wait_for(lambda: len({node.digest("?full") for node in self._nodes.all}) == 1, "the contents are equal")


def install(nodes: Nodes, node: NodeProcess, program: str) -> None:
    """Stop a node as an operator does, install a build, start it, and wait until the cluster is whole."""
    node.signal(signal.SIGTERM)
    assert node.wait() == 0, node.output()[-2000:]
    node.program = program
    node.start()
    nodes.wait_whole()


def roll(nodes: Nodes, program: str, then: Callable[[NodeProcess], None] = lambda node: None) -> None:
    """Install a build on one node after the other."""
    for node in nodes.all:
        install(nodes, node, program)
        then(node)


def raise_level(node: NodeProcess, level: int) -> tuple[int, str]:
    """Ask for a level; return the status of the answer and what it says."""
    answer = node.ask("POST", "/cluster/level", {"level": level})
    return answer.status, answer.body.get("detail", "")


def check_raised(nodes: Nodes) -> None:
    """Raise the level, and check what is different afterwards."""
    first, second, third = nodes.all
    assert first.put("label/before", "mine").status == 201 and second.value("label/before") == "mine"
    assert raise_level(third, 2) == (200, "")
    wait_for(lambda: all(node.status().get("level") == 2 for node in nodes.all), "level 2 is in force everywhere")
    for node in nodes.all:
        assert node.put(f"label/{node.node_id}", "mine").status == 201
        assert node.own_value(f"label/{node.node_id}") == LABELLED.decode()
    # There is no way back.
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    said = len(second.output())
    second.program = OLDER
    second.start()
    assert second.wait() == 2
    assert "written by a newer CacheFlow (level 2; this build knows 1): install" in second.output()[said:]
    second.program = NEWER
    second.start()
    nodes.wait_whole()


def main() -> int:
    """Roll back and forth for so many minutes; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.upgrades", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    ends_at, rolls = time.monotonic() + 60 * given.minutes, 0
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="cacheflow-upgrades-") as folder,
        Nodes(3, Path(folder)) as nodes,
    ):
        nodes.start()
        with Load(nodes) as load:
            while time.monotonic() < ends_at or rolls % 2 == 0:
                roll(nodes, NEWER if rolls % 2 == 0 else OLDER)
                rolls += 1
                print(
                    f"{rolls} rolls, {load.calls} calls, {sum(len(c.failures) for c in load.callers)} failed",
                    flush=True,
                )
            check_raised(nodes)
        load.check()
        print(f"{rolls} rolls of 3 nodes and a raise: {load.calls} calls, 0 failed, 0 lost, digests equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
