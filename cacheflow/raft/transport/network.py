"""What a Raft node needs of the network, and the words for who is at the other end.

The node sees only ``Network``. ``PeerTransport`` is the one over TCP; a simulation hands in its own.

1. Delivery is at most once: a message may be lost, never duplicated, never changed.
2. Messages of one epoch of one peer arrive in the order in which they were sent.
3. Every callback is made on the event loop that owns the node, and none once ``stop`` has been called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow.errors import CacheFlowError

Message = dict[str, Any]


class PeerUnreachable(CacheFlowError):
    """Nobody answered there, or not as a peer does."""


class PeerRefused(PeerUnreachable):
    """The other side will not talk to this node; the message is its reason."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. cluster_id: "" as long as it belongs to none."""

    node_id: str
    incarnation: str
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection, as it described itself.

    raft_address: where it wants to be dialed.  cluster_id: "" when it has none yet.
    epoch: random, new for every start of the process.
    """

    node_id: str
    incarnation: str
    raft_address: str
    cluster_id: str
    epoch: str


class Network(Protocol):
    """Messages between nodes. Not safe for concurrent use: the event loop owns it.

    The ``on_...`` attributes are set before ``start``.
    """

    on_message: Callable[[Peer, Message], None]
    # The way to a node is open, or is not any more: what ``send`` needs.
    on_connected: Callable[[str], None]
    on_disconnected: Callable[[str], None]
    # The way from a node ended and no newer one of the same process took its place: it is probably dead.
    on_peer_lost: Callable[[str], None]
    # Told to every peer; connections with members of another cluster end.
    cluster_id: str

    @property
    def raft_address(self) -> str:
        """host:port where peers reach this node; known once ``start`` has returned."""

    @property
    def healthy(self) -> bool:
        """Whether peers can connect."""

    async def start(self) -> None:
        """Begin to listen and to dial. Raises ConfigError."""

    async def stop(self) -> None:
        """Close everything; returns when it is closed."""

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Node ids and their Raft addresses: exactly these are dialed, and those that dialed us."""

    def send(self, node_id: str, message: Message) -> bool:
        """Send, or return False: no connection, or too much waits already."""

    def backlog(self, node_id: str) -> int:
        """Bytes accepted for this node that have not left this process; 0 without a connection."""

    def is_connected(self, node_id: str) -> bool:
        """Whether ``send`` has a connection."""

    def refuse(self, reason: str) -> None:
        """Shake hands with nobody any more, and tell them why."""

    async def probe(self, raft_address: str, timeout_s: float) -> Peer:
        """Who lives at this address. Raises PeerUnreachable, PeerRefused."""
