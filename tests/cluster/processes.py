"""Real nodes as processes: started, killed, paused and restarted by id, on ports from the kernel, always ended.

A node's process asks the kernel to be killed when this one ends, however it ends (Linux); elsewhere ``Nodes`` does it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cluster.connection import Answer, Connection, path_of

from cacheflow.cli.launcher import free_ports

ROOT = Path(__file__).parent.parent.parent
HOST = "127.0.0.1"
# Seconds for anything to happen: far more than it takes on an idle machine, because tests also run beside others.
DEADLINE_S = 30.0
POLL_S = 0.04

# As ``python -m cacheflow``, but the node does not outlive the tests.
PROGRAM = """
import ctypes, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
from cacheflow.__main__ import run
sys.exit(run())
"""

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str = "", deadline_s: float = DEADLINE_S) -> T:
    """Return the first true answer of ``condition``; fail the test after ``deadline_s``."""
    deadline = time.monotonic() + deadline_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"within {deadline_s:g} s not so: {what or condition}")
        time.sleep(POLL_S)


class Place(NamedTuple):
    """The place where a node runs.

    host: what it listens on.  advertise: where the others find it, when that is elsewhere.  before: the beginning
    of its command line.  flags: those that it needs there.  token: the one that its clients must show.
    """

    host: str = HOST
    advertise: str | None = None
    before: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    token: str | None = None


HERE = Place()


class NodeProcess:
    """One node: its place, its flags, and its process when it runs. seeds: URLs of members."""

    def __init__(
        self,
        number: int,
        folder: Path,
        flags: Sequence[str] = (),
        seeds: Iterable[str] = (),
        place: Place = HERE,
    ) -> None:
        self.node_id = f"node-{number}"
        self.folder = folder
        self.data_dir = folder / self.node_id
        self.port, self.raft_port = free_ports(2)
        self.flags = list(flags)
        self.seeds = list(seeds)
        # Without seeds it founds at once when it is first started, and looks later: its data may be gone.
        self.bootstraps = True
        self.environment: dict[str, str] = {}
        self.program = PROGRAM
        self.place = place
        self.token = place.token
        # The CA of its certificate, where it serves HTTPS.
        self.ca: Path | None = None
        self.log = folder / f"{self.node_id}.log"
        self.process: subprocess.Popen[bytes] | None = None
        # It runs, and answers nobody: SIGSTOP was the last signal.
        self.hangs = False

    @property
    def alive(self) -> bool:
        """True if the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def address(self) -> str:
        """The HTTP address that the node tells the others."""
        return f"{self.place.advertise or self.place.host}:{self.port}"

    @property
    def raft_address(self) -> str:
        """The address at which the others dial the node."""
        return f"{self.place.advertise or self.place.host}:{self.raft_port}"

    @property
    def url(self) -> str:
        """The URL of the node's HTTP API."""
        return f"{'http' if self.ca is None else 'https'}://{self.place.host}:{self.port}"

    def arguments(self) -> list[str]:
        """Return the node's command line."""
        given = ["--node-id", self.node_id, "--port", str(self.port), "--raft-port", str(self.raft_port)]
        given += ["--data-dir", str(self.data_dir)]
        given += ["--host", self.place.host]
        if self.place.advertise is not None:
            given += ["--advertise", self.place.advertise]
        for url in self.seeds:
            given += ["--seed", url]
        if self.bootstraps and not self.seeds:
            given.append("--bootstrap")
        return ["serve", *given, *self.place.flags, *self.flags]

    def start(self) -> NodeProcess:
        """Start the process; returns at once."""
        assert not self.alive
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.place.before, sys.executable, "-c", self.program, *self.arguments()],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.bootstraps = False
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        assert self.process is not None
        self.hangs = number == signal.SIGSTOP
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for the process to end; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def output(self) -> str:
        """Return everything that the node has printed, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def connect(self, timeout_s: float = DEADLINE_S) -> Connection:
        """Return a new connection to the node."""
        return Connection(self.place.host, self.port, timeout_s, self.token, self.ca)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request on a connection of its own; return the answer."""
        with self.connect() as connection:
            return connection.request(method, path, body, headers)

    def try_get(self, path: str) -> Answer:
        """Send one GET; return the answer, with status 0 when nobody answers."""
        try:
            with self.connect(2.0) as connection:
                return connection.request("GET", path)
        except (OSError, http.client.HTTPException):
            return Answer(0, None, {})

    def put(self, key: str, value: Any, ttl: float | None = None) -> Answer:
        """Write a key."""
        return self.ask("PUT", path_of(key), {"value": value} if ttl is None else {"value": value, "ttl": ttl})

    def value(self, key: str) -> Any:
        """Return the value of a key once this node knows every write acknowledged before, by any node; None without a value."""
        return self._value(path_of(key, "?consistency=linearizable"))

    def own_value(self, key: str) -> Any:
        """Return the value of a key as this node has it now; None without a value.

        What another node has acknowledged a moment ago, this one may not have yet.
        """
        return self._value(path_of(key))

    def _value(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status in (200, 404), (self.node_id, path, answer)
        return answer.body["value"] if answer.status == 200 else None

    def is_ready(self) -> bool:
        """Return whether the node says that it is ready."""
        return self.try_get("/readyz").status == 200

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the members by id, as the node lists them."""
        answer = self.try_get("/nodes/list")
        return {row["id"]: row for row in answer.body} if answer.status == 200 else {}

    def leader_id(self) -> str | None:
        """Return the id of the leader that this node knows, or None."""
        return next((node_id for node_id, row in self.members().items() if row["role"] == "leader"), None)

    def status(self) -> dict[str, Any]:
        """Return the node's view of the cluster; empty when it does not answer."""
        answer = self.try_get("/cluster/status")
        return answer.body if answer.status == 200 else {}

    def digest(self, query: str = "") -> Any:
        """Return (index, digest) of the node's contents."""
        answer = self.ask("GET", f"/cluster/digest{query}")
        assert answer.status == 200, answer
        return answer.body["index"], answer.body["digest"]


class Nodes:
    """A cluster of NodeProcesses. Use as a context manager: leaving it ends all of them."""

    def __init__(
        self,
        size: int,
        folder: Path,
        flags: Sequence[str] = (),
        place: Callable[[str], Place] = lambda node_id: HERE,
    ) -> None:
        self.folder = folder
        self.flags = list(flags)
        self._place = place
        self.all: list[NodeProcess] = []
        for _ in range(size):
            self.add()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # A failure that comes seldom is explained by this alone.
            for node in self.all:
                print(f"--- {node.node_id}: {node.status()}\n{node.output()[-3000:]}")
        self.end()

    def __getitem__(self, number: int) -> NodeProcess:
        return self.all[number]

    def add(self, flags: Sequence[str] = ()) -> NodeProcess:
        """Add a node, not started, which joins through the others; the first one founds. Return it."""
        number = len(self.all) + 1
        seeds = [other.url for other in self.all]
        node = NodeProcess(number, self.folder, [*self.flags, *flags], seeds, self._place(f"node-{number}"))
        self.all.append(node)
        return node

    def start(self) -> Nodes:
        """Start all and wait until they are ready."""
        for node in self.all:
            if not node.alive:
                node.start()
        self.wait_whole()
        return self

    def wait_whole(self) -> None:
        """Wait until ``is_whole``."""
        wait_for(self.is_whole, "the cluster is whole")

    def is_whole(self) -> bool:
        """Return whether every node that runs is ready, sees each as up and voting, and names the same leader.

        A learner is ready, too, but before it votes two nodes cannot lose one of them. At most ``replicas`` + 1 vote.
        """
        for node in self.all:
            code = None if node.process is None else node.process.poll()
            assert code in (None, 0, -signal.SIGKILL), f"{node.node_id} ended with {code}: {node.output()[-2000:]}"
        alive = [node for node in self.all if node.alive]
        # A node that is ready knows its cluster's settings.
        if not all(node.is_ready() for node in alive):
            return False
        states = [node.status() for node in alive]
        if not all(states):
            return False
        seen = [{row["id"]: row for row in state["members"]} for state in states]
        most = states[0]["configuration"]["replicas"] + 1
        leaders = {node_id for rows in seen for node_id, row in rows.items() if row["role"] == "leader"}
        return (
            len(leaders) == 1
            and all(rows.get(node.node_id, {}).get("status") == "up" for rows in seen for node in alive)
            and all(
                sum(row["voter"] for row in rows.values())
                >= min(most, sum(not row["observer"] for row in rows.values()))
                for rows in seen
            )
        )

    def leader(self) -> NodeProcess:
        """Return the node that all living nodes call their leader."""

        def find() -> list[NodeProcess]:
            named = {node.leader_id() for node in self.all if node.alive}
            return [node for node in self.all if node.alive and {node.node_id} == named]

        return wait_for(find, "there is one leader")[0]

    def others(self, *but: NodeProcess) -> list[NodeProcess]:
        """Return the living nodes except ``but``."""
        return [node for node in self.all if node.alive and node not in but]

    def wait_level(self) -> int:
        """Wait until the living nodes have applied the same index with the same digest; return that index."""

        def level() -> int:
            found = {node.digest() for node in self.others()}
            return int(next(iter(found))[0]) if len(found) == 1 else 0

        return wait_for(level, "all nodes are level")

    def end(self) -> None:
        """End every process, whatever state it is in."""
        for node in self.all:
            if node.alive:
                with contextlib.suppress(ProcessLookupError):
                    node.signal(signal.SIGKILL)
        for node in self.all:
            if node.process is not None:
                node.wait()
