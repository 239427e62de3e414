"""What every row needs: a cluster in a temporary folder, a verdict, and the machine it was measured on."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cacheflow import ReplicatedStore
from cacheflow.cli.launcher import Child, LocalCluster, ask, free_ports

NODE = Path(__file__).with_name("node.py")
POLL_S = 0.01
# A node with 10^6 items has built a snapshot, or is up again, in less.
WITHIN_S = 120.0
# The lines of a node's end that hold the stacks of its fifty threads.
STACK_LINES = 5_000


@dataclass(frozen=True)
class Verdict:
    """What one row found. passed: None when it could not be judged here; ``measured`` then says why.

    figures: the few that the tables are made from; they are kept.  details: all else that is worth a look.
    """

    measured: str
    passed: bool | None
    figures: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class OutOfTime(KeyboardInterrupt):
    """A row's time is over. A KeyboardInterrupt, because an event loop swallows every other exception."""


class Cluster(LocalCluster):
    """A LocalCluster whose nodes can be frozen and started again. Every death that was not asked for is an error."""

    def restart(self, child: Child) -> None:
        """Start an ended node again, on its own data; returns at once. From the main thread."""
        all_children, self.children = self.children, [child]
        try:
            child.death_told = False
            self.start()
        finally:
            self.children = all_children

    def freeze(self, child: Child) -> None:
        """SIGSTOP: its connections stay open and nobody answers."""
        os.kill(self.pid(child), signal.SIGSTOP)

    def pid(self, child: Child) -> int:
        """The node's process."""
        assert child.process is not None
        return child.process.pid

    def others(self, child: Child) -> list[Child]:
        """All nodes but this one."""
        return [each for each in self.children if each is not child]

    @property
    def resp_ports(self) -> list[int]:
        """Of every node, where they were asked to have one."""
        return [child.wire_ports["--resp-port"] for child in self.children]

    def restart_s(self, child: Child, path: str) -> float:
        """End the node, start it again, and return the seconds until it is ready and answers ``path`` with 200."""
        self.kill(child)
        began = time.monotonic()
        self.restart(child)
        self.wait_answer(child, "/readyz")
        self.wait_answer(child, path)
        return time.monotonic() - began

    def wait_answer(self, child: Child, path: str) -> None:
        """Until the node answers ``path`` with 200. Raises RuntimeError when it ends."""

        def answers() -> bool:
            if not child.alive:
                raise RuntimeError(f"{child.node_id} ended: {' | '.join(list(child.tail)[-3:])}")
            return ask(child.url, path)[0] == 200

        wait_until(answers, f"{child.node_id} answers {path}")

    def begin_snapshot(self, child: Child) -> None:
        """Have a node of the kind ``on-demand`` build a snapshot; returns once its helper process runs."""
        os.kill(self.pid(child), signal.SIGUSR1)
        wait_until(lambda: self.is_building(child), "a snapshot begins")

    def is_building(self, child: Child) -> bool:
        """Whether the node has a helper process."""
        return bool(children(self.pid(child)))

    def wait_built(self, child: Child) -> None:
        """Until the node's snapshot is there."""
        wait_until(lambda: not self.is_building(child), "a snapshot ends")

    def led_by(self) -> Child:
        """The leader. Raises RuntimeError when no node knows one."""
        leader = self.leader()
        if leader is None:
            raise RuntimeError("the cluster has no leader")
        return leader

    def stop(self) -> None:
        """End all nodes, frozen ones too. Raises RuntimeError when one had ended by itself."""
        fallen = [child for child in self.children if child.process and not child.alive and not child.death_told]
        for child in self.children:
            if child.alive:
                os.kill(self.pid(child), signal.SIGCONT)
        super().stop()
        if fallen:
            raise RuntimeError(
                "; ".join(f"{child.node_id} ended: {' | '.join(list(child.tail)[-3:])}" for child in fallen)
            )


class Logs:
    """Where the nodes' lines go: into one file a cluster, or nowhere. folder: set once by the entry."""

    folder: Path | None = None
    row: str = ""


