"""Redis' protocol for the fuzzer."""

from __future__ import annotations

from random import Random
from typing import Any

import hiredis
from fuzz.grammar import Malformed, key, value

# Commands by shape: k a key, v a value, n a number, s seconds; words stand for themselves.
COMMANDS = """
GET k|SET k v|SET k v EX s|SET k v NX|SET k v XX GET|SET k v KEEPTTL|GETSET k v|GETDEL k|GETEX k PERSIST|GETEX k EX s|SETEX k s v
PSETEX k s v|SETNX k v|MGET k k k|MSET k v k v|MSETNX k v k v|APPEND k v|STRLEN k|GETRANGE k n n|SUBSTR k n n|SETRANGE k s v
INCR k|DECR k|INCRBY k n|DECRBY k n|INCRBYFLOAT k n|DEL k k|UNLINK k|EXISTS k k|TOUCH k|TYPE k|RENAME k k|RENAMENX k k|COPY k k
COPY k k REPLACE|SCAN 0|SCAN 0 MATCH key-1* COUNT s|RANDOMKEY|DBSIZE|EXPIRE k s|EXPIRE k s NX|PEXPIRE k n GT|EXPIREAT k n|TTL k
PTTL k|EXPIRETIME k|PERSIST k|PING|PING v|ECHO v|SELECT 0|READONLY|READWRITE|CLIENT GETNAME|CLIENT ID|CLIENT INFO|CLIENT LIST
CLIENT SETNAME k|CONFIG GET max*|TIME|COMMAND COUNT|COMMAND INFO get|OBJECT ENCODING k|KEYS key-1*|WATCH k|UNWATCH|INFO server
HSET k v v|HSET k v v v v|HSETNX k v v|HMSET k v v|HGET k v|HMGET k v v|HGETALL k|HDEL k v v|HEXISTS k v|HLEN k|HKEYS k|HVALS k
HINCRBY k v n|HINCRBYFLOAT k v n|HSTRLEN k v|HSCAN k 0|HSCAN k 0 MATCH v COUNT s|HRANDFIELD k|HRANDFIELD k n WITHVALUES
SADD k v v|SREM k v v|SMEMBERS k|SISMEMBER k v|SMISMEMBER k v v|SCARD k|SSCAN k 0|SRANDMEMBER k n|SUNION k k|SINTER k k|SDIFF k k
SINTERCARD n k k|SINTERCARD 2 k k LIMIT s|SPOP k|SPOP k s|SMOVE k k v|SUNIONSTORE k k k|SINTERSTORE k k k|SDIFFSTORE k k k
SCAN 0 TYPE hash|WAIT 0 s|LPUSH k v|NOSUCH k|GET|SET k|HELLO 2|HELLO 3|FLUSHDB
"""
SHAPES = [shape.split() for line in COMMANDS.strip().splitlines() for shape in line.split("|")]
# Few, because they empty what the others have written.
SELDOM = {"FLUSHDB"}


def pack(parts: list[bytes]) -> bytes:
    """Return a request as clients send it."""
    return b"*%d\r\n%b" % (len(parts), b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))


class Resp:
    """RESP requests; a transaction is one input."""

    tokens: tuple[bytes, ...] = (
        *(
            b"\r\n",
            b"*",
            b"$",
            b"*1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"*2\r\n$3\r\nGET\r\n",
            b"PING\r\n",
        ),
        *(
            b"+OK\r\n",
            b":1\r\n",
            b"%1\r\n",
            b">2\r\n",
            b"*1\r\n*1\r\n",
            b"set \"a\" 'b'\r\n",
            b"*1000000\r\n",
            b"$536870912\r\n",
        ),
        *(
            b"*1\r\n$5\r\nMULTI\r\n",
            b"*1\r\n$4\r\nEXEC\r\n",
            b"*1\r\n$4\r\nQUIT\r\n",
            b"\0",
            b"\n",
            b"\r",
            b"POST / HTTP/1.1\r\n",
        ),
    )

    def valid(self, random: Random) -> tuple[bytes, int]:
        """Return one request, sometimes an inline one, or a transaction with the number of its replies."""
        if random.random() < 0.06:
            inner = [self._request(random) for _ in range(random.randrange(4))]
            end = random.choice((b"EXEC", b"EXEC", b"DISCARD"))
            return b"".join([pack([b"MULTI"]), *inner, pack([end])]), len(inner) + 2
        if random.random() < 0.05:
            return b"get %b\r\n" % key(random), 1
        return self._request(random), 1

    def mutable(self, random: Random) -> bytes:
        """Return a valid input to be mutated."""
        return self.valid(random)[0]

    def _request(self, random: Random) -> bytes:
        shape = random.choice(SHAPES)
        if shape[0] in SELDOM and random.random() < 0.9:
            shape = ["PING"]
        return pack([self._part(part, random) for part in shape])

    def _part(self, part: str, random: Random) -> bytes:
        if part == "k":
            return key(random)
        if part == "v":
            return value(random)
        if part == "n":
            return b"%d" % random.choice((0, 1, -1, 3, 100, -100, 2**31, 2**63 - 1))
        return b"%d" % random.randrange(1, 100) if part == "s" else part.encode()

    def known(self, nonce: int) -> bytes:
        """Return an ECHO of ``nonce``."""
        return pack([b"ECHO", b"nonce-%d" % nonce])

    def answers(self, reply: Any, nonce: int) -> bool:
        """True if the node has echoed ``nonce``."""
        return bool(reply == b"nonce-%d" % nonce)

    def replies(self) -> RespReplies:
        """Return a reader of RESP replies."""
        return RespReplies()


class RespReplies:
    """A reader of RESP replies (hiredis, which is strict)."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._latest = b""

    def feed(self, data: bytes) -> None:
        """Add bytes that came from the node."""
        self._reader.feed(data)
        self._latest = data

    def sent(self, data: bytes) -> None:
        """Do nothing: a reply's end is in the reply."""

    def take(self) -> Any:
        """Return the next reply, () for a null. Raises Malformed."""
        try:
            reply = self._reader.gets()
        except hiredis.HiredisError as error:
            raise Malformed(f"{error}: {self._latest!r:.600}") from None
        return None if reply is False else () if reply is None else reply
