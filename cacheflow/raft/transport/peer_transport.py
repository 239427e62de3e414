"""PeerTransport: messages between the nodes of a cluster, over TCP, on the node's event loop.

1. Each node dials every node that it wants to send to, and uses that connection only for sending. Answers come over the
   other node's own connection. A node that dials us and is not one of our peers is dialed back for as long as it stays.
2. Nothing counts before the handshake: protocol, cluster, secret. ``handshake.py`` says what is protected and what is not;
   ``encryption.py`` encrypts. Without a secret only loopback is listened on.
3. A newer connection of a node takes the place of its older one; nothing more of the older one is delivered.
4. Bytes are data: everything has a limit, and a peer that breaks one loses its connection and nothing else.
5. The bytes that wait for a slow peer are bounded: over the bound ``send`` returns False, and no other peer notices. What may
   overtake is taken all the same: while one message is larger than the bound heartbeats go on. What peers are in the middle of
   sending is bounded for all of them together (``pieces.py``).
6. Of two processes on copies of one data directory one speaks for the node: that with the higher number of starts; and as
   long as one is connected, none at another address.
7. An exception in a callback is logged and goes no further. After ``stop`` there are no callbacks.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from cacheflow.config import build_version, is_loopback, join_address, split_address
from cacheflow.errors import ConfigError
from cacheflow.net.listener import Listener
from cacheflow.raft.seams import Tasks
from cacheflow.raft.transport import handshake, messages
from cacheflow.raft.transport.clusters import OtherClusters, is_other, reason_of
from cacheflow.raft.transport.connection import Connection
from cacheflow.raft.transport.dialing import Outgoing, dial
from cacheflow.raft.transport.encryption import Encryption
from cacheflow.raft.transport.frames import encode_frame
from cacheflow.raft.transport.handshake import Handshake, Hello, Refusal
from cacheflow.raft.transport.incoming import Incoming
from cacheflow.raft.transport.log_throttle import COMPLAINTS_EVERY_S, LogThrottle
from cacheflow.raft.transport.network import Identity, Message, Peer, PeerRefused, PeerUnreachable, Traffic
from cacheflow.raft.transport.peer_link import PeerLink
from cacheflow.raft.transport.pieces import Budget, Pieces

logger = logging.getLogger(__name__)

# The largest frame: the largest value that may be configured is 64 MiB, and the rest is for what travels with it.
FRAME_BYTES_MAX: Final = 72 * 1024 * 1024
# Bytes that may wait for one peer, 0.13 s of a gigabit link: four times what replication sends ahead of
# acknowledgements.
BACKLOG_BYTES_MAX: Final = 16 * 1024 * 1024
# Bytes of large messages that peers have sent a part of: two of the largest, so that one is finished whoever sends the other.
UNFINISHED_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
# A connection that takes no bytes for this long ends. A leader behind it has been replaced by then: the longest
# election timeout is 2 s by default.
STALL_S: Final = 3.0
HANDSHAKE_S: Final = 3.0
RETRY_S: Final = (0.05, 1.0)
# Connections that have not finished the handshake; the oldest makes room for a new one, since a peer needs milliseconds.
HANDSHAKES_MAX: Final = 64
# Nodes that may be connected and are none of our peers: joining ones, removed ones, or ones with a wrong address.
STRANGERS_MAX: Final = 64
# A node that stops lets sent messages leave for this long at most.
_CLOSE_S: Final = 1.0


def _ignore(*_: Any) -> None:
    pass


class PeerTransport:
    """The sending and receiving of messages between nodes over TCP. Not safe for concurrent use: the event loop owns it.

    listen: (host, port), port 0 lets the system choose.
    advertise_raft_address: host:port where peers reach this node; port 0 there means the port that was chosen.
    secret: shared by the cluster; None on loopback only.  supervisor: runs the background tasks that keep connections open.
    random_bytes: makes nonces, the random id of this process and the jitter of retries.
    encryption: begins connections where nodes have certificates; None for plain ones.
    defer: calls a function at the end of the node's turn, so that all messages that the node sends to a peer leave in one
    write; by default the function is called soon.
    Raises ConfigError for a malformed address, and for leaving loopback without a secret.
    """

    def __init__(
        self,
        identity: Identity,
        listen: tuple[str, int],
        advertise_raft_address: str,
        secret: bytes | None,
        on_message: Callable[[Peer, Message], None] = _ignore,
        on_connected: Callable[[str], None] = _ignore,
        on_disconnected: Callable[[str], None] = _ignore,
        on_peer_lost: Callable[[str], None] = _ignore,
        *,
        supervisor: Tasks,
        encryption: Encryption | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        defer: Callable[[Callable[[], None]], None] | None = None,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        backlog_bytes_max: int = BACKLOG_BYTES_MAX,
        unfinished_bytes_max: int = UNFINISHED_BYTES_MAX,
        handshake_s: float = HANDSHAKE_S,
        stall_s: float = STALL_S,
        retry_s: tuple[float, float] = RETRY_S,
        handshakes_max: int = HANDSHAKES_MAX,
        strangers_max: int = STRANGERS_MAX,
    ) -> None:
        if secret is None and not is_loopback(listen[0]):
            raise ConfigError(
                f"host = {listen[0]!r}: peers on other machines need a shared secret: give --cluster-secret-file"
            )
        try:
            self._advertised = split_address(advertise_raft_address)
        except ValueError as error:
            raise ConfigError(f"the advertised raft address {error}") from None
        self.on_message = on_message
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self.on_peer_lost = on_peer_lost
        self.on_other_cluster: Callable[[Peer], None] = _ignore
        self.on_replaced: Callable[[Peer], None] = _ignore
        self.replaced: tuple[str, ...] = ()
        self.on_beside: Callable[[Peer, Message], None] = _ignore
        self.supervisor = supervisor
        self.dial_s = handshake_s
        self.retry_s = retry_s
        self.epoch = random_bytes(16).hex()
        self._identity = identity
        self._cluster_id = identity.cluster_id
        self._listen = listen
        self._secret = secret
        self._encryption = encryption
        self._random_bytes = random_bytes
        self._frame_bytes_max = frame_bytes_max
        self._backlog_bytes_max = backlog_bytes_max
        self._unfinished_bytes_max = unfinished_bytes_max
        self._stall_s = stall_s
        self._defer = defer
        self._handshakes_max = handshakes_max
        self._strangers_max = strangers_max
        self._peers: dict[str, str] = {}
        self._links: dict[str, PeerLink] = {}
        self._incoming: dict[str, Incoming] = {}
        # By node id: the process that speaks for it, as it was last met.
        self._processes: dict[str, Peer] = {}
        self._traffic: defaultdict[str, Traffic] = defaultdict(Traffic)
        self._others = OtherClusters(lambda: self.loop.time(), strangers_max)
        # The connections without a finished handshake, in order of arrival: a dictionary, because members are looked up, too.
        self._handshaking: dict[Incoming, None] = {}
        # Every socket that is open, also those that are only being closed.
        self._sockets: set[Connection] = set()
        self.unknown_frames = 0
        self._running = False
        self._stopped = False
        self._refusal = ""

    # Life.

    async def start(self) -> None:
        """Listen for peers, and dial the peers that were set before. Raises ConfigError when the port cannot be had."""
        self.loop = asyncio.get_running_loop()
        self._throttle = LogThrottle(COMPLAINTS_EVERY_S, self.loop.time)
        self._budget = Budget(self._unfinished_bytes_max, self.loop.time, self._dropped)
        encryption = self._encryption
        adopt = None if encryption is None else encryption.accepting(self.loop, self._make_incoming)
        self._listener = Listener(self.loop, self._make_incoming, "raft", adopt)
        await self._listener.open(*self._listen)
        self._running = True
        for node_id in list(self._peers):
            self._adjust_link(node_id)

    async def stop(self) -> None:
        """Close all connections and the port. Sent messages may still leave, for _CLOSE_S seconds at most.

        The ``on_...`` callbacks are not called from now on.
        """
        self._stopped = True
        if not self._running:
            return
        self._running = False
        await self._listener.close()
        links, self._links = list(self._links.values()), {}
        for link in links:
            link.close()
        for connection in list(self._sockets):
            connection.close()
        for link in links:
            await link.wait_closed()
        if self._sockets:
            await asyncio.wait([connection.gone for connection in self._sockets], timeout=_CLOSE_S)
        for connection in list(self._sockets):
            connection.abort()
            await connection.gone

    @property
    def healthy(self) -> bool:
        """True if peers can connect to this node: not, for example, while descriptors are exhausted."""
        return self._running and self._listener.healthy

    @property
    def callers(self) -> list[Peer]:
        """The nodes that have dialed this node in order to send to it.

        Nodes among these that belong to a cluster take this node, by its id, for a member of that cluster.
        """
        return [
            incoming.peer
            for incoming in self._incoming.values()
            if incoming.peer is not None and incoming.purpose == handshake.SEND
        ]

    def met(self, node_id: str) -> Peer | None:
        """Return the process that this node has met last under the node id ``node_id``, connected or not; None without one."""
        return self._processes.get(node_id)

    @property
    def other_clusters(self) -> list[str]:
        """The members of other clusters that this node has met lately, each as a text for people. Any thread may read it."""
        return self._others.shown()

    @property
    def bound_address(self) -> tuple[str, int]:
        """The (host, port) on which this node listens for peers, between ``start`` and ``stop``."""
        return self._listener.address

    @property
    def raft_address(self) -> str:
        """The host:port that peers are told to dial; known once ``start`` has returned."""
        host, port = self._advertised
        return join_address(host, port or self.bound_address[1])

    @property
    def cluster_id(self) -> str:
        """The id of the cluster that this node says it belongs to; "" while it belongs to none."""
        return self._cluster_id

    @cluster_id.setter
    def cluster_id(self, cluster_id: str) -> None:
        if cluster_id == self._cluster_id:
            return
        self._cluster_id = cluster_id
        for incoming in list(self._incoming.values()):
            self.changed(incoming)
        for link in list(self._links.values()):
            link.tell()

    # Sending.

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Set which nodes are dialed: those in ``peers``, {node id: host:port}, and all that have dialed this one.

        This node itself is left out. For a node that is not dialed any more ``on_disconnected`` may be called within this
        call.
        """
        self._peers = {node_id: address for node_id, address in peers.items() if node_id != self._identity.node_id}
        for node_id in [*self._peers, *(node_id for node_id in list(self._links) if node_id not in self._peers)]:
            self._adjust_link(node_id)

    def send(self, node_id: str, message: Mapping[str, Any]) -> bool:
        """Send a message to a node; return False if that is impossible.

        It is impossible without a connection, with too many bytes waiting, or if the message is too large (which is logged).
        True is no promise: messages on their way are lost when a connection ends. Raises TypeError, ValueError or
        OverflowError for what msgpack cannot carry.
        """
        link = self._links.get(node_id)
        if link is None or not link.connected:
            return False
        # This comes before packing: a large message to a slow peer would be packed again and again for nothing.
        backlog_max = self._backlog_bytes_max
        if link.waiting_bytes > backlog_max and (
            link.overtaking_bytes > backlog_max or not messages.may_overtake(message)
        ):
            return False
        body = messages.encode(message)
        if len(body) > self._frame_bytes_max:
            if self._throttle.allows(("oversize", node_id)):
                logger.error("a %s message of %d bytes is too large to send", message.get("type"), len(body))
            return False
        link.send(body, message)
        return True

    def broadcast(self, message: Mapping[str, Any]) -> int:
        """Send a small message to all peers, behind all that waits for them; return for how many peers it was dropped."""
        frame = encode_frame(messages.encode(message, messages.BESIDE))
        links = map(self._links.get, self._peers)
        return sum([link is None or not link.send_last(frame) for link in links])

    def refuse(self, reason: str) -> None:
        """Refuse the handshakes of all other nodes from now on, telling these the ``reason``."""
        self._refusal = reason

    def _soon(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    def backlog(self, node_id: str) -> int:
        """Return the bytes that wait in this process to be sent to a node; 0 without a connection to it."""
        link = self._links.get(node_id)
        return 0 if link is None else link.waiting_bytes

    def traffic(self, node_id: str) -> Traffic:
        """Return how many bytes this node has sent to another one and received from it. Any thread may call it."""
        return self._traffic.get(node_id, Traffic())

    def is_connected(self, node_id: str) -> bool:
        """True if there is a connection on which to send to the node ``node_id``."""
        link = self._links.get(node_id)
        return link is not None and link.connected

    async def probe(self, raft_address: str, timeout_s: float) -> Peer:
        """Dial host:port, shake hands, close, and return the node that answered; other connections are not affected.

        Raises PeerRefused with the other side's reason, PeerUnreachable.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self.dial(raft_address, handshake.PROBE, None)
        except TimeoutError:
            raise PeerUnreachable(f"no answer within {timeout_s:g} s") from None
        connection.close()
        peer = connection.answer.result().peer()
        link = self._links.get(peer.node_id)
        if link is not None:
            # Nobody else may know yet where it lives now.
            self._adjust_link(peer.node_id)
            link.hurry()
        return peer

    # Links call these.

    async def dial(self, address: str, purpose: str, expected: str | None) -> Outgoing:
        """Open a connection to ``address`` and return it. expected: the id of the node that must answer, None for any.

        purpose: what the peer is told that the connection is for, one of PURPOSES. Raises PeerUnreachable, PeerRefused.
        """
        shake = Handshake(self._hello(purpose), self._secret, dialer=True, expected=expected)
        try:
            connection = await dial(
                self.loop,
                address,
                shake,
                handshake_s=self.dial_s,
                stall_s=self._stall_s,
                defer=self._defer or self._soon,
                encryption=self._encryption,
            )
        except PeerUnreachable:
            met = shake.remote
            if met is not None and met.node_id == expected and is_other(self._cluster_id, met):
                self._others.note(met)
                if shake.is_refusal_proved and self._cluster_id in met.replaced:
                    self._call(self.on_replaced, met.peer())
            raise
        self._track(connection)
        peer = connection.answer.result().peer()
        copied = self._rival(peer)
        if copied:
            connection.abort()
            raise PeerRefused(copied)
        self._meet(peer)
        connection.count_in(self._traffic[peer.node_id])
        return connection

    def random(self) -> float:
        """Return a random number of at least 0 and below 1."""
        return int.from_bytes(self._random_bytes(2), "big") / 65536

    def link_up(self, link: PeerLink, peer: Peer) -> None:
        """Report that the node ``peer`` can be sent to, and drop the incoming connection of an older process of that node."""
        incoming = self._incoming.get(peer.node_id)
        if incoming is not None and incoming.peer is not None and incoming.peer.epoch != peer.epoch:
            # The node has started anew, and the end of its old process never reached us.
            self._forget(incoming)
            incoming.abort()
        if link.connected:  # the link may have existed only to answer the connection that has just ended
            self._call(self.on_connected, peer.node_id)

    def link_down(self, link: PeerLink) -> None:
        """Report that the node of ``link``, a connection for sending to one node, cannot be sent to any more."""
        self._call(self.on_disconnected, link.node_id)

    # Incoming connections call these.

    def knocked(self, connection: Incoming) -> Handshake | None:
        """Return a handshake for a newly accepted connection; None, to drop the connection, while this node is not running."""
        if not self._running:
            return None
        if len(self._handshaking) >= self._handshakes_max:
            oldest = next(iter(self._handshaking))
            del self._handshaking[oldest]
            oldest.abort()
            if self._throttle.allows("handshakes"):
                logger.warning("more than %d connections without a handshake: dropping some", self._handshakes_max)
        self._handshaking[connection] = None
        self._track(connection)
        shake = Handshake(self._hello(handshake.SEND), self._secret, dialer=False)
        shake.encrypted = connection.encrypted
        return shake

    def admit(self, hello: Hello) -> None:
        """Raise Refusal if the peer may not stay connected, although it has proved that it knows the cluster's secret."""
        if self._refusal:
            raise Refusal(self._refusal)
        if is_other(self._cluster_id, hello):
            self._others.note(hello)
            if self._cluster_id in hello.replaced:
                self._call(self.on_replaced, hello.peer())
            elif hello.purpose == handshake.SEND and hello.cluster_id not in self.replaced:
                self._call(self.on_other_cluster, hello.peer())
            raise Refusal(reason_of(self._cluster_id, self.replaced, hello))
        copied = self._rival(hello.peer())
        if copied:
            raise Refusal(copied)
        if hello.purpose == handshake.PROBE or hello.node_id in self._peers or hello.node_id in self._incoming:
            return
        if sum(node_id not in self._peers for node_id in self._incoming) >= self._strangers_max:
            raise Refusal("too many nodes that are no members are connected already")

    def pieces_of(self, peer: Peer) -> Pieces:
        """Return an object that puts the large messages of ``peer`` together from their pieces."""
        node_id = peer.node_id
        return Pieces(self._frame_bytes_max, self._budget, node_id, lambda: node_id in self._peers)

    def accepted(self, connection: Incoming) -> None:
        """Keep a connection whose handshake is done; an older connection of the same node is aborted."""
        self._handshaking.pop(connection, None)
        peer = connection.peer
        assert peer is not None
        if connection.purpose == handshake.PROBE:
            connection.close()
            return
        self._meet(peer)
        connection.traffic = self._traffic[peer.node_id]
        older = self._incoming.get(peer.node_id)
        if older is not None:
            older.abort()
            assert older.peer is not None
            if older.peer.epoch != peer.epoch:
                self._call(self.on_peer_lost, peer.node_id)
        self._incoming[peer.node_id] = connection
        link = self._links.get(peer.node_id)
        if link is not None and link.peer is not None and link.peer.epoch != peer.epoch:
            link.redial("it has started anew")
        self._adjust_link(peer.node_id)

    def deliver(self, peer: Peer, message: Message, group: int) -> None:
        """Pass a message of ``peer`` to the callback ``on_message``, or to ``on_beside`` if it is for no Raft group."""
        self._call(self.on_message if group == messages.GROUP else self.on_beside, peer, message)

    def unknown(self, peer: Peer, what: str) -> None:
        """Count and log a peer's frame that is for a group or of a kind not known here; the connection goes on."""
        self.unknown_frames += 1
        if self._throttle.allows((peer.node_id, "unknown")):
            logger.warning("dropped %s of %s, as a newer CacheFlow may send it", what, peer.node_id)

    def changed(self, connection: Incoming) -> None:
        """Adjust this node's own connection to a peer after the peer's cluster or purpose, or this node's cluster, changed.

        A peer of another cluster is disconnected.
        """
        peer = connection.peer
        assert peer is not None
        if peer.cluster_id and self._cluster_id and peer.cluster_id != self._cluster_id:
            self.incoming_refused(connection, f"it belongs to cluster {peer.cluster_id!r}, not {self._cluster_id!r}")
            # The peer is told the reason when it dials again.
            self._forget(connection)
            connection.abort()
            link = self._links.get(peer.node_id)
            if link is not None:
                link.redial("it belongs to another cluster")
            return
        self._adjust_link(peer.node_id)

    def incoming_refused(self, connection: Incoming, reason: str) -> None:
        """Log that a peer was refused, and why."""
        self._handshaking.pop(connection, None)
        if self._throttle.allows((connection.remote.rpartition(":")[0], reason)):
            logger.warning("refused the peer at %s: %s", connection.remote, reason)

    def incoming_broken(self, connection: Incoming, error: Exception) -> None:
        """Log that a connection was closed because its other side broke a rule of the protocol."""
        who = connection.peer.node_id if connection.peer is not None else None
        if self._throttle.allows((connection.remote.rpartition(":")[0], who, type(error))):
            logger.warning("closed the connection of %s at %s: %s", who or "a stranger", connection.remote, error)

    def incoming_ended(self, connection: Incoming) -> None:
        """Forget an incoming connection that has ended."""
        self._handshaking.pop(connection, None)
        self._forget(connection)

    # Inside.

    def _rival(self, peer: Peer) -> str:
        """Return why the process ``peer`` may not speak for its node; "" if it may.

        It may not when another process runs on the same data directory or on a copy of that.
        """
        met, node_id = self._processes.get(peer.node_id), peer.node_id
        if met is None or met.incarnation != peer.incarnation or met.epoch == peer.epoch:
            return ""
        if peer.start <= met.start:
            return (
                f"start {peer.start} of node {node_id!r} comes behind its start {met.start}: its data directory was copied, "
                "or set back to an older copy; remove that one, and start it again with --seed"
            )
        incoming, link = self._incoming.get(node_id), self._links.get(node_id)
        there = [incoming and incoming.peer, link and link.peer]
        if peer.raft_address != met.raft_address and any(each and each.epoch == met.epoch for each in there):
            return (
                f"node {node_id!r} lives at {met.raft_address} and not at {peer.raft_address}: "
                "its data directory was copied, or it has just moved"
            )
        return ""

    def _meet(self, peer: Peer) -> None:
        """Remember ``peer`` as the process that speaks for its node; if too many are known, forget nodes that have left."""
        if len(self._processes) >= len(self._peers) + self._strangers_max:
            stay = self._peers.keys() | self._incoming.keys()
            self._processes = {node_id: met for node_id, met in self._processes.items() if node_id in stay}
            for node_id in self._traffic.keys() - stay:
                del self._traffic[node_id]
        self._processes[peer.node_id] = peer

    def _forget(self, connection: Incoming) -> None:
        peer = connection.peer
        if peer is not None and self._incoming.get(peer.node_id) is connection:
            del self._incoming[peer.node_id]
            self._adjust_link(peer.node_id)
            self._call(self.on_peer_lost, peer.node_id)

    def _track(self, connection: Connection) -> None:
        if not connection.gone.done():
            self._sockets.add(connection)
            connection.gone.add_done_callback(lambda _: self._sockets.discard(connection))

    def _adjust_link(self, node_id: str) -> None:
        """Make this node's own connection to ``node_id`` what it should be now.

        That is one for sending to a peer, one that only answers a node that sends to this one, or none.
        """
        if not self._running:
            return
        incoming, met = self._incoming.get(node_id), self._processes.get(node_id)
        heard = None if met is None else met.raft_address
        configured = self._peers.get(node_id)
        link = self._links.get(node_id)
        if configured is not None:
            purpose = handshake.SEND
        elif incoming is not None and incoming.purpose == handshake.SEND:
            # Only a connection with the purpose SEND is answered: two answering links would keep each other alive for ever.
            purpose = handshake.REPLY
        else:
            if link is not None:
                del self._links[node_id]
                link.close()
            return
        # A node that has moved tells its new address itself, before the configuration has it.
        addresses = list(dict.fromkeys(address for address in (configured, heard) if address is not None))
        if link is None:
            self._links[node_id] = PeerLink(self, node_id, addresses, purpose)
            return
        link.update(addresses, purpose)
        if incoming is not None:
            link.hurry()

    def _make_incoming(self, encrypted: bool = False) -> Incoming:
        return Incoming(self.loop, self, handshake_s=self.dial_s, stall_s=self._stall_s, encrypted=encrypted)

    def _dropped(self, pieces: Pieces, size: int) -> None:
        """Log that a peer's unfinished message was dropped because all unfinished messages together are too large."""
        if self._throttle.allows(("unfinished", pieces.sender)):
            logger.warning(
                "dropped %d bytes of a large message of %s: peers are sending more than %d bytes of such at once",
                *(size, pieces.sender, self._unfinished_bytes_max),
            )

    def _hello(self, purpose: str) -> Hello:
        return Hello(
            node_id=self._identity.node_id,
            incarnation=self._identity.incarnation,
            raft_address=self.raft_address,
            cluster_id=self._cluster_id,
            epoch=self.epoch,
            start=self._identity.start,
            purpose=purpose,
            secured=self._secret is not None,
            nonce=self._random_bytes(handshake.NONCE_BYTES),
            level=self._identity.level,
            build=build_version(),
            certified=self._encryption is not None,
            replaced=self.replaced,
        )

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        if self._stopped:
            return
        try:
            callback(*arguments)
        except Exception:
            logger.exception("a callback of the transport failed; the connection goes on")
