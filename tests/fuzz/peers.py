"""The peer protocol for the fuzzer: handshakes and messages, the cluster's secret known.

Nothing is answered behind a handshake, so the known answer is the handshake's own: the listener's proof.
"""

from __future__ import annotations

import asyncio
import secrets
from random import Random
from typing import Any, get_args, get_type_hints

import msgpack
from fuzz.grammar import Malformed
from fuzz.mutating import mutated
from fuzz.secured import Secured

from cacheflow.raft import message_types
from cacheflow.raft.transport.frames import HEADER, encode_frame
from cacheflow.raft.transport.handshake import PROBE, SEND, Handshake, Hello
from cacheflow.raft.transport.network import PeerRefused

Reader = asyncio.StreamReader | Secured
Writer = asyncio.StreamWriter | Secured
TOKENS = (
    b"\xc0",
    b"\x80",
    b"\x90",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xc9",
)
NUMBERS = (0, 1, -1, 2, 7, 2**31, 2**62, 2**63 - 1, -(2**63), 2**64 - 1)


def _shapes() -> dict[str, list[str]]:
    """Return the fields of every message between nodes, by its type."""
    shapes: dict[str, list[str]] = {}
    for each in vars(message_types).values():
        hints = (
            get_type_hints(each) if isinstance(each, type) and "type" in getattr(each, "__annotations__", ()) else {}
        )
        for name in get_args(hints.pop("type", None)):
            shapes[name] = list(hints)
    return shapes


SHAPES = _shapes()


class Peers:
    """One stranger that knows the secret, and a network's noise."""

    def __init__(self, secret: bytes, cluster_id: str, certified: bool = False) -> None:
        self._certified = certified
        self._secret = secret
        self._cluster_id = cluster_id
        self._start = 0

    async def connection(self, reader: Reader, writer: Writer, random: Random) -> int:
        """Send some inputs over a new connection and return their number. Raises Malformed for a wrong answer."""
        if random.random() < 0.4:
            return await self._strange_hello(reader, writer, random)
        purpose = random.choice((PROBE, SEND, SEND))
        try:
            await self._shake_hands(reader, writer, purpose)
        except PeerRefused:
            # A later start of the same stranger is connected already, or too many strangers are.
            return 1
        frames = [self._frame(random) for _ in range(random.randrange(5, 60))]
        if random.random() < 0.5:
            # It mostly ends the connection, so it comes last.
            frames.append(mutated(self._frame(random), random, TOKENS))
        writer.write(b"".join(frames))
        writer.write_eof()
        # The node closes when it has read all of them, or at once after a probe.
        while await reader.read(65536):
            pass
        return len(frames) + 1

    def _hello(self, purpose: str) -> Hello:
        self._start += 1
        # Some come back, and each of the others comes once: nothing may be kept of them.
        name = self._start if self._start % 3 == 0 else self._start % 4
        return Hello(
            f"stranger-{name}", f"i{name}", "127.0.0.1:9", self._cluster_id, secrets.token_hex(8),
            self._start, purpose, True, secrets.token_bytes(32), 1, "fuzz", self._certified,
        )  # fmt: skip

    async def _strange_hello(self, reader: Reader, writer: Writer, random: Random) -> int:
        body = self._hello(random.choice((PROBE, SEND))).encode()
        frame = encode_frame(body)
        if random.random() < 0.5:
            fields = msgpack.unpackb(body)
            fields[random.randrange(len(fields))] = _plain(random)
            frame = encode_frame(msgpack.packb(fields))
        else:
            frame = mutated(frame, random, TOKENS)
        writer.write(frame)
        writer.write_eof()
        answer = await reader.read(65536)
        while answer and len(answer) < HEADER.size:
            more = await reader.read(65536)
            if not more:
                break
            answer += more
        if answer:
            (length,) = HEADER.unpack_from(answer)
            if length > 4096 or msgpack.unpackb(answer[4 : 4 + length])[0] not in ("hello", "refused"):
                raise Malformed(repr(answer[:200]))
        return 1

    async def _shake_hands(self, reader: Reader, writer: Writer, purpose: str) -> None:
        hands = Handshake(self._hello(purpose), self._secret, dialer=True)
        hands.encrypted = self._certified
        writer.write(encode_frame(hands.opening()))
        for _ in range(2):
            (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            answer = hands.receive(await reader.readexactly(length))
            if answer is not None:
                writer.write(encode_frame(answer))
        if not hands.done:
            raise Malformed("a handshake without the listener's proof")

    def _frame(self, random: Random) -> bytes:
        kind = random.choice(list(SHAPES))
        message: dict[str, Any] = {name: _plain(random) for name in SHAPES[kind] if random.random() < 0.95}
        message["type"] = kind if random.random() < 0.9 else random.choice(("about", "nosuch", _plain(random)))
        if message["type"] == "about":
            message |= {"cluster_id": self._cluster_id, "purpose": random.choice(("send", "reply", _plain(random)))}
        group: Any = random.choice((0, 0, 0, 0, -1, 1, 99)) if random.random() < 0.999 else _plain(random)
        return encode_frame(msgpack.packb((group, message)))


def _plain(random: Random, depth: int = 0) -> Any:
    kind = random.randrange(11)
    if kind < 4:
        return random.choice(NUMBERS)
    if kind < 8 or depth > 2:
        some = (
            None,
            True,
            1.5,
            float("nan"),
            "",
            "node-1",
            "x" * 300,
            b"",
            b"\x93\x01",
            random.randbytes(20),
            "send",
            [b"", 1, 1],
        )
        return random.choice(some)
    if kind < 10:
        return [_plain(random, depth + 1) for _ in range(random.randrange(5))]
    return {str(number): _plain(random, depth + 1) for number in range(random.randrange(4))}
