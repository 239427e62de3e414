"""Mailbox: what one RESP client has subscribed to, and the published messages that wait to be sent to it.

1. A message is rendered once for all clients of a node that speak the same version of RESP (and, for a pattern, have the same
   one), and all messages of a turn leave in one write.
2. The socket's buffer holds no more than a chunk of it beside what the system takes: all else waits here, where clients share
   it. A message that the client has taken a part of goes before everything else that is sent to that client.
3. A client for which more than UNREAD_BYTES_MAX wait is ended.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from cacheflow.contract import CHANNEL, PATTERN, SHARD, Channels, Invalidated, Published, Space
from cacheflow.wire.resp.replies import NULL, bulk, bulks

logger = logging.getLogger("cacheflow.wire")

# Bytes of messages that wait for one client.
UNREAD_BYTES_MAX: Final = 8 * 1024 * 1024
# What a message that waits costs beside its bytes.
PLACE_BYTES: Final = 128
# Bytes that are written at once.
CHUNK_BYTES: Final = 64 * 1024
# Bytes that one client gets before others have their turn.
WRITTEN_BYTES_MAX: Final = 256 * 1024


class Receiver(Protocol):
    """Interface: the connection of a RESP client that has subscribed to channels."""

    protocol: int

    @property
    def is_stalled(self) -> bool:
        """True while no message may be sent: the client's socket takes no more bytes, or the client has a part of a reply."""

    def write_pushes(self, data: bytes) -> None:
        """Write ``data``, a part of the published messages that wait for this client, to the client's socket."""

    def describe(self) -> str:
        """Return the line about the client in the reply to CLIENT LIST."""

    def abort(self) -> None:
        """Close the client's connection at once."""


