"""What every row needs: a cluster in a temporary folder, a verdict, and the machine it was measured on."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cacheflow.cli.launcher import Child, LocalCluster


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
        running = Cluster(nodes, Path(data), flags=flags, command=command, say=lambda line: print(line, file=log))
        stack.enter_context(running)
        running.start()
        running.wait_ready()
        yield running


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


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``min / median / max``."""
    ordered = sorted(values)
    chosen = (ordered[0], ordered[len(ordered) // 2], ordered[-1])
    return " / ".join(f"{value:.{digits}f}" for value in chosen)


def rounded(number: float) -> str:
    """``number`` to four digits, with commas: a rate says no more.  Nothing behind the point."""
    digits = 3 - math.floor(math.log10(abs(number))) if number else 0
    return f"{round(number, min(digits, 0)):,.0f}"
