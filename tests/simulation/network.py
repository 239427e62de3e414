"""A network in memory that delays, loses, doubles, cuts one way, and breaks connections.

It behaves as ``PeerTransport`` over TCP does: a node dials whom it wants to send to and whoever dials it, one
connection a direction; what one process sends to another arrives in order or not at all; different connections overtake
each other.
A cut holds messages back, as TCP does: when it heals they arrive late, or their connection breaks.

Beyond what TCP may do: ``loss`` takes single messages, ``doubling`` lets some arrive a second time, later than what was
sent after them, and ``stragglers`` lets what an ended connection carried arrive behind what its successor brings. Raft
promises to stand all three.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgpack
from simulation.bulk import FRAME_BYTES_MAX, PEER_PIECE_BYTES, UNFINISHED_BYTES_MAX
from simulation.narrow import NarrowLink
from simulation.scheduler import ProcessLoop, Scheduler
from simulation.typed import wrong_fields

from cacheflow.raft.transport import messages
from cacheflow.raft.transport.frames import encode_frame
from cacheflow.raft.transport.network import Identity, Message, Peer, PeerRefused, PeerUnreachable, Traffic
from cacheflow.raft.transport.pieces import Budget

# Seconds after which a connection ends whose bytes nobody takes, as in the real transport.
STALL_S = 3.0
RETRY_FIRST_S, RETRY_LONGEST_S = 0.05, 1.0
# The most that one connection holds while the way is cut; more is refused, as with a full backlog.
WAITING_MAX = 2000
# Messages that are never doubled: an operator's request that was refused at first must not be carried out later.
NOT_DOUBLED = ("remove",)
# Seconds by which a message is late at most that comes a second time, or from a connection that has ended: it may outlive the
# process that sent it and the start of the next one.
LATER_S = 10.0


class Wire:
    """The network between the machines.

    delay_s: least and most of one message's way.  loss, doubling: of the messages, 0 to 1.  stragglers: of those that a
    connection carries when it ends.  bytes_per_s: in each direction of a connection; None for any number.
    """

    def __init__(self, scheduler: Scheduler, random: Random) -> None:
        self.scheduler = scheduler
        self.random = random
        self.usual_delay_s = self.delay_s = (0.0002, 0.001)
        self.loss = self.doubling = self.stragglers = 0.0
        # The draws for what goes last, so that nothing else changes by it.
        self.random_of_last = Random(0)
        self.bytes_per_s: int | None = None
        # What messages on narrow links are looked through for, and how often one with it was sent from one node to another.
        self.mark = b""
        self.marked: Counter[tuple[str, str]] = Counter()
        self.cuts: dict[tuple[str, str], int] = {}
        self.sent: dict[str, int] = {}
        self.note: Callable[[str, str, str], None] = lambda source, target, kind: None
        self._sites: dict[str, SimNetwork] = {}

    def delay(self, random: Random | None = None) -> float:
        """Return the seconds that one message takes."""
        low, high = self.delay_s
        part = (random or self.random).random()
        return low + (high - low) * part * part

    def later(self, random: Random | None = None) -> float:
        """Return the seconds by which a late message is late: one or two most often, LATER_S at most."""
        random = random or self.random
        return random.uniform(0.0, 2.0 if random.random() < 0.7 else LATER_S)

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether nothing passes from ``source`` to ``target``."""
        return (source, target) in self.cuts

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from ``source`` to ``target``. Cuts are counted: as many ``heal`` lift them."""
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1

    def heal(self, source: str, target: str) -> None:
        """Lift a cut: what waits arrives late, or the connection breaks."""
        left = self.cuts.get((source, target), 0) - 1
        if left > 0:
            self.cuts[source, target] = left
            return
        self.cuts.pop((source, target), None)
        site = self._sites.get(source)
        way = site.ways.get(target) if site is not None else None
        if way is not None:
            way.healed()

    def open(self, site: SimNetwork) -> None:
        """Note that a process listens."""
        self._sites[site.node_id] = site

    def site_at(self, address: str) -> SimNetwork | None:
        """Return the process that listens at an address, in whichever spelling: a name may have capitals."""
        address = address.casefold()
        return next((site for site in self._sites.values() if site.raft_address == address), None)

    def site_of(self, node_id: str) -> SimNetwork | None:
        """Return the process with a node id."""
        return self._sites.get(node_id)

    def vanish(self, site: SimNetwork, *, silently: bool) -> None:
        """Remove a process that is gone; its system tells the others, unless it went ``silently`` with the machine."""
        self._sites.pop(site.node_id, None)
        for way in list(site.ways.values()):
            way.connected = False
            way.carry_no_bytes()
        for other in list(self._sites.values()):
            if not silently and not self.is_cut(site.node_id, other.node_id):
                self.scheduler.at(self.delay(), other.peer_vanished, site, owner=other.loop)

    def break_connection(self, source: str, target: str) -> None:
        """Reset one connection; both ends notice."""
        site = self._sites.get(source)
        way = site.ways.get(target) if site is not None else None
        if way is not None and way.connected:
            receiver = way.receiver
            way.end("reset")
            if receiver is not None and receiver.loop.alive:
                self.scheduler.at(self.delay(), receiver.incoming_ended, way.site, owner=receiver.loop)


class Way:
    """The outgoing connection of one process to one node, which is dialed again and again until it is closed."""

    def __init__(self, site: SimNetwork, node_id: str, addresses: list[str]) -> None:
        self.site = site
        self.node_id = node_id
        # Tried in turn: a node that moved says so before its peers are told.
        self.addresses = addresses
        self.connected = False
        self.closed = False
        self.receiver: SimNetwork | None = None
        self.held: list[bytes] = []
        # What goes last keeps an order of its own.
        self.held_last: list[bytes] = []
        self._last_of_last = 0.0
        # What it carries as bytes, because links are narrow; None while it carries messages.
        self.narrow: NarrowLink | None = None
        self._wire = site.wire
        self._failures = 0
        self._attempts = 0
        # The position in ``addresses`` that is dialed next: not by attempts, of which two a pause would be one address for ever.
        self._turn = 0
        # Connections so far: what an older one carries does not arrive any more.
        self._generation = 0
        self._last_arrival = 0.0
        self._held_since = 0.0
        self.hurry()

    def hurry(self) -> None:
        """Dial at once."""
        if not self.connected and not self.closed:
            self._attempts += 1
            self.site.loop.call_later(2 * self._wire.delay(), self._dial, self._attempts)

    def _dial(self, attempt: int) -> None:
        if self.connected or self.closed or attempt != self._attempts:
            return
        wire, here, there = self._wire, self.site.node_id, self.node_id
        receiver = wire.site_at(self.addresses[self._turn % len(self.addresses)])
        if (
            receiver is None
            or receiver.node_id != there
            or self.site.is_refused_by(receiver)
            or receiver.loop.paused
            or wire.is_cut(here, there)
            or wire.is_cut(there, here)
        ):
            if receiver is not None and receiver.node_id == there and self.site.is_refused_by(receiver):
                receiver.meet(self.site)
            self._turn += 1
            self._retry()
            return
        self.connected = True
        self._failures = self._turn = 0
        self._generation += 1
        self.receiver = receiver
        self.held = []
        self.held_last = []
        receiver.loop.call_soon(receiver.accepted, self.site)
        self.site.connected(self)

    def _retry(self) -> None:
        self._attempts += 1
        pause = min(RETRY_LONGEST_S, RETRY_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self.site.loop.call_later(pause * (0.5 + self._wire.random.random() / 2), self._dial, self._attempts)

    def send(self, body: bytes, message: Mapping[str, Any]) -> bool:
        """Put one message on its way, packed in ``body``: as bytes where links are narrow."""
        if self.receiver is not None and self.narrow is None and self._wire.bytes_per_s is not None and not self.held:
            self.narrow = NarrowLink(self, self.receiver, self._last_arrival)
        if self.narrow is not None:
            return self.narrow.send(body, message)
        kind = message["type"]
        return self.carry(body, may_double=kind not in NOT_DOUBLED)

    def carry(self, body: bytes, *, may_double: bool = False) -> bool:
        """Put one message on its way as such; with ``may_double`` it may come a second time."""
        if not self.connected or len(self.held) >= WAITING_MAX:
            return False
        wire = self._wire
        if wire.loss and wire.random.random() < wire.loss:
            return True
        arrival = max(self._last_arrival, wire.scheduler.now + wire.delay())
        self._last_arrival = arrival
        wire.scheduler.at(arrival - wire.scheduler.now, self._arrive, self._generation, self.receiver, body)
        if may_double and wire.doubling and wire.random.random() < wire.doubling:
            wire.scheduler.at(wire.delay() + wire.later(), self._arrive_late, self.receiver, body)
        return True

    def _arrive(self, generation: int, receiver: SimNetwork, body: bytes) -> None:
        wire = self._wire
        if generation != self._generation or not self.connected:
            if wire.stragglers and wire.random.random() < wire.stragglers:
                wire.scheduler.at(wire.later(), self._arrive_late, receiver, body)
            return
        cut = wire.is_cut(self.site.node_id, self.node_id)
        if not receiver.loop.alive and not cut and wire.site_of(self.node_id) is not None:
            # Its machine runs, and does not know of this connection.
            self.end("reset")
            return
        if self.held or not receiver.loop.alive or cut:
            if not self.held:
                self._held_since = self._wire.scheduler.now
                self.site.loop.call_later(STALL_S, self._stalled, generation, self._held_since)
            self.held.append(body)
            return
        receiver.loop.do(receiver.deliver, self.site, body)

    def send_last(self, body: bytes) -> bool:
        """Put one message on its way that goes behind all others; they do not notice it."""
        if not self.connected or len(self.held_last) >= WAITING_MAX:
            return False
        if self.narrow is not None:
            return self.narrow.outbox.put_last(encode_frame(body))
        wire, random = self._wire, self._wire.random_of_last
        if wire.loss and random.random() < wire.loss:
            return True
        arrival = max(self._last_of_last, wire.scheduler.now + wire.delay(random))
        self._last_of_last = arrival
        wire.scheduler.at(arrival - wire.scheduler.now, self._arrive_last, self._generation, self.receiver, body)
        if wire.doubling and random.random() < wire.doubling:
            wire.scheduler.at(wire.delay(random) + wire.later(random), self._arrive_late, self.receiver, body)
        return True

    def _arrive_last(self, generation: int, receiver: SimNetwork, body: bytes) -> None:
        wire, random = self._wire, self._wire.random_of_last
        if generation != self._generation or not self.connected:
            if wire.stragglers and random.random() < wire.stragglers:
                wire.scheduler.at(wire.later(random), self._arrive_late, receiver, body)
        elif self.held_last or wire.is_cut(self.site.node_id, self.node_id):
            self.held_last.append(body)
        else:
            receiver.loop.do(receiver.deliver, self.site, body)

    def _arrive_late(self, receiver: SimNetwork, body: bytes) -> None:
        """Deliver a message out of its order, and only to the process to which it was sent: another shook other hands."""
        if not self._wire.is_cut(self.site.node_id, self.node_id):
            receiver.loop.do(receiver.deliver, self.site, body)

    def _stalled(self, generation: int, since: float) -> None:
        if self.connected and generation == self._generation and self.held and self._held_since == since:
            self.end("stalled")

    def healed(self) -> None:
        """Go on after a cut: what was held arrives late, or the connection breaks."""
        if not self.connected:
            if not self.closed:
                self.hurry()
            return
        held, self.held = self.held, []
        if held and self._wire.random.random() < 0.5:
            self.end("broken by the cut")
            return
        for body in held:
            self.carry(body)
        held_last, self.held_last = self.held_last, []
        for body in held_last:
            self.send_last(body)

    def widened(self) -> None:
        """Carry messages again: the link is narrow no more, and nothing waits."""
        self.narrow = None
        self._last_arrival = self._wire.scheduler.now

    def carry_no_bytes(self) -> None:
        """Forget what is carried as bytes: the connection has ended."""
        link, self.narrow = self.narrow, None
        if link is not None:
            link.close()

    def end(self, reason: str) -> None:
        """End the connection, and dial again."""
        if self.connected:
            self.connected = False
            self.carry_no_bytes()
            self._generation += 1
            self.held = []
            self.held_last = []
            self.receiver = None
            if not self.closed:
                self._retry()
            self.site.loop.call_soon(self.site.disconnected, self.node_id)

    def close(self) -> None:
        """Dial no more."""
        self.closed = True
        if self.connected:
            self.connected = False
            self.carry_no_bytes()
            self._generation += 1
            self.site.disconnected(self.node_id)


class SimNetwork:
    """The ``Network`` of one process, over a Wire."""

    def __init__(self, wire: Wire, loop: ProcessLoop, identity: Identity, raft_address: str, epoch: str) -> None:
        self.wire = wire
        self.loop = loop
        self.node_id = identity.node_id
        self.incarnation = identity.incarnation
        self.raft_address = raft_address
        self.epoch = epoch
        self.start_number = identity.start
        self.level = identity.level
        self.unknown_frames = 0
        self.cluster_id = identity.cluster_id
        # The reason for which this process shakes no hands; "" while it does.
        self.refusal = ""
        self.on_message: Callable[[Peer, Message], None]
        self.on_beside: Callable[[Peer, Message], None]
        self.on_connected: Callable[[str], None]
        self.on_disconnected: Callable[[str], None]
        self.on_peer_lost: Callable[[str], None]
        self.on_other_cluster: Callable[[Peer], None]
        self.on_replaced: Callable[[Peer], None]
        self.replaced: tuple[str, ...] = ()
        self.ways: dict[str, Way] = {}
        self.peers: dict[str, str] = {}
        self.budget = Budget(UNFINISHED_BYTES_MAX, loop.time, lambda *_: None)
        self._incoming: dict[str, SimNetwork] = {}
        # {node id: the address where it was met last}
        self._met: dict[str, str] = {}

    async def start(self) -> None:
        """Listen."""
        self.wire.open(self)
        for node_id in list(self.peers):
            self._adjust(node_id)

    async def stop(self) -> None:
        """Close everything."""
        self.wire.vanish(self, silently=False)

    @property
    def callers(self) -> list[Peer]:
        """The nodes that have dialed this one in order to send to it."""
        return [site.describe() for site in self._incoming.values() if self.node_id in site.peers]

    def traffic(self, node_id: str) -> Traffic:
        """Nobody reads this in a simulation."""
        return Traffic()

    def met(self, node_id: str) -> Peer | None:
        """Nobody reads this in a simulation."""
        return None

    @property
    def other_clusters(self) -> list[str]:
        """Nobody reads this in a simulation."""
        return []

    @property
    def healthy(self) -> bool:
        """True if peers can connect."""
        return self.wire.site_of(self.node_id) is self

    def refuse(self, reason: str) -> None:
        """Shake hands with nobody any more."""
        self.refusal = reason

    async def probe(self, raft_address: str, timeout_s: float) -> Peer:
        """Dial, shake hands, close. Raises PeerUnreachable, PeerRefused."""
        wire = self.wire
        await asyncio.sleep(2 * wire.delay())
        site = wire.site_at(raft_address)
        if site is None:
            raise PeerUnreachable("connection refused")
        if site.loop.paused or wire.is_cut(self.node_id, site.node_id) or wire.is_cut(site.node_id, self.node_id):
            await asyncio.sleep(timeout_s)
            raise PeerUnreachable(f"no answer within {timeout_s:g} s")
        refusal = self.is_refused_by(site)
        if refusal:
            raise PeerRefused(refusal)
        self._met[site.node_id] = site.raft_address
        way = self.ways.get(site.node_id)
        if way is not None:
            self._adjust(site.node_id)
            way.hurry()
        return site.describe()

    def is_refused_by(self, other: SimNetwork) -> str:
        """Return why the other process shakes no hands with this one; "" when it does."""
        if self.cluster_id and other.cluster_id and self.cluster_id != other.cluster_id:
            return f"{self.node_id!r} belongs to cluster {self.cluster_id!r}, not {other.cluster_id!r}"
        return other.refusal

    def meet(self, dialer: SimNetwork) -> None:
        """Take note of a node that was refused."""
        if not dialer.cluster_id or self.cluster_id in ("", dialer.cluster_id):
            return
        if self.cluster_id in dialer.replaced:
            self.loop.call_soon(self.on_replaced, dialer.describe())
        elif dialer.cluster_id in self.replaced:
            dialer.loop.call_soon(dialer.on_replaced, self.describe())
        elif self.node_id in dialer.peers:
            self.loop.call_soon(self.on_other_cluster, dialer.describe())

    def describe(self) -> Peer:
        """Return this process as it describes itself to others."""
        return Peer(
            self.node_id,
            self.incarnation,
            self.raft_address,
            self.cluster_id,
            self.epoch,
            self.start_number,
            self.level,
            replaced=self.replaced,
        )

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Dial exactly these nodes, and those that dial this one."""
        self.peers = {node_id: address for node_id, address in peers.items() if node_id != self.node_id}
        if self.wire.site_of(self.node_id) is self:
            for node_id in [*self.peers, *(other for other in list(self.ways) if other not in self.peers)]:
                self._adjust(node_id)

    def send(self, node_id: str, message: Mapping[str, Any]) -> bool:
        """Send a message; what cannot be packed raises and what no frame takes is refused, as in the real network."""
        way = self.ways.get(node_id)
        if way is None or not way.connected:
            return False
        kind = message["type"]
        wire = self.wire
        assert not (problem := wrong_fields(message)), problem
        wire.sent[kind] = wire.sent.get(kind, 0) + 1
        wire.note(self.node_id, node_id, kind)
        body = messages.encode(message)
        return len(body) <= FRAME_BYTES_MAX and way.send(body, message)

    def broadcast(self, message: Mapping[str, Any]) -> int:
        """Send a message that is about no log to all peers; it goes last."""
        wire = self.wire
        assert not (problem := wrong_fields(message)), problem
        body = messages.encode(message, messages.BESIDE)
        assert len(body) <= PEER_PIECE_BYTES
        ways = [self.ways.get(node_id) for node_id in self.peers]
        wire.sent["publish"] = wire.sent.get("publish", 0) + len(ways)
        return sum(way is None or not way.send_last(body) for way in ways)

    def backlog(self, node_id: str) -> int:
        """Return the bytes that wait because the way is cut or narrow."""
        way = self.ways.get(node_id)
        if way is None:
            return 0
        return sum(map(len, way.held)) if way.narrow is None else way.narrow.outbox.waiting_bytes

    def is_connected(self, node_id: str) -> bool:
        """Whether ``send`` has a connection."""
        way = self.ways.get(node_id)
        return way is not None and way.connected

    # What the ways call.

    def accepted(self, sender: SimNetwork) -> None:
        """Note that a connection from ``sender`` stands."""
        older = self._incoming.get(sender.node_id)
        self._incoming[sender.node_id] = sender
        if older is not None and older is not sender:
            self.on_peer_lost(sender.node_id)
        way = self.ways.get(sender.node_id)
        if way is not None and way.connected and way.receiver is not sender:
            way.end("it has started anew")
        self._adjust(sender.node_id)

    def connected(self, way: Way) -> None:
        """Note that this process can send over ``way``."""
        older = self._incoming.get(way.node_id)
        if older is not None and older is not way.receiver:
            self._forget(older)
        if way.connected:
            self.on_connected(way.node_id)

    def disconnected(self, node_id: str) -> None:
        """Note that this process cannot send to a node any more."""
        self.on_disconnected(node_id)

    def incoming_ended(self, sender: SimNetwork) -> None:
        """Note that the connection from ``sender`` is over."""
        if self._incoming.get(sender.node_id) is sender:
            self._forget(sender)

    def peer_vanished(self, peer: SimNetwork) -> None:
        """End the connections to and from a process whose system has reset them."""
        way = self.ways.get(peer.node_id)
        if way is not None and way.connected and way.receiver is peer:
            way.end("reset")
        self.incoming_ended(peer)

    def deliver(self, sender: SimNetwork, body: bytes) -> None:
        """Take a message that has arrived."""
        group, message = msgpack.unpackb(body)
        (self.on_beside if group == messages.BESIDE else self.on_message)(sender.describe(), message)

    def _forget(self, sender: SimNetwork) -> None:
        del self._incoming[sender.node_id]
        self._adjust(sender.node_id)
        self.on_peer_lost(sender.node_id)

    def _adjust(self, node_id: str) -> None:
        incoming = self._incoming.get(node_id)
        if incoming is not None:
            self._met[node_id] = incoming.raft_address
        met = self._met.get(node_id) if incoming is not None or node_id in self.peers else None
        addresses = [*dict.fromkeys(address for address in (self.peers.get(node_id), met) if address is not None)]
        way = self.ways.get(node_id)
        if not addresses:
            if way is not None:
                del self.ways[node_id]
                way.close()
        elif way is None:
            self.ways[node_id] = Way(self, node_id, addresses)
        else:
            way.addresses = addresses
            if incoming is not None:
                way.hurry()
