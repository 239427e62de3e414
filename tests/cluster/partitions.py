"""Shapes of partitions, as directed pairs of nodes between which nothing passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Protocol

from cluster.processes import Place

Cut = set[tuple[str, str]]


class Network(Protocol):
    """A network between real nodes that can be cut. kind: a word for people."""

    kind: str

    def place(self, node_id: str) -> Place:
        """Return where a node of this name is to run; to be asked once for each, before it starts."""

    def attach(self, node_id: str, raft_port: int) -> None:
        """Note the peer port of a placed node, before it starts."""

    def namespace(self, node_id: str) -> str | None:
        """Return the file of the network namespace in which a node runs; None: this process's."""

    def cut(self, pairs: Cut) -> None:
        """Set the cuts: from now on nothing passes from the first to the second of each pair; everything else does."""

    def close(self) -> None:
        """Remove everything that the network has made."""


def split(sides: Iterable[Iterable[str]]) -> Cut:
    """Return a cut in which nothing passes between any two sides."""
    groups = [list(side) for side in sides]
    return {
        pair
        for number, one in enumerate(groups)
        for other in groups[number + 1 :]
        for first in one
        for second in other
        for pair in ((first, second), (second, first))
    }


def isolated(node: str, nodes: Sequence[str]) -> Cut:
    """Return a cut that leaves one node alone."""
    return split([[node], [other for other in nodes if other != node]])


def halves(nodes: Sequence[str], random: Random) -> Cut:
    """Return a cut into two sides of any size."""
    mixed = random.sample(list(nodes), len(nodes))
    border = random.randrange(1, len(nodes))
    return split([mixed[:border], mixed[border:]])


def ring(nodes: Sequence[str], random: Random) -> Cut:
    """Return a majority ring, in which every node sees a majority and no two see the same one."""
    mixed = random.sample(list(nodes), len(nodes))
    count = len(mixed)
    # In a circle each sees as many neighbors on both sides as make a majority with itself.
    near = (count // 2 + 1) // 2
    far = {
        (one, other)
        for number, one in enumerate(mixed)
        for step, other in enumerate(mixed)
        if min((number - step) % count, (step - number) % count) > near
    }
    # Three in a circle all see each other: they become a line.
    return far or split([[mixed[0]], [mixed[1]]])


def deaf_or_dumb(node: str, nodes: Sequence[str], random: Random) -> Cut:
    """Return a cut of one direction: nothing comes to the node, or nothing leaves it; from all others or from one."""
    others = [other for other in nodes if other != node]
    if random.random() < 0.3:
        others = random.sample(others, 1)
    if random.random() < 0.5:
        return {(node, other) for other in others}
    return {(other, node) for other in others}
