"""Whether a disk hangs is told by looks at the journal, and never by the pauses of this process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.raft.core import Core
from cacheflow.raft.hung_disk import DiskWatch

LOOKS = 10


class Node:
    """A journal whose durable position is set by hand, and a core that counts how often its election was postponed."""

    def __init__(self) -> None:
        self.journal = SimpleNamespace(position=5, durable_position=5, durable_index=5, trouble=None)
        self.core = SimpleNamespace(
            is_leader=True, commit_index=5, acknowledged_by_others=5, postpone_election=self.postpone
        )
        self.postponed = 0
        make: Any = DiskWatch
        self.watch: DiskWatch = make(self.core, self.journal, heartbeat_s=0.125, patience_s=0.125 * LOOKS)
        self.watch.look()

    def postpone(self) -> None:
        self.postponed += 1

    def look(self, times: int) -> tuple[bool, bool]:
        """Look so many times; return whether the disk hangs and whether the others go on without it."""
        for _ in range(times):
            self.watch.look()
        return self.watch.hung, self.watch.outrun


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_disk_hangs_when_a_flush_has_not_returned_for_so_many_looks(node: Node) -> None:
    assert node.look(50) == (False, False), "nothing waits"
    node.journal.position = 6
    assert node.look(LOOKS - 1) == (False, False)
    assert node.watch.state == "works"
    assert node.look(1) == (True, False)
    assert node.watch.state == "has not answered for 1.2 s: a flush waits"
    node.journal.trouble = "Too many open files"
    assert node.watch.state.endswith("Too many open files")
    node.journal.durable_position = 6
    assert node.look(1) == (False, False)
    assert (node.watch.waits_s, node.postponed) == (0, 1)


def test_a_slow_disk_that_gets_on_does_not_hang(node: Node) -> None:
    for position in range(6, 20):
        node.journal.position, node.journal.durable_position = position + 1, position
        assert node.look(LOOKS) == (False, False)


@pytest.mark.parametrize("leads", [True, False])
def test_a_node_is_outrun_when_the_others_have_had_for_as_long_what_it_has_not(node: Node, leads: bool) -> None:
    node.core.is_leader = leads
    node.journal.position = 6
    assert node.look(2 * LOOKS) == (True, False), "all disks may hang"
    node.core.acknowledged_by_others = 6 if leads else 0
    node.core.commit_index = 5 if leads else 6
    assert node.look(LOOKS - 1) == (True, False), "theirs have just come back, and so may this one"
    assert node.look(1) == (True, True)
    node.journal.durable_position = node.journal.durable_index = 6
    assert node.look(1) == (False, False)


@pytest.mark.parametrize(
    ("match", "index"),
    [
        ({}, 0),
        ({"b": 9}, 0),
        ({"b": 9, "c": 7}, 7),
        ({"b": 9, "c": 7, "d": 8}, 7),
        ({"b": 9, "c": 7, "d": 8, "e": 1}, 7),
    ],
    ids=["alone", "two voters", "three", "four", "five"],
)
def test_a_majority_without_the_leader(match: dict[str, int], index: int) -> None:
    assert Core.acknowledged_by_others.fget(SimpleNamespace(_match=match)) == index  # type: ignore[attr-defined]
