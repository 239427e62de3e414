"""One run on real processes: a cluster, clients on every node, faults, and everything that was promised checked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from cluster.access import Access, Broken, EmbeddedAccess, HttpAccess, Refused, Unknown
from cluster.damage import SmallDisk
from cluster.disk_shim import let_it_hang
from cluster.embedded import EmbeddedMember
from cluster.histories import Histories
from cluster.nemesis import WEIGHTS, Nemesis, know_each_other
from cluster.partitions import Network
from cluster.processes import NodeProcess, Nodes, wait_for
from cluster.promises import Judge
from cluster.workers import Worker

from scripts.bench.clock_shim import skewed_by

# Short, so that faults do show as refused and unknown.
REQUEST_TIMEOUT_S = 3.0
# A run that does less than this proves little.
RATE_MIN = 100.0
UNKNOWN_MAX = 0.05


@dataclass(frozen=True)
class Plan:
    """The settings of a run.

    seconds: of faults, behind ``calm_s`` without.  clients: on every node.  pause_s: mean time between one's calls.
    epoch_s: how often histories are judged.  embedded_votes: the member in this process is one of the voters; else it
    comes last.  small_disk: one node has a disk that can be filled.  shim: skews the nodes' wall clocks, by hours.
    disk_shim: lets the nodes' disks hang.
    """

    nodes: int
    seconds: float
    seed: int
    kinds: Sequence[str] = tuple(WEIGHTS)
    calm_s: float = 3.0
    clients: int = 2
    pause_s: float = 0.012
    epoch_s: float = 10.0
    embedded_votes: bool = False
    small_disk: bool = False
    shim: str | None = None
    disk_shim: str | None = None


@dataclass
class Report:
    """The result of a run: what was done and found."""

    faults: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    calm_rate: float = 0.0
    checked: int = 0
    leases: int = 0
    earliest_s: float = 0.0
    latest_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def unknown(self) -> float:
        """The part of all calls whose outcome is unknown."""
        sent = self.calls["done"] + self.calls["unknown"]
        return self.calls["unknown"] / sent if sent else 1.0

    def line(self) -> str:
        """Return the report in one line, for people."""
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "no faults"
        return (
            f"{faults}; {self.checked} operations and {self.leases} leases checked (ended at most {self.earliest_s:.2f} s "
            f"early, {self.latest_s:.2f} s late), {100 * self.unknown:.2f} % unknown, {self.calls['refused']} refused, "
            f"{self.calm_rate:.0f} operations/s when calm; {len(self.violations)} violations"
        )


class Campaign:
    """One run of a plan. Run it once, from the thread that stays: the kernel ends the nodes with the thread that started them."""

    def __init__(
        self, plan: Plan, network: Network, folder: Path, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.report = Report()
        self._plan = plan
        self._network = network
        self._folder = folder
        self._say = say
        self._random = Random(plan.seed)
        self._histories = Histories()
        self._judge = Judge(self._histories)
        self._workers: list[Worker] = []
        self._reading: list[Access] = []
        self._stopping = threading.Event()

    def run(self) -> Report:
        """Do the whole run and return its report, which names the violations."""
        with ExitStack() as stack:
            nodes = Nodes(self._plan.nodes, self._folder, self._flags(), self._network.place)
            # Disks are unmounted after the nodes have ended.
            disk = self._small_disk(nodes, stack)
            stack.enter_context(nodes)
            embedded = self._start(nodes, stack)
            nemesis = Nemesis(
                nodes,
                self._network,
                self._random,
                self._histories.violated,
                embedded=embedded,
                disk=disk,
                hangs=self._plan.disk_shim is not None,
                kinds=self._plan.kinds,
                joined=self._add_http,
            )
            judging = threading.Thread(target=self._judge_epochs, args=(nemesis,), name="judge", daemon=True)
            try:
                self._work(nemesis, judging)
                self._end(nodes, embedded)
            except (AssertionError, Broken, Refused, Unknown, OSError) as error:
                self._histories.complain(f"{type(error).__name__}: {error}; {nemesis.log[-1:]}")
                self._stop_workers()
                self._join(judging)
            self._tell(nemesis)
            if self._histories.violations:
                (self._folder / "faults.log").write_text("\n".join(nemesis.log) + "\n")
        return self.report

    def _flags(self) -> list[str]:
        replicas = str(self._plan.nodes - 1)
        return ["--max-items", "none", "--replicas", replicas, "--request-timeout", str(REQUEST_TIMEOUT_S)]

    def _small_disk(self, nodes: Nodes, stack: ExitStack) -> SmallDisk | None:
        if not self._plan.small_disk:
            return None
        try:
            disk = SmallDisk(nodes[-1])
        except OSError as error:
            self._say(f"no full disks: {error}")
            return None
        stack.callback(disk.close)
        return disk

    def _start(self, nodes: Nodes, stack: ExitStack) -> EmbeddedMember:
        for node in nodes.all:
            self._network.attach(node.node_id, node.raft_port)
            if self._plan.shim is not None:
                # The same over all its lives: a clock that jumps while everybody is down moves TTLs, as documented.
                skew_s = self._random.choice((-2, -1, 0, 1, 2)) * 3600
                node.environment = skewed_by(self._plan.shim, skew_s)
            if self._plan.disk_shim is not None:
                let_it_hang(node, self._plan.disk_shim)
        embedded = EmbeddedMember(self._network, self._folder, nodes.all, REQUEST_TIMEOUT_S)
        if self._plan.embedded_votes:
            nodes[0].start()
            wait_for(nodes[0].is_ready, "the founder is ready")
        else:
            nodes.start()
        stack.callback(embedded.close)
        embedded.start()
        embedded.wait_ready()
        if self._plan.embedded_votes:
            wait_for(embedded.votes, "the embedded member votes")
            nodes.start()
        know_each_other(nodes)
        for node in nodes.all:
            self._add_http(node)
        self._add(lambda: EmbeddedAccess(embedded.name, embedded.store))
        return embedded

    def _add_http(self, node: NodeProcess) -> None:
        self._add(lambda: HttpAccess(node))

    def _add(self, access: Callable[[], Access]) -> None:
        self._reading.append(access())
        for number in range(self._plan.clients):
            through = access()
            random = Random(self._random.random())
            worker = Worker(
                f"{through.name}-{number}", through, self._histories, self._judge, random, self._plan.pause_s
            )
            self._workers.append(worker)
            worker.start()

    def _calls(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for worker in self._workers:
            total.update(worker.ended)
        return total

    def _work(self, nemesis: Nemesis, judging: threading.Thread) -> None:
        plan, violated = self._plan, self._histories.violated
        before, began = self._calls()["done"], time.monotonic()
        violated.wait(plan.calm_s)
        self.report.calm_rate = (self._calls()["done"] - before) / (time.monotonic() - began)
        judging.start()
        deadline = time.monotonic() + plan.seconds
        while time.monotonic() < deadline and not violated.is_set():
            nemesis.step()
            # A moment in which everything works, for the next one to be felt.
            violated.wait(self._random.uniform(0.2, 1.0))
        self._stop_workers()
        self._join(judging)

    def _judge_epochs(self, nemesis: Nemesis) -> None:
        """Judge one epoch after another, in a thread of its own, until the workers have ended and the last epoch is judged."""
        while True:
            last = self._stopping.wait(self._plan.epoch_s) or self._histories.violated.is_set()
            epoch = self._histories.turn(60)
            try:
                self._judge.judge(epoch, self._reading)
            except Broken as error:
                self._histories.complain(str(error))
            epoch.save(self._folder)
            self._tell(nemesis)
            self._say(f"{self.report.line()}; last: {nemesis.log[-1] if nemesis.log else '-'}")
            if last:
                return

    def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()
        self._stopping.set()

    def _join(self, judging: threading.Thread) -> None:
        if judging.ident is not None:
            judging.join(120)
            if judging.is_alive():
                self._histories.complain("the last histories cannot be judged: nobody answers reads")

    def _end(self, nodes: Nodes, embedded: EmbeddedMember) -> None:
        """Check at the end, when all is quiet, that all nodes hold the same and that nothing acknowledged is missing."""
        if self._histories.violations:
            return
        wait_for(nodes.is_whole, "the cluster is whole at the end")

        for query in ("", "?full"):
            wait_for(lambda query=query: self._level(nodes, embedded, query), f"all digests{query} are equal")  # type: ignore[misc]
        for access in self._reading:
            access.close()  # an idle connection may have ended with its node
            self._judge.final(access)
            access.close()

    def _level(self, nodes: Nodes, embedded: EmbeddedMember, query: str) -> bool:
        """Return whether all nodes are at one index, at which they may never differ."""
        own = embedded.store().digest(full=bool(query))
        assert own is not None, "the embedded member knows its present digest"
        digests = {(own.index, own.digest), *(node.digest(query) for node in nodes.all)}
        assert len({index for index, _ in digests}) == len(digests), f"digests{query} differ at an index: {digests}"
        return len(digests) == 1

    def _tell(self, nemesis: Nemesis) -> None:
        report, judge = self.report, self._judge
        report.faults, report.calls = Counter(nemesis.done), self._calls()
        report.checked, report.leases = judge.checked, judge.leases_checked
        report.earliest_s, report.latest_s = judge.earliest_s, judge.latest_s
        report.violations = list(self._histories.violations)


def too_little(report: Report) -> list[str]:
    """Return the reasons why a run that found nothing proves nothing."""
    problems = []
    if report.calm_rate < RATE_MIN:
        problems.append(f"only {report.calm_rate:.0f} operations/s before the first fault; {RATE_MIN:.0f} are needed")
    if report.unknown > UNKNOWN_MAX:
        problems.append(
            f"{100 * report.unknown:.1f} % of the outcomes are unknown; {100 * UNKNOWN_MAX:.0f} % are allowed"
        )
    return problems
