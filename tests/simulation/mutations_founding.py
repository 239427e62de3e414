"""Rules of founding and joining taken away: whether a node looks for its cluster, and what tells nodes apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cacheflow.node import joining
from cacheflow.node.assembly import LocalNode
from cacheflow.node.joining import Joining
from cacheflow.raft.transport.network import Peer


def found_without_listening(patch: pytest.MonkeyPatch) -> None:
    """Let a node whose command names nobody found a cluster at once: its disk may have been emptied."""
    patch.setattr(joining, "LISTEN_S", 0.0)


def tell_founders_apart_by_their_addresses(patch: pytest.MonkeyPatch) -> None:
    """Compare the peers that found together by the addresses in their settings, which each may spell in its own way."""
    probe = Joining._probe

    async def _probe(self: Any, address: str) -> Peer | str:
        peer = await probe(self, address)
        return replace(peer, node_id=address) if isinstance(peer, Peer) and not peer.cluster_id else peer

    patch.setattr(Joining, "_probe", _probe)


def found_beside_those_who_have_data(patch: pytest.MonkeyPatch) -> None:
    """Let the lowest of the peers found when all answer, also when some have a cluster already."""
    probe = Joining._probe

    async def _probe(self: Any, address: str) -> Peer | str:
        peer = await probe(self, address)
        return replace(peer, cluster_id="") if isinstance(peer, Peer) else peer

    patch.setattr(Joining, "_probe", _probe)
    patch.setattr(Joining, "_ask_callers", lambda self: "")


def go_on_in_a_second_cluster(patch: pytest.MonkeyPatch) -> None:
    """Let a node that was founded by mistake go on when members of another cluster that lists it dial it."""
    patch.setattr(LocalNode, "_met_other_cluster", lambda self, peer: None)
