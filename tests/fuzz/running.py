"""Many clients that send inputs to one port of a node, and look whether it still answers what it is asked."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from fuzz.grammar import Grammar, Malformed, Replies
from fuzz.mutating import mutated
from fuzz.peers import Peers
from fuzz.secured import Secured, knock, shake_hands

# Clients of a port at once.
CLIENTS = 32
# Seconds that a valid request may take: an election may be on the way.
ANSWER_S = 20.0
# Seconds without an answer after which a mutated input has swallowed what came behind it, such as a length without its bytes.
SILENCE_S = 0.1
# Inputs of a connection, at most: then another one is opened.
CONNECTION_INPUTS_MAX = 400
FAILURES_MAX = 20
# Of connections over TLS so many are no handshake; of mutated inputs so many are no records.
STRANGE = 0.05


@dataclass
class Tally:
    """What was sent to one port, and what was wrong."""

    wanted: int
    inputs: int = 0
    connections: int = 0
    known: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def going_on(self) -> bool:
        """True while more inputs are to be sent."""
        return self.inputs < self.wanted and len(self.failures) < FAILURES_MAX


@dataclass(frozen=True)
class Port:
    """A port of a node. tls: how to connect; None: without TLS."""

    host: str
    number: int
    tls: ssl.SSLContext | None = None

    async def connect(self, random: Random) -> tuple[asyncio.StreamReader | Secured, asyncio.StreamWriter | Secured]:
        """Open a connection to the port."""
        if self.tls is None:
            return await asyncio.open_connection(self.host, self.number, limit=2**22)
        secured = await shake_hands(self.host, self.number, self.tls, random)
        return secured, secured


async def fuzz(port: Port, grammar: Grammar | Peers, tally: Tally, seed: int) -> None:
    """Send inputs to ``port`` until ``tally`` has enough; each client's inputs follow from ``seed``."""
    nonces = itertools.count(1)
    await asyncio.gather(*[_client(port, grammar, tally, Random(f"{seed} {each}"), nonces) for each in range(CLIENTS)])


async def _client(
    port: Port, grammar: Grammar | Peers, tally: Tally, random: Random, nonces: itertools.count[int]
) -> None:
    while tally.going_on:
        try:
            async with asyncio.timeout(ANSWER_S):
                if port.tls is not None and random.random() < STRANGE:
                    await knock(port.host, port.number, port.tls, random)
                    tally.inputs += 1
                    tally.ends["no handshake"] += 1
                reader, writer = await port.connect(random)
        except (OSError, TimeoutError) as error:
            tally.failures.append(f"no connection: {error!r}")
            await asyncio.sleep(0.5)
            continue
        tally.connections += 1
        try:
            if isinstance(grammar, Peers):
                async with asyncio.timeout(ANSWER_S):
                    sent = await grammar.connection(reader, writer, random)
                tally.inputs += sent
                tally.known += 1
            else:
                tally.ends[await Conversation(grammar, reader, writer, tally, nonces).hold(random)] += 1
        except Malformed as error:
            tally.failures.append(f"malformed: {error}")
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            tally.failures.append(f"no answer: {error!r}")
        except OSError:
            tally.ends["reset"] += 1
        finally:
            writer.close()


class Conversation:
    """One connection: valid inputs, each with a known request behind it, and now and then a mutated one."""

    def __init__(
        self,
        grammar: Grammar,
        reader: asyncio.StreamReader | Secured,
        writer: asyncio.StreamWriter | Secured,
        tally: Tally,
        nonces: itertools.count[int],
    ) -> None:
        self._grammar = grammar
        self._reader = reader
        self._writer = writer
        self._tally = tally
        self._nonces = nonces
        self._replies: Replies = grammar.replies()
        self._latest = b""

    async def hold(self, random: Random) -> str:
        """Send inputs until the connection ends; return how that came. Raises Malformed, TimeoutError."""
        before = self._tally.inputs
        while self._tally.going_on and self._tally.inputs - before < CONNECTION_INPUTS_MAX:
            await self._valid(random)
            for _ in range(random.randrange(1, 6)):
                end = await self._mutated(random)
                if end:
                    return end
        return "enough"

    async def _valid(self, random: Random) -> None:
        """Send some valid inputs in one pipeline; each must have its replies, and the known request its own."""
        sent = []
        for _ in range(random.randrange(1, 4)):
            data, count = self._grammar.valid(random)
            sent.append((data, count, next(self._nonces)))
        for data, _, nonce in sent:
            known = self._grammar.known(nonce)
            self._replies.sent(data)
            self._replies.sent(known)
            self._writer.write(data)
            self._writer.write(known)
        for data, count, nonce in sent:
            async with asyncio.timeout(ANSWER_S):
                for _ in range(count):
                    await self._reply(data)
                reply = await self._reply(data)
            if not self._grammar.answers(reply, nonce):
                raise Malformed(
                    f"{reply!r:.300} instead of the known answer {nonce}, behind {data!r:.500}; {self._latest!r:.500}"
                )
            self._tally.inputs += 1
            self._tally.known += 1

    async def _mutated(self, random: Random) -> str:
        """Send one mutated input; return "" if a known request behind it is answered, else how the connection ends."""
        data = mutated(self._grammar.mutable(random), random, self._grammar.tokens)
        self._latest = data
        self._tally.inputs += 1
        nonce = next(self._nonces)
        if isinstance(self._writer, Secured) and random.random() < STRANGE:
            self._writer.spoil(data)
        else:
            self._writer.write(data)
            self._writer.write(self._grammar.known(nonce))
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        reply = await self._reply(data)
                    if self._grammar.answers(reply, nonce):
                        self._tally.known += 1
                        return ""
        except TimeoutError:
            return "silent"
        except asyncio.IncompleteReadError:
            return "ended"

    async def _reply(self, data: bytes) -> object:
        while (reply := self._replies.take()) is None:
            more = await self._reader.read(65536)
            if not more:
                raise asyncio.IncompleteReadError(data[:200], None)
            self._replies.feed(more)
        return reply
