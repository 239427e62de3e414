"""What the tests of the transport share: nodes that note what they are told, and peers that misbehave."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

from cacheflow.node.supervisor import Supervisor
from cacheflow.raft.transport.frames import HEADER, encode_frame
from cacheflow.raft.transport.handshake import SEND, Handshake, Hello
from cacheflow.raft.transport.network import Identity, Peer
from cacheflow.raft.transport.peer_transport import PeerTransport

SECRET = b"sixteen bytes or more"
DEADLINE_S = 5.0


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test; afterwards nothing may be left over."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        complaints: list[dict[str, Any]] = []

        async def body() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            try:
                async with asyncio.timeout(2 * DEADLINE_S):
                    await test(*arguments, **named)
            finally:
                for node in list(Node.running):
                    await node.stop()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

        asyncio.run(body())
        assert not complaints, complaints

    return run


async def eventually(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail after a deadline."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < end_s, "it did not happen in time"
        await asyncio.sleep(0.001)


class Node(PeerTransport):
    """A transport that notes every callback."""

    running: ClassVar[list[Node]] = []
    # Each is a later start than those before, on whatever data.
    starts: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(
        self, node_id: str, *, incarnation: str = "1", cluster_id: str = "", port: int = 0, **named: Any
    ) -> None:
        named.setdefault("secret", SECRET)
        named.setdefault("supervisor", Supervisor(asyncio.get_running_loop()))
        named.setdefault("retry_s", (0.005, 0.05))
        identity = Identity(node_id, incarnation, cluster_id, named.pop("start", None) or next(Node.starts))
        super().__init__(identity, ("127.0.0.1", port), "127.0.0.1:0", **named)
        self.node_id = node_id
        self.messages: list[tuple[Peer, dict[str, Any]]] = []
        self.events: list[tuple[str, str]] = []
        self.on_message = lambda peer, message: self.messages.append((peer, message))
        self.on_connected = lambda other: self.events.append(("connected", other))
        self.on_disconnected = lambda other: self.events.append(("disconnected", other))
        self.on_peer_lost = lambda other: self.events.append(("lost", other))

    async def start(self) -> None:
        await super().start()
        Node.running.append(self)

    async def stop(self) -> None:
        if self in Node.running:
            Node.running.remove(self)
        await super().stop()

    @property
    def port(self) -> int:
        return self.bound_address[1]

    def trouble(self, node_id: str) -> str | None:
        """Why there is no connection to that node; None when there is one or nothing is known."""
        link = self._links.get(node_id)
        return None if link is None else link.trouble

    def numbers(self, of: str | None = None) -> list[int]:
        """The numbers in the messages that came (from one node)."""
        return [message["number"] for peer, message in self.messages if of in (None, peer.node_id)]


async def started(node_id: str, **named: Any) -> Node:
    node = Node(node_id, **named)
    await node.start()
    return node


async def connected(*nodes: Node) -> None:
    """Make every node dial every other and wait until all have."""
    for node in nodes:
        node.set_peers({other.node_id: other.raft_address for other in nodes})
    await eventually(lambda: all(n.is_connected(o.node_id) for n in nodes for o in nodes if n is not o))


def number(value: int, **more: Any) -> dict[str, Any]:
    return {"type": "test", "number": value, **more}


def hello(name: str = "x", **changes: Any) -> Hello:
    fields: dict[str, Any] = {
        "node_id": name,
        "incarnation": "1",
        "raft_address": "127.0.0.1:1",
        "cluster_id": "",
        "epoch": "e1",
        "start": 1,
        "purpose": SEND,
        "secured": True,
        "nonce": bytes(32),
        "level": 1,
        "build": "1.0",
        "certified": False,
    }
    return Hello(**(fields | changes))


class RawPeer:
    """A connection in a test's own hands. It can shake hands properly and do anything afterwards."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, node: Node) -> RawPeer:
        return cls(*await asyncio.open_connection("127.0.0.1", node.port))

    async def frame(self) -> bytes:
        (size,) = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return await self.reader.readexactly(size)

    def send(self, body: bytes) -> None:
        self.writer.write(encode_frame(body))

    async def shake(self, own: Hello, *, dialer: bool = True, secret: bytes | None = SECRET) -> Handshake:
        hands = Handshake(own, secret, dialer=dialer)
        if dialer:
            self.send(hands.opening())
        while not hands.done:
            answer = hands.receive(await self.frame())
            if answer is not None:
                self.send(answer)
        return hands

    async def ended(self) -> None:
        """Return when the other side has closed."""
        try:
            while await asyncio.wait_for(self.reader.read(65536), DEADLINE_S):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self.writer.transport.abort()


class DeafListener:
    """A peer that shakes hands, or not even that, and then reads nothing any more."""

    def __init__(self, node_id: str = "deaf", *, shakes: bool = True) -> None:
        self.node_id = node_id
        self.shakes = shakes
        self.peers: list[RawPeer] = []

    async def start(self) -> None:
        # A small limit: the stream stops reading after twice as much.
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1024)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(reader, writer)
        self.peers.append(peer)
        if self.shakes:
            await peer.shake(hello(self.node_id, raft_address=self.address), dialer=False)

    async def stop(self) -> None:
        self.server.close()
        for peer in self.peers:
            peer.close()
        await self.server.wait_closed()
