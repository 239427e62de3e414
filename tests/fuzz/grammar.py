"""What the fuzzer knows of a protocol: valid inputs, tokens for mutations, a known request, and how replies are read."""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

KEYS = 40


class Malformed(Exception):
    """Raised for bytes of a node that are no reply of its protocol, or a reply that says that the node has failed."""


class Replies(Protocol):
    """A reader of one connection's replies."""

    def feed(self, data: bytes) -> None:
        """Add bytes that came from the node."""

    def sent(self, data: bytes) -> None:
        """Note a valid request that was sent, for protocols in which a reply's end depends on its request."""

    def take(self) -> Any:
        """Return the next complete reply, None while there is none. Raises Malformed."""


class Grammar(Protocol):
    """A protocol over which a client sends requests and reads replies in their order."""

    tokens: tuple[bytes, ...]

    def valid(self, random: Random) -> tuple[bytes, int]:
        """Return (a valid input, the number of its replies)."""

    def mutable(self, random: Random) -> bytes:
        """Return a valid input to be mutated."""

    def known(self, nonce: int) -> bytes:
        """Return a request whose reply names ``nonce``."""

    def answers(self, reply: Any, nonce: int) -> bool:
        """True if ``reply`` is that of ``known(nonce)``."""

    def replies(self) -> Replies:
        """Return a reader of a new connection's replies."""


def key(random: Random) -> bytes:
    """Return one of a few keys, so that commands meet what others have left."""
    return b"key-%d" % random.randrange(KEYS)


def value(random: Random) -> bytes:
    """Return a value: a number, a text, bytes, or a longer text."""
    kind = random.randrange(8)
    if kind < 3:
        return b"%d" % random.choice((0, 1, -1, 7, 2**63 - 1, -(2**63), random.randrange(10**6)))
    if kind < 5:
        return b"v" * random.choice((0, 1, 10, 100))
    if kind == 5:
        return random.randbytes(random.choice((1, 20, 200)))
    return b"w" * (2000 if kind == 7 else 20)
