"""Incoming: a connection that a peer has opened, on which it sends messages to this node."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from cacheflow.raft.transport import handshake, messages
from cacheflow.raft.transport.connection import Connection
from cacheflow.raft.transport.frames import FrameError, encode_frame
from cacheflow.raft.transport.handshake import Handshake, Hello, Refusal
from cacheflow.raft.transport.network import Message, Peer
from cacheflow.raft.transport.pieces import Pieces


class IncomingHost(Protocol):
    """Interface: the calls that incoming connections make to the transport that owns them."""

    def knocked(self, connection: Incoming) -> Handshake | None:
        """Note a socket that was just accepted; return the handshake to use, or None to drop the connection."""

    def admit(self, hello: Hello) -> None:
        """Raise Refusal if a peer may not stay connected, although it has proved that it knows the cluster's secret."""

    def pieces_of(self, peer: Peer) -> Pieces:
        """Return an object that puts the large messages of ``peer`` together from pieces, now that the handshake is done."""

    def accepted(self, connection: Incoming) -> None:
        """Keep ``connection``, whose handshake is done: its peer and purpose are known, and messages may follow."""

    def deliver(self, peer: Peer, message: Message, group: int) -> None:
        """Pass on a message that ``peer`` has sent.

        group: the number of the Raft group that the message is for, or BESIDE for a message that is about no log.
        """

    def unknown(self, peer: Peer, what: str) -> None:
        """Note that ``peer`` has sent a frame for a group or of a kind that is not known here.

        what: a description of the frame, for people.
        """

    def changed(self, connection: Incoming) -> None:
        """Note that the peer of ``connection`` has told a new cluster or purpose, which ``connection`` has stored already."""

    def incoming_refused(self, connection: Incoming, reason: str) -> None:
        """Note that the peer of an incoming ``connection`` was refused in the handshake. reason: why, as text for people."""

    def incoming_broken(self, connection: Incoming, error: Exception) -> None:
        """Note that the peer of an incoming ``connection`` broke a rule of the protocol; the connection is being aborted."""

    def incoming_ended(self, connection: Incoming) -> None:
        """Forget the incoming ``connection``, which has ended. Called once for each connection."""


class Incoming(Connection):
    """A connection on which a peer sends and this node only listens. Not safe for concurrent use: the loop owns it.

    encrypted: whether the connection is encrypted.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: IncomingHost,
        *,
        handshake_s: float,
        stall_s: float,
        encrypted: bool,
    ) -> None:
        super().__init__(loop, handshake_s, stall_s)
        self.encrypted = encrypted
        self._host = host
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
        if group == messages.GROUP or group == messages.BESIDE:
            self._host.deliver(self.peer, message, group)
        elif group == messages.CONTROL:
            self._learn(self.peer, message)
        else:
            self._host.unknown(self.peer, f"a message for group {group}")

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
            self.transport.write(encode_frame(hands.refusal(str(refusal))))
            self.close()
            self._host.incoming_refused(self, str(refusal))
            return
        if answer is not None:
            self.transport.write(encode_frame(answer))
        if hands.done:
            assert hands.remote is not None
            self.peer = hands.remote.peer()
            self.purpose = hands.remote.purpose
            self.established(self._host.pieces_of(self.peer))
            self._host.accepted(self)

    def _learn(self, peer: Peer, message: Message) -> None:
        cluster_id, purpose = message.get("cluster_id"), message.get("purpose")
        if message["type"] != "about":
            self._host.unknown(peer, f"a control message of kind {message['type'][:40]!r}")
            return
        if not handshake.is_cluster_id(cluster_id):
            raise FrameError("a control message without a cluster")
        if purpose not in (handshake.SEND, handshake.REPLY):
            raise FrameError("a control message without a purpose")
        self.peer = replace(peer, cluster_id=cluster_id)
        self.purpose = purpose
        self._host.changed(self)
