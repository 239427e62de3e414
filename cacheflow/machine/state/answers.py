"""Answers: the kept results of commands that may be asked for again, packed.

Packed, because bytes are one object to the garbage collector and tell their size. A small one belongs to its record. The
large ones, values that were read, have a budget of their own: over it the oldest goes, and its record stays. So a client that
takes out large values pushes out no record of another's, and what is sent again never takes place twice for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import msgpack

from cacheflow.machine.language.commands import Result

SMALL_BYTES_MAX: Final = 4096
# Bytes of all large answers: one batch of reads may answer with 64 MiB.
LARGE_BYTES_MAX: Final = 64 * 1024 * 1024

# Whose answer: (scope, number), or (0, an idempotency key).
Owner: TypeAlias = tuple[int, int | str]


def fingerprint(command: Any) -> bytes:
    """Return a 16-byte hash of ``command`` by which it is told from other commands.

    Raises whatever msgpack raises for what it cannot pack.
    """
    return blake2b(msgpack.packb(command), digest_size=16).digest()


class LargeAnswers:
    """The packed results, the large ones only, of commands that clients may send again; the oldest result comes first.

    Not safe for concurrent use.
    """

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: OrderedDict[Owner, bytes] = OrderedDict()
        self._bytes = 0

    def __iter__(self) -> Iterator[tuple[Owner, bytes]]:
        return iter(self._kept.items())

    @property
    def bytes_kept(self) -> int:
        """The number of bytes of all results in this store of large results."""
        return self._bytes

    def keep(self, owner: Owner, result: Result) -> bytes:
        """Return ``result`` packed if it is small; else keep it in this store of large results and return b"".

        A result that is too large even for the store is dropped.
        owner: says whose result it is: the scope and number of the command, or its idempotency key.
        """
        packed: bytes = msgpack.packb(result)
        if len(packed) <= SMALL_BYTES_MAX:
            return packed
        if len(packed) <= LARGE_BYTES_MAX:
            self.adopt(owner, packed)
            while self._bytes > LARGE_BYTES_MAX:
                self.drop(next(iter(self._kept)))
        return b""

    def adopt(self, owner: Owner, packed: bytes) -> None:
        """Add to this store of large results ``packed``, the result of a command that has none in the store yet.

        owner: the command's scope and number, or its idempotency key.
        """
        self._kept[owner] = packed
        self._bytes += len(packed)

    def find(self, owner: Owner, packed: bytes) -> bytes:
        """Return a command's packed result: ``packed``, or if that is empty the one in this store of large results.

        owner: the command's scope and number, or its idempotency key. Returns b"" if the store has dropped the result.
        """
        return packed or self._kept.get(owner, b"")

    def drop(self, owner: Owner) -> None:
        """Drop a command's result from this store of large results, if it is there.

        owner: the command's scope and number, or its idempotency key.
        """
        self._bytes -= len(self._kept.pop(owner, b""))