class Mailbox:
    """A RESP client's subscriptions, and the published messages that wait to be sent to the client.

    Not safe for concurrent use: the event loop owns it.
    """

    def __init__(self, connection: Receiver, channels: Channels) -> None:
        # The names of what the client has subscribed to, in the order in which it did.
        self.names: dict[Space, dict[bytes, None]] = {CHANNEL: {}, PATTERN: {}, SHARD: {}}
        self.unread_bytes = 0
        self._connection = connection
        self._channels = channels
        self._waiting: deque[tuple[Published, bytes]] = deque()
        # How much of the first message the client has taken.
        self._begun_bytes = 0
        self._woken = False
        # True while nothing is sent: subscriptions are changing, and the answer to that is not complete.
        self._held = False
        self._closed = False

    # The client ---------------------------------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> int:
        """The number of channels, patterns and shard channels that the client has subscribed to."""
        return sum(map(len, self.names.values()))

    @property
    def has_begun(self) -> bool:
        """True if the client has a part of a message, and not all of it."""
        return self._begun_bytes > 0

    def subscribe(self, space: Space, name: bytes, matches: Callable[[bytes], object] | None) -> None:
        """Subscribe the client to the channel or pattern ``name``. Raises InvalidRequest if the node has no room for it."""
        self._channels.subscribe(self, space, name, matches)
        self.names[space][name] = None

    def unsubscribe(self, space: Space, name: bytes) -> None:
        """End the client's subscription to the channel or pattern ``name``, if there is one."""
        self.names[space].pop(name, None)
        self._channels.unsubscribe(self, space, name)

    def leave(self) -> None:
        """End all subscriptions of the client; the published messages that already wait for the client are still sent."""
        for space, names in self.names.items():
            for name in names:
                self._channels.unsubscribe(self, space, name)
            names.clear()

    def close(self) -> None:
        """End all subscriptions of the client, and drop the published messages that wait for the client."""
        self._closed = True
        self.leave()
        self.taken()

    def hold(self) -> None:
        """Send no published messages to this client until ``release`` is called."""
        self._held = True

    def release(self) -> None:
        """Send published messages to this client again, after a time in which they were held back."""
        self._held = False
        if self._waiting:
            self._wake()

    def taken(self) -> bytes:
        """Remove and return the published messages that wait for the client; the caller sends them in front of a reply.

        Not to be called while the client's socket takes no more bytes: the client may have a part of the first message.
        """
        rest = b"".join([data for _, data in self._waiting])
        while self._waiting:
            self._let_go()
        return rest

    def go_on(self) -> bool:
        """Send the rest of a published message of which the client has a part, now that the client's socket takes bytes again.

        Returns True if the client then has all of that message, so that something else may be sent.
        """
        if self._begun_bytes:
            self.write()
            return not self._begun_bytes
        if self._waiting and not self._woken:
            self._wake()
        return True

    # The channels ---------------------------------------------------------------------------------------------------------

    def take(self, published: Published, pattern: bytes | None) -> None:
        if self._closed:
            return
        key = (self._connection.protocol, pattern)
        data = published.rendered.get(key)
        if data is None:
            data = published.rendered[key] = _render(published, *key)
        self._channels.hold(self, published)
        self._waiting.append((published, data))
        self.unread_bytes += len(data) + PLACE_BYTES
        if self.unread_bytes > UNREAD_BYTES_MAX:
            self.end_as_slow()
        elif not (self._woken or self._held or self._connection.is_stalled):
            self._wake()

    def write(self) -> None:
        self._woken = False
        if self._held:
            return
        connection, waiting = self._connection, self._waiting
        written = 0
        while waiting and not connection.is_stalled:
            if written >= WRITTEN_BYTES_MAX and not self._begun_bytes:
                self._wake()
                return
            parts: list[bytes] = []
            room = CHUNK_BYTES
            goes_on = self._begun_bytes > 0
            while waiting and room > 0:
                data = waiting[0][1]
                if self._begun_bytes or len(data) > room:
                    data = data[self._begun_bytes : self._begun_bytes + room]
                    self._begun_bytes += len(data)
                parts.append(data)
                room -= len(data)
                if not self._begun_bytes or self._begun_bytes == len(waiting[0][1]):
                    self._let_go()
                    # Where a reply was made since the message was begun, it comes before the next message.
                    if goes_on and self._connection.is_stalled:
                        break
                    goes_on = False
            written += CHUNK_BYTES - room
            connection.write_pushes(parts[0] if len(parts) == 1 else b"".join(parts))

    def end_as_slow(self) -> None:
        if self._closed:
            return
        logger.warning(
            "closed the connection of a subscriber that does not take what is published, for which %d bytes wait: %s",
            *(self.unread_bytes, self._connection.describe()),
        )
        self._channels.has_ended()
        self._closed = True
        while self._waiting:
            self._let_go()
        self._connection.abort()

    # Inside ---------------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._woken = True
        self._channels.wake(self)

    def _let_go(self) -> None:
        """Drop the first published message that waits for the client: the client has that message, or will not get it."""
        published, data = self._waiting.popleft()
        self._begun_bytes = 0
        self.unread_bytes -= len(data) + PLACE_BYTES
        self._channels.let_go(self, published, not self._waiting)


def push(protocol: int, *items: bytes) -> bytes:
    """Return a RESP push of ``items``, each encoded already; in RESP2 that is an array. protocol: RESP's version, 2 or 3."""
    return b"%b%d\r\n%b" % (b"*" if protocol == 2 else b">", len(items), b"".join(items))


def _render(published: Published, protocol: int, pattern: bytes | None) -> bytes:
    """Return a published message encoded for a RESP client that has subscribed to ``pattern``, or if None, to the channel."""
    if isinstance(published, Invalidated):
        keys = NULL[protocol] if published.keys is None else bulks(published.keys)
        if protocol == 3:
            return push(3, bulk(b"invalidate"), keys)
        return push(2, bulk(b"message"), bulk(published.channel), keys)
    items: list[Any] = [bulk(published.channel), bulk(published.data)]
    if pattern is not None:
        return push(protocol, bulk(b"pmessage"), bulk(pattern), *items)
    return push(protocol, bulk(b"smessage" if published.shard else b"message"), *items)
