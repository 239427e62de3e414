"""Network: the part of the network that a Raft node uses, and the words for the node at the other end.

The node sees only ``Network``. ``PeerTransport`` implements it over TCP; a simulation hands in its own.

1. Delivery is at most once: a message may be lost, never duplicated, never changed.
2. Messages of one epoch of one peer arrive in the order in which they were sent, but for those that may overtake
   (``message_types.OVERTAKING``): they keep their order among themselves and may come before others that were sent earlier.
3. Every callback is made on the event loop that owns the node, and none once ``stop`` has been called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow.errors import CacheFlowError
from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.raft.message_types import Sent

# A message as it came: nothing about it is certain.
Message = dict[str, Any]


class PeerUnreachable(CacheFlowError):
    """Raised when no node answers at an address, or when something answers that is no CacheFlow node."""


class PeerRefused(PeerUnreachable):
    """Raised when the node at an address refuses this node in the handshake; the message is that node's reason."""


@dataclass(frozen=True, slots=True)
class Identity:
    """This node's identity. cluster_id: "" as long as the node belongs to no cluster.

    start: the number of this start on the node's data directory, so that two processes on copies of it can be told apart.
    level: the highest feature level that the node's build knows.
    """

    node_id: str
    incarnation: str
    cluster_id: str = ""
    start: int = 1
    level: int = BUILD_LEVEL


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection, as it described itself.

    raft_address: the address that it wants to be dialed at.  cluster_id: "" as long as it belongs to no cluster.
    epoch: a random id of this start of the process.  start: the number of this start on its data directory.
    level: the highest feature level that its build knows.  build: the version of its CacheFlow, for people.
    replaced: the ids of the clusters in whose place its cluster has come, by recoveries.
    """

    node_id: str
    incarnation: str
    raft_address: str
    cluster_id: str
    epoch: str
    start: int = 1
    level: int = BUILD_LEVEL
    build: str = ""
    replaced: tuple[str, ...] = ()


@dataclass(slots=True)
class Traffic:
    """How many bytes went over all connections with one other node, handshakes and encryption aside. Any thread may read it."""

    sent_bytes: int = 0
    received_bytes: int = 0


class Network(Protocol):
    """Interface: the sending and receiving of messages between nodes.

    Not safe for concurrent use: the event loop owns it. The ``on_...`` attributes are set before ``start``.
    """

    on_message: Callable[[Peer, Message], None]
    # Called with a message that a peer has broadcast; it is about no log.
    on_beside: Callable[[Peer, Message], None]
    # Called with a node id when the connection that ``send`` needs was opened, and when it ended.
    on_connected: Callable[[str], None]
    on_disconnected: Callable[[str], None]
    # Called with a node id when its connection to us ended and no newer one of the same process took its place: the
    # node is probably dead.
    on_peer_lost: Callable[[str], None]
    # Called with a member of another cluster that was refused: it has proved the secret and takes this node for a member.
    on_other_cluster: Callable[[Peer], None]
    # Called with a member of a cluster that has come in the place of this node's, by a recovery; it has proved the secret.
    on_replaced: Callable[[Peer], None]
    # The ids of the clusters in whose place this node's cluster has come: members of those are refused and told so.
    replaced: tuple[str, ...]
    # The id of this node's cluster. Every peer is told it, and connections with members of another cluster end.
    cluster_id: str
    # Frames for a group, or of a kind, that this build does not know: they are dropped, for a newer one may send them.
    unknown_frames: int
    # The random id of this start of the process: whoever answers a probe with it is this node itself.
    epoch: str

    @property
    def raft_address(self) -> str:
        """The host:port at which peers reach this node; known once ``start`` has returned."""

    @property
    def callers(self) -> list[Peer]:
        """The nodes that have dialed this node in order to send to it.

        Nodes among these that belong to a cluster take this node, by its id, for a member of that cluster.
        """

    @property
    def other_clusters(self) -> list[str]:
        """The members of other clusters that this node has met lately, each as a text for people. Any thread may read it."""

    @property
    def healthy(self) -> bool:
        """True if peers can connect to this node."""

    async def start(self) -> None:
        """Listen for peers and dial them. Raises ConfigError when the port cannot be had."""

    async def stop(self) -> None:
        """Close all connections and the port, and return when they are closed."""

    def met(self, node_id: str) -> Peer | None:
        """Return the process that this node has met last under the node id ``node_id``, connected or not; None without one."""

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Set which nodes are dialed: those in ``peers``, {node id: address}, and all that have dialed this one."""

    def send(self, node_id: str, message: Sent) -> bool:
        """Send a message to a node.

        Returns False if there is no connection to it, or if too many bytes wait for it already.
        """

    def broadcast(self, message: Mapping[str, Any]) -> int:
        """Send a message that is about no log, and fits into one frame, to all peers, behind whatever else waits for them.

        Broadcast messages keep their order among themselves. Returns the number of peers for whom the message was dropped,
        because there is no connection or too many broadcast bytes wait.
        """

    def backlog(self, node_id: str) -> int:
        """Return the number of bytes sent to a node that still wait in this process; 0 without a connection to that node."""

    def traffic(self, node_id: str) -> Traffic:
        """Return how many bytes this node has sent to another one and received from it. Any thread may call it."""

    def is_connected(self, node_id: str) -> bool:
        """True if there is a connection on which messages can be sent to the node ``node_id``."""

    def refuse(self, reason: str) -> None:
        """Refuse the handshakes of all other nodes from now on, telling these the ``reason``."""

    async def probe(self, raft_address: str, timeout_s: float) -> Peer:
        """Dial an address and return the node that answers there, possibly this one.

        Raises PeerUnreachable, PeerRefused.
        """
