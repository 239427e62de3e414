"""Faults on a real cluster, chosen by a seed: each is done, held for a while, undone, and waited for until all is whole."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from cluster import partitions
from cluster.damage import SmallDisk, damage, empty
from cluster.disk_shim import hold_of
from cluster.embedded import EmbeddedMember
from cluster.partitions import Network
from cluster.processes import NodeProcess, Nodes, wait_for

# The kinds of faults, and how often each is chosen compared with the others.
WEIGHTS = {
    "kill_leader": 5.0,
    "kill_some": 3.0,
    "kill_all": 1.0,
    "pause": 2.5,
    "split": 2.5,
    "ring": 2.0,
    "one_way": 2.5,
    "cut_and_kill": 1.5,
    "rolling_restart": 0.4,
    "corrupt": 0.6,
    "disk_full": 0.4,
    "hung_disk": 2.0,
    "reopen_embedded": 0.5,
    "join": 0.3,
    "leave": 0.5,
}
# The most nodes that join beside the first ones.
JOIN_MAX = 2
WHOLE_AGAIN_S = 45.0


class Nemesis:
    """The faults of one run. Not safe for concurrent use: the thread that starts the nodes' processes owns it.

    stopping: set when the run is over or a promise is broken; then holds end at once.  hangs: the nodes' disks can hang.
    """

    def __init__(
        self,
        nodes: Nodes,
        network: Network,
        random: Random,
        stopping: threading.Event,
        *,
        embedded: EmbeddedMember | None = None,
        disk: SmallDisk | None = None,
        hangs: bool = False,
        kinds: Sequence[str] = tuple(WEIGHTS),
        joined: Callable[[NodeProcess], None] = lambda node: None,
    ) -> None:
        # kills, partitions, pauses: processes or cuts; every other kind by its name.
        self.done: Counter[str] = Counter()
        self.log: list[str] = []
        self._nodes = nodes
        self._network = network
        self._random = random
        self._stopping = stopping
        self._embedded = embedded
        self._disk = disk
        self._hangs = hangs
        self._joined = joined
        self._size = len(nodes.all)
        self._kinds = [kind for kind in kinds if self._possible(kind)]
        self._drawn: Counter[str] = Counter()

    def _possible(self, kind: str) -> bool:
        if kind == "disk_full":
            return self._disk is not None
        if kind == "hung_disk":
            return self._hangs
        return kind != "reopen_embedded" or self._embedded is not None

    def step(self) -> str:
        """Run one fault from its beginning to its end; return what it was. Raises AssertionError when it is not whole again."""
        # Whoever came seldom so far, for its weight: a short run has kinds of every sort too.
        kind = min(self._kinds, key=lambda each: (self._drawn[each] + self._random.random()) / WEIGHTS[each])
        self._drawn[kind] += 1
        self.log.append(kind)
        try:
            getattr(self, f"_{kind}")()
        finally:
            self._network.cut(set())
        self.wait_whole(f"after {self.log[-1]}")
        return self.log[-1]

    def wait_whole(self, when: str = "") -> None:
        """Wait until every node runs, is ready and names the same leader."""
        wait_for(self._nodes.is_whole, f"the cluster is whole {when}", WHOLE_AGAIN_S)
        if self._embedded is not None:
            wait_for(self._embedded.is_ready, f"the embedded member is ready {when}", WHOLE_AGAIN_S)

    # The kinds.

    def _kill_leader(self) -> None:
        leader = self._leader()
        if self._embedded is None or leader != self._embedded.name:
            self._kill([node for node in self._nodes.all if node.node_id == leader], 2.0)
        elif self._random.random() < 0.5:
            self._reopen_embedded()  # this very process can hardly be killed
        else:
            self._kill_some()

    def _kill_some(self) -> None:
        count = self._random.randint(1, max(1, (self._size - 1) // 2))
        self._kill(self._random.sample(self._nodes.all, count), 3.0)

    def _kill_all(self) -> None:
        self._kill(self._nodes.all, 1.0)

    def _kill(self, victims: Sequence[NodeProcess], hold_s: float) -> None:
        self._note(victims)
        for node in victims:
            node.signal(signal.SIGKILL)
        for node in victims:
            node.wait()
        self.done["kills"] += len(victims)
        self._hold(0.0, hold_s)
        for node in victims:
            node.start()

    def _pause(self) -> None:
        leading = [node for node in self._nodes.all if node.node_id == self._leader()]
        victims = leading if leading and self._random.random() < 0.6 else self._random.sample(self._nodes.all, 1)
        self._note(victims)
        for node in victims:
            node.signal(signal.SIGSTOP)
        self.done["pauses"] += len(victims)
        try:
            self._hold(0.3, 4.0)
        finally:
            for node in victims:
                node.signal(signal.SIGCONT)

    def _split(self) -> None:
        names = self._names()
        alone = self._random.choice([self._leader(), *names])
        shape = partitions.isolated(alone, names)
        if self._random.random() < 0.5:
            shape = partitions.halves(names, self._random)
        self._cut(shape)
        self._hold(0.5, 5.0)

    def _ring(self) -> None:
        self._cut(partitions.ring(self._names(voters=True), self._random))
        self._hold(0.5, 5.0)

    def _one_way(self) -> None:
        names = self._names()
        chosen = self._random.choice([self._leader(), *names])
        self._cut(partitions.deaf_or_dumb(chosen, names, self._random))
        self._hold(0.5, 5.0)

    def _cut_and_kill(self) -> None:
        names = self._names()
        shapes = (partitions.halves(names, self._random), partitions.ring(names, self._random))
        self._cut(self._random.choice(shapes))
        self._hold(0.1, 1.5)
        self._kill(self._random.sample(self._nodes.all, self._random.randint(1, 2)), 2.0)
        self._hold(0.0, 2.0)

    def _rolling_restart(self) -> None:
        for node in self._random.sample(self._nodes.all, len(self._nodes.all)):
            node.signal(signal.SIGTERM)
            code = node.wait()
            assert code == 0, f"{node.node_id} ended with {code} after SIGTERM: {node.output()[-2000:]}"
            node.start()
            self.wait_whole("between two restarts")
        self.done["rolling restarts"] += 1

    def _corrupt(self) -> None:
        """Damage a node's disk: it must refuse to start and say what to do; emptied, it comes back."""
        node = self._random.choice(self._nodes.all)
        self._note([node])
        node.kill()
        self.done["kills"] += 1
        what = damage(node.data_dir, self._random)
        self.log[-1] += f" {what}"
        before = len(node.output())
        code = node.start().wait()
        said = node.output()[before:]
        assert code == 2 and str(node.data_dir) in said and "--seed" in said, f"{what}: exit {code}, {said[-1500:]}"
        empty(node.data_dir)
        node.start()
        self.done["corrupted files"] += 1

    def _disk_full(self) -> None:
        assert self._disk is not None
        node = self._disk.node
        self._note([node])
        others = self._nodes.others(node)
        with self._disk.filled():
            # The journal has space reserved; these values use it up.
            for number in range(100):
                if self._stopping.is_set() or node.try_get("/readyz").status != 200:
                    break
                others[0].put(f"filling/{number % 4}", "y" * 900_000)
            else:
                raise AssertionError(f"{node.node_id} is ready with a full disk")
            self._hold(0.2, 2.0)
            node.kill()
        node.start()
        self.done["full disks"] += 1

    def _hung_disk(self) -> None:
        # Whoever has joined since has a disk that always works.
        able = [node for node in self._nodes.all if "DISK_SHIM_HOLD" in node.environment]
        leading = [node for node in able if node.node_id == self._leader()]
        node = self._random.choice(leading if leading and self._random.random() < 0.6 else able)
        self._note([node])
        hold_of(node).touch()
        try:
            self._hold(0.5, 6.0)
        finally:
            hold_of(node).unlink()
        self.done["hung disks"] += 1

    def _reopen_embedded(self) -> None:
        assert self._embedded is not None
        self._embedded.close()
        self._hold(0.0, 1.0)
        self._embedded.start()
        self.done["embedded members reopened"] += 1

    def _join(self) -> None:
        if len(self._nodes.all) >= self._size + JOIN_MAX:
            return
        node = self._nodes.add()
        self._network.attach(node.node_id, node.raft_port)
        self._note([node])
        node.start()
        self.wait_whole("with one more")
        # A founder, too, must find the others again when its directory was emptied.
        know_each_other(self._nodes)
        self._joined(node)
        self.done["joins"] += 1

    def _leave(self) -> None:
        """Remove a member, whichever it is; emptied, it comes back."""
        node = self._random.choice(self._nodes.all)
        self._note([node])
        answer = self._random.choice(self._nodes.all).ask("DELETE", f"/nodes/{node.node_id}")
        assert answer.status == 204, f"{node.node_id} is not removed: {answer}"
        self._hold(0.0, 2.0)
        node.kill()
        empty(node.data_dir)
        node.start()
        self.done["leaves"] += 1

    # Helpers.

    def _leader(self) -> str:
        """Return the leader that all nodes name."""

        def named() -> set[str | None]:
            found = {node.leader_id() for node in self._nodes.all}
            return found if len(found) == 1 and None not in found else set()

        return str(next(iter(wait_for(named, "all name the same leader"))))

    def _names(self, voters: bool = False) -> list[str]:
        if voters:
            rows = next(iter(self._nodes.others())).members()
            return sorted(node_id for node_id, row in rows.items() if row["voter"])
        return [node.node_id for node in self._nodes.all] + ([self._embedded.name] if self._embedded else [])

    def _cut(self, pairs: partitions.Cut) -> None:
        self.log[-1] += " " + " ".join(f"{source}>{target}" for source, target in sorted(pairs))
        self._network.cut(pairs)
        self.done["partitions"] += 1

    def _note(self, victims: Sequence[NodeProcess]) -> None:
        self.log[-1] += " " + " ".join(node.node_id for node in victims)

    def _hold(self, least_s: float, most_s: float) -> None:
        self._stopping.wait(self._random.uniform(least_s, most_s))


def know_each_other(nodes: Nodes) -> None:
    """Every node gets all others as seeds: one whose directory was emptied joins, whoever it was."""
    for node in nodes.all:
        node.seeds = [other.url for other in nodes.all if other is not node]
