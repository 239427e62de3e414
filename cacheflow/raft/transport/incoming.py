"""Incoming: a connection that a peer opened to send us its messages."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from cacheflow.raft.transport import handshake, messages
from cacheflow.raft.transport.connection import Connection
from cacheflow.raft.transport.frames import FrameError, encode_frame
from cacheflow.raft.transport.handshake import Handshake, Hello, Refusal
from cacheflow.raft.transport.network import Message, Peer


class IncomingHost(Protocol):
    """What a connection asks of the transport that it belongs to."""

    def knocked(self, connection: Incoming) -> Handshake | None:
        """Somebody connected; None: it is not let in."""

    def admit(self, hello: Hello) -> None:
        """The peer has proved who it is; raises Refusal when it may not stay all the same."""

    def accepted(self, connection: Incoming) -> None:
        """``peer`` and ``purpose`` are known; messages may follow."""

    def deliver(self, peer: Peer, message: Message) -> None:
        """A message."""

    def changed(self, connection: Incoming) -> None:
        """The peer said something new about itself."""

    def incoming_refused(self, connection: Incoming, reason: str) -> None:
        """The peer was sent away."""

    def incoming_broken(self, connection: Incoming, error: Exception) -> None:
        """The other side broke a rule."""

    def incoming_ended(self, connection: Incoming) -> None:
        """It is over."""


class Incoming(Connection):
    """Not safe for concurrent use: the event loop owns it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: IncomingHost,
        *,
        handshake_s: float,
        stall_s: float,
        frame_bytes_max: int,
    ) -> None:
        super().__init__(loop, handshake_s, stall_s)
        self._host = host
        self._frame_bytes_max = frame_bytes_max
        self._handshake: Handshake | None = None
        self.peer: Peer | None = None
        self.purpose = handshake.SEND

    def opened(self) -> None:
        self._handshake = self._host.knocked(self)
        if self._handshake is None:
            self.abort()

    def frame_received(self, body: memoryview) -> None:
        if self.peer is None:
            self._shake_hands(bytes(body))
            return
        group, message = messages.decode(body)
        if group == messages.GROUP:
            self._host.deliver(self.peer, message)
        elif group == messages.CONTROL:
            self._learn(self.peer, message)
        else:
            raise FrameError(f"a message for group {group}, which does not exist")

    def broken(self, error: Exception) -> None:
        self._host.incoming_broken(self, error)

    def ended(self, error: Exception | None) -> None:
        self._host.incoming_ended(self)

    def _shake_hands(self, body: bytes) -> None:
        hands = self._handshake
        assert hands is not None and self.transport is not None
        try:
            answer = hands.receive(body)
            if hands.done:
                assert hands.remote is not None
                self._host.admit(hands.remote)
        except Refusal as refusal:
            self.transport.write(encode_frame(handshake.refused(str(refusal))))
            self.close()
            self._host.incoming_refused(self, str(refusal))
            return
        if answer is not None:
            self.transport.write(encode_frame(answer))
        if hands.done:
            assert hands.remote is not None
            self.peer = hands.remote.peer()
            self.purpose = hands.remote.purpose
            self.established(self._frame_bytes_max)
            self._host.accepted(self)

    def _learn(self, peer: Peer, message: Message) -> None:
        cluster_id, purpose = message.get("cluster_id"), message.get("purpose")
        if message["type"] != "about" or not handshake.is_cluster_id(cluster_id):
            raise FrameError("a control message of no known kind")
        if purpose not in (handshake.SEND, handshake.REPLY):
            raise FrameError("a control message without a purpose")
        self.peer = replace(peer, cluster_id=cluster_id)
        self.purpose = purpose
        self._host.changed(self)
