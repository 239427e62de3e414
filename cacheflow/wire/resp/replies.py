"""The encoding of RESP replies, in protocol versions 2 and 3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from cacheflow.errors import NoLeader, NotCommitted, NotReady, ReplicationError
from cacheflow.measuring import request_times
from cacheflow.wire.streams import WHOLE_BYTES_MAX, Reply, Stream

OK: Final = b"+OK\r\n"
QUEUED: Final = b"+QUEUED\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"
EMPTY: Final = b"$0\r\n\r\n"
# The null replies by protocol version.
NULL: Final = {2: b"$-1\r\n", 3: b"_\r\n"}
NULL_ARRAY: Final = {2: b"*-1\r\n", 3: b"_\r\n"}

# The codes of errors that are no fault of the request: see ``failure``.
_FAILURES: Final = frozenset((b"LOADING", b"CLUSTERDOWN", b"TRYAGAIN", b"OUTCOMEUNKNOWN"))
_LINE = bytes.maketrans(b"\r\n", b"  ")


class Status(str):
    """A text that is encoded as a simple string of RESP (``+OK``), not as a bulk string."""


class CommandError(Exception):
    """Raised for a Redis command that gets an error reply.

    message: the error's code and words.  reply: the same as an error reply of RESP.
    """

    def __init__(self, message: str | bytes) -> None:
        super().__init__(message)
        self.reply = error(message)


def error(message: str | bytes) -> bytes:
    """Return a RESP error reply with ``message`` on one line; line breaks that a client put into it become blanks."""
    line = message.encode("utf-8", "surrogateescape") if isinstance(message, str) else message
    return b"-%b\r\n" % line.translate(_LINE)


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def value_reply(data: bytes) -> Reply:
    """Return a stored value as a RESP bulk string; for a long value a Stream of pieces, which does not copy the value."""
    if len(data) <= WHOLE_BYTES_MAX:
        return bulk(data)
    return Stream(iter((b"$%d\r\n" % len(data), data, b"\r\n")), len(data))


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def array(items: list[bytes]) -> bytes:
    """Return the RESP array reply of ``items``, which are encoded as RESP already."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def map_head(protocol: int, count: int) -> bytes:
    """Return the RESP header of a map with ``count`` pairs, which is a flat array in RESP2.

    protocol: RESP's version, 2 or 3.
    """
    return b"%%%d\r\n" % count if protocol == 3 else b"*%d\r\n" % (2 * count)


def set_head(protocol: int, count: int) -> bytes:
    """Return the RESP header of a set with ``count`` members, which is an array in RESP2.

    protocol: RESP's version, 2 or 3.
    """
    return b"~%d\r\n" % count if protocol == 3 else b"*%d\r\n" % count


def replies_array(items: list[Reply], size: int) -> Reply:
    """Return the RESP array of ``items``, which are encoded replies; a Stream of pieces when they are long.

    size: the bytes of memory that the replies keep.
    """
    head = b"*%d\r\n" % len(items)
    if size <= WHOLE_BYTES_MAX and all(isinstance(item, bytes) for item in items):
        return head + b"".join(cast(list[bytes], items))

    def pieces() -> Iterator[bytes]:
        yield head
        for item in items:
            if isinstance(item, bytes):
                yield item
            else:
                yield from item.pieces

    return Stream(pieces(), size)


def bulks(items: Iterable[bytes]) -> bytes:
    """Return the RESP array reply of the byte strings ``items``, each encoded as a bulk string."""
    return array([b"$%d\r\n%b\r\n" % (len(item), item) for item in items])


def text(protocol: int, words: str) -> bytes:
    """Return ``words``, a text meant for people, as a RESP reply: a verbatim string in RESP3, a bulk string in RESP2.

    protocol: RESP's version, 2 or 3.
    """
    data = words.encode()
    return bulk(data) if protocol == 2 else b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data)


def encode(protocol: int, value: Any) -> bytes:
    """Return a Python value (None, int, str, bytes, list, set, dict) as a RESP reply. protocol: RESP's version, 2 or 3.

    In RESP2 sets and dicts become flat arrays.
    """
    if value is None:
        return NULL[protocol]
    if isinstance(value, Status):
        return b"+%b\r\n" % value.encode()
    if isinstance(value, str):
        return bulk(value.encode())
    if isinstance(value, bytes):
        return bulk(value)
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, dict):
        parts = [encode(protocol, part) for pair in value.items() for part in pair]
        return b"%%%d\r\n%b" % (len(value), b"".join(parts)) if protocol == 3 else array(parts)
    parts = [encode(protocol, part) for part in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, set) and protocol == 3:
        return b"~%d\r\n%b" % (len(parts), b"".join(parts))
    return array(parts)


def failure(failed: ReplicationError) -> bytes:
    """Return the RESP error reply to a request that was not committed, or whose outcome is not known.

    Clients by themselves repeat a request that was answered LOADING, TRYAGAIN or CLUSTERDOWN, which is right where nothing has
    happened. No client knows OUTCOMEUNKNOWN, so that none repeats what may have taken place.
    """
    codes = ((NotReady, "LOADING"), (NoLeader, "CLUSTERDOWN"), (NotCommitted, "TRYAGAIN not committed:"))
    code = next((code for kind, code in codes if isinstance(failed, kind)), "OUTCOMEUNKNOWN")
    return error(f"{code} {failed}")


def outcome_of(reply: bytes) -> str:
    """Return how a request has ended by ``reply``, the beginning of its answer: ok, refused, or error for the node's own."""
    if not reply.startswith(b"-"):
        return request_times.OK
    code = reply[1:].split(b" ", 1)[0]
    return request_times.ERROR if code in _FAILURES else request_times.REFUSED


def said_in_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a RESP reply that the iterator ``pieces`` makes; if making them fails, yield the error reply.

    pieces: may raise CommandError and ReplicationError as long as all pieces so far were empty.
    """
    try:
        yield from pieces
    except CommandError as wrong:
        yield wrong.reply
    except ReplicationError as failed:
        yield failure(failed)
