"""PeerLink: this node's sending connection to one other node, which is opened again and again until the link is closed.

There is one connection at a time, only for sending; the other node's messages come over its own link to us. So two
connections never compete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cacheflow.raft.seams import Tasks
from cacheflow.raft.transport import messages
from cacheflow.raft.transport.dialing import Outgoing
from cacheflow.raft.transport.network import Peer, PeerUnreachable

logger = logging.getLogger(__name__)

# An attempt to connect that is older than this when its target dials us is given up for a new one: it probably began
# when the target's host was down, and the system would try again only after seconds.
_FRESH_S = 0.25


class LinkHost(Protocol):
    """Interface: what a link, a connection for sending to one node, uses of the transport that owns it."""

    loop: asyncio.AbstractEventLoop
    supervisor: Tasks
    dial_s: float
    retry_s: tuple[float, float]
    cluster_id: str

    async def dial(self, address: str, purpose: str, expected: str) -> Outgoing:
        """Open a connection to ``address`` and return it; the node with the id ``expected`` must answer there.

        purpose: SEND, or REPLY for a connection that only answers a node that sends to this one. Raises PeerUnreachable.
        """

    def random(self) -> float:
        """Return a random number of at least 0 and below 1."""

    def link_up(self, link: PeerLink, peer: Peer) -> None:
        """Note that ``link``, a connection for sending to one node, was opened; ``peer`` has answered."""

    def link_down(self, link: PeerLink) -> None:
        """Note that ``link``, a connection for sending to one node, has ended; called once each time after ``link_up``."""


class PeerLink:
    """A connection for sending to one node, opened again whenever it ends. Not safe for concurrent use: the loop owns it.

    addresses: the addresses at which the node may answer, the likeliest first.
    purpose: SEND, or REPLY for a link that only answers a node that sends to this one.
    """

    def __init__(self, host: LinkHost, node_id: str, addresses: Sequence[str], purpose: str) -> None:
        self.node_id = node_id
        # Why the last attempt failed or the last connection ended; None while connected.
        self.trouble: str | None = None
        self.peer: Peer | None = None
        self._host = host
        self._addresses = list(addresses)
        # The position in ``_addresses`` that is tried next; the first one again after a success.
        self._turn = 0
        self._purpose = purpose
        self._connection: Outgoing | None = None
        self._address = ""
        # (cluster id, purpose) as the peer was last told them.
        self._said = ("", "")
        # Set to begin the next attempt without waiting.
        self._wake = asyncio.Event()
        self._attempt: asyncio.Timeout | None = None
        self._attempt_began_s = 0.0
        # None once it has ended: a cancelled task knows where it was, and so this link.
        self._task: asyncio.Task[None] | None = host.supervisor.start(f"the link to {node_id}", self._run)
        self._task.add_done_callback(self._over)

    @property
    def connected(self) -> bool:
        """True if the link, which sends to one node, has an open connection to that node."""
        return self._connection is not None

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes that wait in this process to be sent on the link to one node; 0 without a connection."""
        connection = self._connection
        return 0 if connection is None or connection.outbox is None else connection.outbox.waiting_bytes

    @property
    def overtaking_bytes(self) -> int:
        """The number of bytes waiting on the link that leave before a message sent now that may overtake others.

        A link is a connection for sending to one node.
        """
        connection = self._connection
        return 0 if connection is None or connection.outbox is None else connection.outbox.overtaking_bytes

    def send(self, body: bytes, message: Mapping[str, Any]) -> None:
        """Send ``message``, which is packed in ``body``, to the link's node; without a connection the message is dropped."""
        if self._connection is not None and self._connection.outbox is not None:
            self._connection.outbox.put(body, message)

    def send_last(self, frame: bytes) -> bool:
        """Send ``frame`` to the link's node once nothing else waits.

        Returns False without a connection, or if too many bytes of such frames wait already.
        """
        connection = self._connection
        return connection is not None and connection.outbox is not None and connection.outbox.put_last(frame)

    def update(self, addresses: Sequence[str], purpose: str) -> None:
        """Set the addresses at which the other node of this link may answer, the likeliest first, and the link's purpose.

        The connection is replaced if the likeliest address is a new one and not the one that the connection leads to.
        purpose: SEND, or REPLY for a link that only answers a node that sends to this one.
        """
        moved = addresses[0] != self._addresses[0] and addresses[0] != self._address
        self._addresses = list(addresses)
        self._purpose = purpose
        if moved:
            self._turn = 0
            if self._connection is not None:
                self.redial("its address changed")
            else:
                self._start_again()
        self.tell()

    def tell(self) -> None:
        """Tell the peer this node's cluster and what the link to it is for, if either has changed since that was last told."""
        about = (self._host.cluster_id, self._purpose)
        if self._connection is not None and self._said != about:
            self._said = about
            message = {"type": "about", "cluster_id": about[0], "purpose": about[1]}
            self.send(messages.encode(message, messages.CONTROL), message)

    def hurry(self) -> None:
        """Try to connect to the link's node at once, because that node has just dialed this one and so can be reached."""
        if self._connection is not None:
            return
        if self._attempt is None:
            self._wake.set()
        elif self._host.loop.time() - self._attempt_began_s > _FRESH_S:
            self._start_again()

    def redial(self, reason: str) -> None:
        """Abort the link's connection to its node, if there is one, for ``reason``, and open another one at once."""
        connection = self._connection
        if connection is not None:
            self._ended(reason)
            self._wake.set()
            connection.abort()

    def close(self) -> Outgoing | None:
        """End the link, a connection for sending to one node, so that it connects no more; messages sent before still leave.

        Returns the connection that is now closing, None if there was none.
        """
        if self._task is not None:
            self._task.cancel()
        connection = self._connection
        if connection is not None:
            self._ended("closed")
            connection.close()
        return connection

    async def wait_closed(self) -> None:
        """Wait until the task that keeps the link connected to its node has ended, after ``close``."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None

    def _start_again(self) -> None:
        self._wake.set()
        if self._attempt is not None and not self._attempt.expired():
            self._attempt.reschedule(self._host.loop.time())

    async def _run(self) -> None:
        first_s, longest_s = self._host.retry_s
        failures = 0
        while True:
            address = self._addresses[self._turn % len(self._addresses)]
            began_s = self._host.loop.time()
            connection = await self._dial(address)
            if connection is not None:
                # Ending this task must not end the connection's own waiting: what was sent still leaves.
                await asyncio.shield(connection.gone)
            # A connection that ends young counts as a failure: a node that accepts and hangs up must not be dialed in a circle.
            failures = 0 if self._host.loop.time() - began_s > longest_s + self._host.dial_s else failures + 1
            delay_s = min(longest_s, first_s * 2 ** min(failures, 16)) * (0.5 + self._host.random() / 2)
            # An attempt that took long was a pause itself: a node that starts without data counts on being dialed.
            delay_s -= self._host.loop.time() - began_s
            try:
                async with asyncio.timeout(max(first_s, delay_s)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _dial(self, address: str) -> Outgoing | None:
        host = self._host
        said = (host.cluster_id, self._purpose)
        self._attempt_began_s = host.loop.time()
        self._address = address
        try:
            async with asyncio.timeout(host.dial_s) as self._attempt:
                connection = await host.dial(address, self._purpose, self.node_id)
        except (PeerUnreachable, TimeoutError) as error:
            self._turn += 1
            self._complain(address, str(error) or f"no answer within {host.dial_s:g} s")
            return None
        finally:
            self._attempt = None
        if connection.closed:
            self._complain(address, "the connection ended at once")
            return None
        self._connection = connection
        self._turn = 0
        self._wake.clear()
        self._said = said
        self.peer = connection.answer.result().peer()
        self.trouble = None
        connection.on_end = self._ended
        logger.info("connected to %s at %s", self.node_id, address)
        host.link_up(self, self.peer)
        self.tell()
        return connection

    def _ended(self, reason: str) -> None:
        connection = self._connection
        if connection is not None:
            connection.on_end = None
            self._connection = None
            self.peer = None
            self.trouble = reason
            logger.info("disconnected from %s: %s", self.node_id, reason)
            self._host.link_down(self)

    def _complain(self, address: str, reason: str) -> None:
        # A node that is down for a day is one line, not 86,400.
        if self.trouble != reason:
            self.trouble = reason
            logger.warning("cannot reach %s at %s: %s", self.node_id, address, reason)