@contextlib.contextmanager
def cluster(*flags: str, nodes: int = 3, command: Sequence[str] | None = None) -> Iterator[Cluster]:
    """A ready cluster with default settings but for ``flags``; gone with its data afterwards."""
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheflow-bench-"))
        log = stack.enter_context(_log())
        # So that a node that is ended by SIGABRT shows where its threads stand.
        os.environ["PYTHONFAULTHANDLER"] = "1"
        running = Cluster(nodes, Path(data), flags=flags, command=command, say=lambda line: print(line, file=log))
        stack.enter_context(running)
        running.start()
        running.wait_ready()
        yield running


def stacks_of(nodes: Cluster) -> list[str]:
    """Ends all nodes by SIGABRT; returns what each says of itself before that, and the stacks of its threads at its end."""
    told = []
    for child in nodes.children:
        if child.alive:
            for path in ("/readyz?verbose", "/cluster/status", "/metrics?format=json"):
                told.append(f"{child.node_id} {path}: {ask(child.url, path)}")
    for child in nodes.children:
        if child.alive:
            # Every stack is to be seen, not the last lines of one.
            child.tail = deque(maxlen=STACK_LINES)
            child.death_told = True
            os.kill(nodes.pid(child), signal.SIGABRT)
    nodes.stop()
    return told + [f"{child.node_id}: {line}" for child in nodes.children for line in child.tail]


@contextlib.contextmanager
def stores(count: int) -> Iterator[list[ReplicatedStore]]:
    """Embedded stores in this process that are one cluster, all ready; gone with their data afterwards."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    with tempfile.TemporaryDirectory(prefix="cacheflow-bench-") as folder, contextlib.ExitStack() as stack:
        opened = [
            ReplicatedStore(
                node_id=f"node-{number}",
                raft_address=address,
                peers=addresses,
                bootstrap=count == 1,
                data_dir=Path(folder) / str(number),
            )
            for number, address in enumerate(addresses)
        ]
        for store in opened:
            # Not ``with store``: that waits for each before the next begins.
            store.start()
            stack.callback(store.close)
        for store in opened:
            store.wait_ready(20)
        yield opened


def node_command(kind: str, *arguments: str) -> list[str]:
    """A cluster's ``command`` whose nodes are of another kind; node.py has them."""
    return [sys.executable, str(NODE), kind, *arguments, "serve"]


def wait_until(condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Raises RuntimeError when it does not become true."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"within {within_s:g} s not so: {what}")
        time.sleep(POLL_S)


def _log() -> TextIO:
    if Logs.folder is None:
        return Path(os.devnull).open("w")
    Logs.folder.mkdir(parents=True, exist_ok=True)
    return (Logs.folder / f"{Logs.row}.log").open("a", buffering=1)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),
    }


def told(on: dict[str, Any]) -> str:
    """``machine()`` in a few words that stay the same from one start of it to the next."""
    kind, _, release = on["system"].partition(" ")
    return f"{on['cores']} cores, Python {on['python']}, {kind} {'.'.join(release.split('.')[:2])}"


def machine_cpu_s() -> float:
    """CPU seconds that anybody used on this machine since it started; what its host took away counts, too."""
    fields = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """CPU seconds that a process used since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(") ")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def ran(pid: int) -> dict[Path, int]:
    """How long each of the process's threads ran so far."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {thread: int((thread / "schedstat").read_text().split()[0]) for thread in threads}


def busiest(pid: int, before: dict[Path, int]) -> Path:
    """The thread that has worked most since; under load on a wire port that is the loop's."""
    now = ran(pid)
    return max(before.keys() & now.keys(), key=lambda thread: now[thread] - before[thread])


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number of values the higher one of the two."""
    return sorted(values)[len(values) // 2]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``min / median / max``."""
    chosen = (min(values), median(values), max(values))
    return " / ".join(f"{value:.{digits}f}" for value in chosen)


def rounded(number: float) -> str:
    """``number`` to four digits, with commas: a rate says no more.  Nothing behind the point."""
    digits = 3 - math.floor(math.log10(abs(number))) if number else 0
    return f"{round(number, min(digits, 0)):,.0f}"
