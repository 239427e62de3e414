"""What replication costs on the wire: bytes of append_entries for each byte of an entry and follower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from cacheflow import ReplicatedStore
from cacheflow.raft.transport.frames import HEADER
from cacheflow.raft.transport.peer_link import PeerLink
from scripts.bench.harness import Verdict, stores, wait_until

MUST = "append_entries bytes of a fault-free load with entries >= 4 KiB: <= 1.2 x bytes of the entries x followers"
LIMIT_S = 120
# It takes seconds: the short form is the whole.
SHORT: dict[str, float] = {}
WHAT = "bytes of append_entries for entries of 4 KiB and more / bytes of the entries x followers"
ENTRY_BYTES_MIN = 4096
MOST = 1.2
FOLLOWERS = 2
# The others get an entry some ms after a majority has it; this is for a machine that is busy with something else.
ARRIVED_WITHIN_S = 20.0
# (name, bytes of a value, clients on each node)
LOADS = (
    ("one client on the leader, 4 KiB", 4096, 0),
    ("clients on all nodes, 4 KiB", 4096, 8),
    ("clients on all nodes, 100 KiB", 102_400, 4),
)


def run(writes: int = 2000) -> Verdict:
    """Three nodes in this process over real sockets. All sends of a load count: heartbeats and commits, too."""
    found: dict[str, dict[str, float]] = {}
    with stores(1 + FOLLOWERS) as nodes, _tapped() as sent:
        wait_until(lambda: _all_vote(nodes), "every node votes")
        for name, value_bytes, clients in LOADS:
            found[name] = _measure(
                nodes, sent, writes if value_bytes == ENTRY_BYTES_MIN else writes // 10, value_bytes, clients
            )
    told = "; ".join(
        f"{name}: {each['ratio']:.3f} ({each['entries']:.0f} entries, the smallest {each['smallest']:.0f} bytes)"
        for name, each in found.items()
    )
    # Below 1 something was not counted: what every follower has in its journal came to it in a message.
    passed = all(1 <= each["ratio"] <= MOST and each["smallest"] >= ENTRY_BYTES_MIN for each in found.values())
    ratios = [each["ratio"] for each in found.values()]
    return Verdict(told, passed, {"least": round(min(ratios), 4), "most": round(max(ratios), 4)}, found)


def shown(figures: dict[str, Any]) -> str:
    """The least and the most of the loads."""
    return f"{figures['least']:.3f} to {figures['most']:.3f}"


def _measure(
    nodes: list[ReplicatedStore], sent: list[tuple[str, int]], writes: int, value_bytes: int, clients: int
) -> dict[str, float]:
    leader = next(store for store in nodes if store.status()["role"] == "leader")
    journal = leader._engine.local.node._journal
    writers = nodes * clients or [leader]
    value = "x" * value_bytes

    def write(number: int) -> None:
        for turn in range(writes // len(writers)):
            writers[number].set(f"{number}:{turn % 20}", value)

    first = journal.last_index + 1
    sent.clear()
    with ThreadPoolExecutor(len(writers)) as threads:
        list(threads.map(write, range(len(writers))))
    last = journal.last_index
    wait_until(lambda: _all_have(nodes, last), f"every node has entry {last}", ARRIVED_WITHIN_S)
    entries = [len(command) for command, _, _ in leader._engine.call(lambda: journal.entries(first))]
    on_the_wire = sum(size for kind, size in sent if kind == "append_entries")
    return {
        "ratio": on_the_wire / (sum(entries) * FOLLOWERS),
        "append_entries_bytes": on_the_wire,
        "entries_bytes": sum(entries),
        "entries": len(entries),
        "smallest": min(entries),
    }


def _all_vote(nodes: list[ReplicatedStore]) -> bool:
    members = nodes[0].nodes()
    return len(members) == len(nodes) and all(member["voter"] for member in members)


def _all_have(nodes: list[ReplicatedStore], index: int) -> bool:
    return all(store._engine.local.node._journal.last_index >= index for store in nodes)


@contextlib.contextmanager
def _tapped() -> Iterator[list[tuple[str, int]]]:
    """(type, bytes with its frame) of every message that a node of this process sends to a peer."""
    sent: list[tuple[str, int]] = []
    send = PeerLink.send

    def tap(link: PeerLink, body: bytes, message: Mapping[str, Any]) -> None:
        sent.append((message["type"], HEADER.size + len(body)))
        send(link, body, message)

    with mock.patch.object(PeerLink, "send", tap):
        yield sent
