"""memcached's text protocol for the fuzzer."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from fuzz.grammar import Malformed, key, value

LINE = re.compile(
    rb"(STORED|NOT_STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|OK|ERROR|END|VERSION .*|CLIENT_ERROR .*|SERVER_ERROR .*|RESET"
    rb"|(HD|NS|EX|NF|EN)( .*)?|MN|ME .*|[0-9]+|ERROR .*)"
)
ONE_LINE = (
    "mn",
    "version",
    "verbosity 1",
    "touch {k} {n}",
    "delete {k}",
    "incr {k} {n}",
    "decr {k} 1",
    "md {k}",
    "ma {k} N30 J1",
)
MORE = (
    "get {k} {k}",
    "gets {k}",
    "gat 60 {k}",
    "gats 60 {k} {k}",
    "mg {k} v f t s c k O7",
    "mg {k}",
    "me {k}",
    "stats",
    "nosuch {k}",
)
STORE = ("set", "add", "replace", "append", "prepend")


class Memcached:
    """Text and meta commands."""

    tokens: tuple[bytes, ...] = (
        *(
            b"\r\n",
            b" ",
            b"\n",
            b"\r",
            b"get ",
            b"mg ",
            b" noreply",
            b"set a 0 0 1\r\nx\r\n",
            b"ms a 1\r\nx\r\n",
            b" b",
            b" q",
            b"\0",
        ),
        *(
            b"END\r\n",
            b"quit\r\n",
            b" S5",
            b" T-1",
            b" I",
            b" E9",
            b" O" + b"x" * 40,
            b"\x80\x00\x00\x04",
            b"mn\r\n",
            b" MA",
            b"gat ",
        ),
        *(b"k" * 251, b" k" * 30, b"\xff\xfe", b"cas ", b"flush_all 10\r\n"),
    )

    def valid(self, random: Random) -> tuple[bytes, int]:
        """Return one command and the number of its replies: none with noreply."""
        kind = random.randrange(10)
        if kind < 3:
            noreply = random.random() < 0.1
            data = value(random)
            head = b"%b %b %d %d %d" % (
                random.choice(STORE).encode(),
                key(random),
                random.randrange(9),
                random.choice((0, 60)),
                len(data),
            )
            return head + (b" noreply" if noreply else b"") + b"\r\n" + data + b"\r\n", 0 if noreply else 1
        if kind == 3:
            data = value(random)
            flags = random.choice((b"", b" T60", b" F5", b" MA", b" ME", b" O12 k", b" c"))
            return b"ms %b %d%b\r\n%b\r\n" % (key(random), len(data), flags, data), 1
        if kind == 4 and random.random() < 0.03:
            return b"flush_all\r\n", 1
        shape = random.choice(ONE_LINE if kind < 7 else MORE)
        line = shape.replace("{n}", str(random.choice((0, 1, 60, 2**63))))
        while "{k}" in line:
            line = line.replace("{k}", key(random).decode(), 1)
        return line.encode() + b"\r\n", 1

    def mutable(self, random: Random) -> bytes:
        """Return a valid input to be mutated."""
        return self.valid(random)[0]

    def known(self, nonce: int) -> bytes:
        """Return a write of ``nonce`` that is answered with it."""
        return b"ms known 2 O%d\r\nok\r\n" % nonce

    def answers(self, reply: Any, nonce: int) -> bool:
        """True if the reply names ``nonce``."""
        return bool(reply == b"HD O%d" % nonce)

    def replies(self) -> MemcachedReplies:
        """Return a reader of memcached's replies."""
        return MemcachedReplies()


class MemcachedReplies:
    """A reader of memcached's replies: lines, blocks of data, and lists that END."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Add bytes that came from the node."""
        self._data += data

    def sent(self, data: bytes) -> None:
        """Do nothing: a reply's end is in the reply."""

    def take(self) -> Any:
        """Return the next reply's first line, None while it is not complete. Raises Malformed."""
        at = 0
        while True:
            end = self._data.find(b"\r\n", at)
            if end < 0:
                return None
            line = self._data[at:end]
            word = line.partition(b" ")[0]
            at = end + 2
            if word in (b"VALUE", b"VA"):
                found = re.fullmatch(rb"VALUE \S+ \d+ (\d+)( \d+)?" if word == b"VALUE" else rb"VA (\d+)( .*)?", line)
                if found is None:
                    raise Malformed(repr(line[:200]))
                at += int(found[1]) + 2
                if len(self._data) < at:
                    return None
                if self._data[at - 2 : at] != b"\r\n":
                    raise Malformed(f"a block without its end: {line[:200]!r}")
                if word == b"VALUE":
                    continue
            elif word == b"STAT":
                continue
            elif not LINE.fullmatch(line):
                raise Malformed(repr(line[:200]))
            self._data = self._data[at:]
            return line
