"""Narrow links: bytes that take their time, between the product's own outbox and its own frames.

Where links are as wide as ever a message is one event. On a narrow one it is bytes in an ``Outbox``, cut into pieces, carried
a few at a time, and put together by a ``FrameBuffer``: so what overtakes what is decided by the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from simulation.bulk import CALL_BYTES_MAX, FRAME_BYTES_MAX, PEER_BACKLOG_BYTES_MAX, PEER_PIECE_BYTES

from cacheflow.contract import Outcome
from cacheflow.machine.language import commands
from cacheflow.raft.transport import messages
from cacheflow.raft.transport.frames import FrameBuffer
from cacheflow.raft.transport.outbox import Outbox
from cacheflow.raft.transport.pieces import Pieces

if TYPE_CHECKING:
    from simulation.faults import Faults
    from simulation.network import SimNetwork, Way

# Seconds for which bytes may be on their way before the connection has ended, as in the real transport.
STALL_S = 3.0
# Seconds after which bytes that did not get through a cut try again.
AGAIN_S = 0.02
# Bytes a second where links are narrow no more, and what waits is still to be carried.
WIDE_BYTES_PER_S = 1e9
# The bandwidths of the fault, in bytes a second: the largest call takes up to three times the election timeout, beside heartbeats
# and what clients write. And the seconds for which it lasts.
BYTES_PER_S = (6_000, 12_000, 30_000)
LASTS_S = 12.0


class NarrowLink:
    """What one connection carries while links are narrow. It stands in the place of asyncio's transport."""

    def __init__(self, way: Way, receiver: SimNetwork, free_at: float) -> None:
        loop = cast(Any, way.site.loop)
        self.outbox = Outbox(loop, self, STALL_S, loop.call_soon)
        self._way = way
        self._receiver = receiver
        self._wire = way.site.wire
        self._kept = b""
        # Whether bytes are on their way, and since when a cut keeps them there.
        self._carrying = False
        self._cut_since: float | None = None
        # What was sent before, as single messages, arrives until then.
        self._free_at = free_at
        self._frames = FrameBuffer(PEER_PIECE_BYTES)
        sender = way.site.node_id
        self._frames.pieces = Pieces(FRAME_BYTES_MAX, receiver.budget, sender, lambda: sender in receiver.peers)

    def send(self, body: bytes, message: Mapping[str, Any]) -> bool:
        """Put a message on its way, unless too much waits already, as in the real transport."""
        outbox = self.outbox
        waiting = outbox.overtaking_bytes if messages.may_overtake(message) else outbox.waiting_bytes
        if waiting > PEER_BACKLOG_BYTES_MAX:
            return False
        if self._wire.mark and self._wire.mark in body:
            self._wire.marked[self._way.site.node_id, self._way.node_id] += 1
        outbox.put(body, message)
        return True

    def close(self) -> None:
        """Carry nothing more: the connection has ended."""
        self._kept = b""
        self.outbox.close()
        assert self._frames.pieces is not None
        self._frames.pieces.drop()

    # What an outbox asks of asyncio.

    def write(self, data: bytes) -> None:
        """Take bytes; the system keeps a few of them at a time."""
        self._kept += data
        self._take()
        if self._kept:
            self.outbox.pause()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the system has not taken."""
        return len(self._kept)

    def is_closing(self) -> bool:
        """Return whether the connection has ended."""
        return self._way.narrow is not self

    def abort(self) -> None:
        """End the connection."""
        self._way.end("stalled")

    # Inside.

    def _take(self) -> None:
        if self._kept and not self._carrying:
            data, self._kept = self._kept[:PEER_PIECE_BYTES], self._kept[PEER_PIECE_BYTES:]
            self._carrying = True
            wire = self._wire
            seconds = len(data) / (wire.bytes_per_s or WIDE_BYTES_PER_S)
            begins = max(wire.scheduler.now, self._free_at)
            wire.scheduler.at(begins + seconds - wire.scheduler.now, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        way, wire, receiver = self._way, self._wire, self._receiver
        if way.narrow is not self:
            return
        cut = wire.is_cut(way.site.node_id, way.node_id)
        if not receiver.loop.alive and not cut and wire.site_of(way.node_id) is not None:
            way.end("reset")
            return
        if cut or not receiver.loop.alive:
            now = wire.scheduler.now
            if self._cut_since is None:
                self._cut_since = now
            if now - self._cut_since > STALL_S:
                way.end("stalled")
            else:
                wire.scheduler.at(AGAIN_S, self._arrive, data)
            return
        self._cut_since = None
        self._frames.space()[: len(data)] = data
        for body in self._frames.received(len(data)):
            receiver.loop.do(receiver.deliver, way.site, bytes(body))
        self._carrying = False
        self._take()
        if not self._kept:
            way.site.loop.do(self._go_on)

    def _go_on(self) -> None:
        if self._way.narrow is self:
            self.outbox.resume()
            if self._wire.bytes_per_s is None and not self._carrying and not self.outbox.waiting_bytes:
                self._way.widened()


def narrow(faults: Faults) -> None:
    """Make all links narrow for a while and one call large: among other faults; or alone, when nobody may lose the leadership."""
    if faults.random.random() < 0.5:
        faults.alone(lambda: _alone(faults))
        return
    wire = faults.cluster.wire
    _begin(faults)

    def undo() -> None:
        wire.bytes_per_s = None

    faults.later(1.0, LASTS_S, undo)


def _begin(faults: Faults) -> bytes:
    """Make links narrow, have some node send a large call, and return what is in that alone."""
    cluster = faults.cluster
    cluster.wire.bytes_per_s = faults.random.choice(BYTES_PER_S)
    cluster.note(f"links of {cluster.wire.bytes_per_s} bytes/s")
    process = faults.somebody().process
    token = f"narrow-{faults.random.getrandbits(32)}"
    # Most of its bytes are the keys of what is not there.
    large = commands.batch([commands.delete(f"{token}-{number:0980}") for number in range(CALL_BYTES_MAX // 1100)])

    def done(outcome: Outcome) -> Any:
        cluster.note(f"the large call: {str(outcome)[:60]}")
        return lambda: None

    if process is not None:
        process.loop.call_soon(process.inbox.submit, [large], done)
    return token.encode()


def _alone(faults: Faults) -> None:
    cluster = faults.cluster
    leader = cluster.leader
    assert leader is not None
    term = leader.node.term
    faults.quiet_for(LASTS_S + 0.1)
    wire = cluster.wire
    wire.mark = _begin(faults)
    wire.marked.clear()

    def undo() -> None:
        wire.bytes_per_s = None
        now = cluster.leader
        if now is None or now.node.term != term:
            cluster.checks.complain(f"narrow links: {leader.name} has lost the leadership of term {term}")
        wire.mark = b""
        for (source, target), times in wire.marked.items():
            if times > 1:
                cluster.checks.complain(f"narrow links: {source} has sent the large call to {target} {times} times")

    faults.later(LASTS_S, LASTS_S, undo)
