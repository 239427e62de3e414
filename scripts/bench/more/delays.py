"""What each delay on the way of a write is worth: a cluster as it is beside one without that delay, in turns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cacheflow.node import proposals
from cacheflow.raft.log import journal
from cacheflow.raft.roles import leader
from cacheflow.raft.roles.batching import Batching
from cacheflow.raft.roles.replication import Replicator
from scripts.bench.harness import Verdict, cluster, median, node_command
from scripts.bench.loadgen import LoadGenerator

MUST = "each delay on the way of a write makes something better by 3 % or more: SETs, linearizable GETs, or one client's SET"
LIMIT_S = 900
WORTH = 1.03
WHAT = "what each delay on the way of a write is worth"
# (name, the load generator's operation, connections, on the leader alone)
LOADS = (("set", "set", 64, False), ("few", "set", 8, False), ("lget", "lget", 64, False), ("lone", "set", 1, True))


@dataclass(frozen=True)
class Delay:
    """One delay: where it is, what waits for what, and how a node is made to do without."""

    where: str
    what: str
    take_away: Callable[[], None]


def _without_gathering() -> None:
    proposals.GATHER_FROM = sys.maxsize


def _without_batching() -> None:
    Batching.should_wait = lambda self, present, last_index: False  # type: ignore[method-assign]


def _without_one_entry() -> None:
    leader.ENTRIES_AHEAD_MAX = sys.maxsize


def _without_waiting_for_the_commit() -> None:
    Replicator.choose_ahead = lambda self, voter_ids: None  # type: ignore[method-assign]


def _without_relaxed_flushes() -> None:
    add = journal.Journal.add

    def at_once(self: journal.Journal, command: bytes, idx: int, term: int, awaited: bool = True) -> None:
        add(self, command, idx, term)

    journal.Journal.add = at_once  # type: ignore[method-assign]


DELAYS = {
    "gather": Delay(
        "`node/proposals.py`, each node",
        f"after a block of {proposals.GATHER_FROM} callers and more the next one waits for as many, "
        f"{proposals.GATHER_S * 1000:g} ms at most",
        _without_gathering,
    ),
    "entry": Delay(
        "`raft/roles/leader.py`, the leader",
        "the next entry waits until the one before is committed",
        _without_one_entry,
    ),
    "company": Delay(
        "`raft/roles/batching.py`, the leader",
        "an entry with a crowd's block waits for the other nodes' crowds, 1.5 ms at most",
        _without_batching,
    ),
    "commit": Delay(
        "`raft/roles/replication.py`, the leader",
        "who is not needed for the majority gets an entry when it is committed",
        _without_waiting_for_the_commit,
    ),
    "flush": Delay(
        "`raft/log/journal.py`, a follower",
        f"what comes committed is flushed with what comes next, after {journal.RELAXED_S * 1000:g} ms at most",
        _without_relaxed_flushes,
    ),
}


def run(repeats: int = 5, seconds: float = 1.2) -> Verdict:
    """Ratios of medians of the turns: rates with the delay over those without; for one client the median latencies."""
    found: dict[str, dict[str, float]] = {}
    with contextlib.closing(LoadGenerator()) as load:
        for name in DELAYS:
            found[name] = _compare(load, name, repeats, seconds)
    told = "; ".join(f"{name}: {_told(each)}" for name, each in found.items())
    return Verdict(told, all(_is_worth_it(each) for each in found.values()), found)


def shown(figures: dict[str, Any]) -> str:
    """What the one that is worth least is worth."""
    return "; ".join(f"{name} {_told(each)}" for name, each in figures.items())


def table(figures: dict[str, Any] | None) -> list[str]:
    """One line a delay."""
    lines = [
        "| delay | where | SET, 64 connections | SET, 8 | linearizable GET, 64 | SET, one client, median |",
        "|---|---|---|---|---|---|",
    ]
    for name, delay in DELAYS.items():
        found = (figures or {}).get(name)
        cells = [f"x {found[load]:.2f}" if found else "not measured yet" for load, *_ in LOADS]
        lines.append(f"| {delay.what} | {delay.where} | {' | '.join(cells)} |")
    return lines


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{load} x {found[load]:.2f}" for load, *_ in LOADS)


def _is_worth_it(found: dict[str, float]) -> bool:
    return max(found["set"], found["few"], found["lget"], 1 / found["lone"]) >= WORTH


def _compare(load: LoadGenerator, name: str, repeats: int, seconds: float) -> dict[str, float]:
    measured: dict[str, tuple[list[float], list[float]]] = {each: ([], []) for each, *_ in LOADS}
    with _cluster("-") as with_it, _cluster(name) as without:
        for ports in (with_it, without):
            load.fill("resp", ports[0])
        for each, operation, connections, on_leader in LOADS:
            for _ in range(repeats):
                for ports, values in zip((with_it, without), measured[each], strict=True):
                    chosen = ports[:1] if on_leader else ports
                    got = load.run("resp", operation, chosen, connections=connections, seconds=seconds)
                    values.append(got.p50_us if on_leader else got.per_s)
    return {each: round(median(pair[0]) / median(pair[1]), 3) for each, pair in measured.items()}


@contextlib.contextmanager
def _cluster(delay: str) -> Iterator[Sequence[int]]:
    """The RESP ports of a cluster without that delay, the leader's first."""
    command = node_command("without", delay)
    with cluster("--max-items", "1000000", "--resp-port", "0", command=command) as nodes:
        leader = nodes.led_by()
        yield [child.wire_ports["--resp-port"] for child in (leader, *nodes.others(leader))]
