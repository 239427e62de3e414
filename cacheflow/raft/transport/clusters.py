"""OtherClusters: the members of other clusters that a node has met, and why they are refused.

Two clusters that meet refuse each other. One of them may have come in the place of the other, by a recovery: then the members of
the old one are told so, and stop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cacheflow.raft.transport.handshake import Hello

# Seconds for which a member of another cluster is shown: it is met again within two while both are up.
SHOWN_S: Final = 10.0


class OtherClusters:
    """The members of other clusters that this node has met lately. The event loop owns it; any thread may call ``shown``.

    now: returns the event loop's time.  kept_max: the most members that are remembered.
    """

    def __init__(self, now: Callable[[], float], kept_max: int) -> None:
        self._now = now
        self._kept_max = kept_max
        # By node id: the cluster of a node that belongs to another one, and when it was met.
        self._met: dict[str, tuple[str, float]] = {}

    def note(self, hello: Hello) -> None:
        """Remember the node that sent ``hello`` in a handshake, a member of another cluster."""
        if len(self._met) >= self._kept_max:
            self._met.clear()
        self._met[hello.node_id] = hello.cluster_id, self._now()

    def shown(self) -> list[str]:
        """Return the members of other clusters that this node has met lately, each as a text for people."""
        met = list(self._met.items())
        return [f"{node_id} of cluster {cluster_id}" for node_id, (cluster_id, at) in met if self._now() - at < SHOWN_S]


def is_other(own_id: str, hello: Hello) -> bool:
    """True if the node that sent ``hello`` in a handshake belongs to another cluster than ``own_id``; "" is no cluster."""
    return bool(hello.cluster_id and own_id) and hello.cluster_id != own_id


def reason_of(own_id: str, replaced: tuple[str, ...], hello: Hello) -> str:
    """Return why a node of the cluster ``own_id`` refuses the node that sent ``hello``, a member of another cluster.

    replaced: the ids of the clusters that the cluster ``own_id`` has replaced, by recoveries.
    """
    if hello.cluster_id in replaced:
        return f"cluster {hello.cluster_id!r} was replaced by {own_id!r}, in a recovery"
    return f"{hello.node_id!r} belongs to cluster {hello.cluster_id!r}, not {own_id!r}"
