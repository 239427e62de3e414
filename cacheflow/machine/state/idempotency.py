"""Idempotency: a command with a client's own Idempotency-Key takes place once, whoever sends it and to whichever node.

Results are kept 10 minutes of machine time, packed, because packed bytes are one object to the garbage collector and
tell their size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import msgpack

from cacheflow.machine.language.commands import Result

# A client that sends a command again within 10 minutes gets the kept result.
KEEP_MS: Final = 600_000
KEPT_MAX: Final = 10_000
# Bytes of all kept results: a batch of reads may answer with megabytes, so the number of results alone is no limit.
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
CLIENT_KEY_CHARS_MAX: Final = 256

Kept = tuple[int, bytes, bytes]  # kept until (ms), fingerprint of the command, packed result


def fingerprint(command: Any) -> bytes:
    """Return 16 bytes that tell one command from another. Raises whatever msgpack raises for what it cannot pack."""
    return blake2b(msgpack.packb(command), digest_size=16).digest()


class IdempotencyTable:
    """The kept results by client key, the oldest first. Not safe for concurrent use."""

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[str, Kept]]:
        return iter(self._kept.items())

    def __reversed__(self) -> Iterator[tuple[str, Kept]]:
        return reversed(self._kept.items())

    def find(self, client_key: str) -> tuple[bytes, Result] | None:
        """Return (fingerprint, result) of the command that came with ``client_key``; None if none came or it was dropped."""
        kept = self._kept.get(client_key)
        return None if kept is None else (kept[1], msgpack.unpackb(kept[2]))

    def keep(self, client_key: str, command_print: bytes, result: Result, now_ms: int) -> None:
        """Keep ``result`` under a new ``client_key``, unless it is larger than the whole table may be."""
        packed = msgpack.packb(result)
        if len(packed) > KEPT_BYTES_MAX:
            return
        self.adopt(client_key, (now_ms + KEEP_MS, command_print, packed))
        while len(self._kept) > KEPT_MAX or self._bytes > KEPT_BYTES_MAX:
            self._drop_oldest()

    def adopt(self, client_key: str, kept: Kept) -> None:
        """Add a row that another table held."""
        self._kept[client_key] = kept
        self._bytes += len(kept[2])

    def drop_due(self, now_ms: int) -> None:
        """Drop the results whose time is over at ``now_ms``."""
        while self._kept and next(iter(self._kept.values()))[0] <= now_ms:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, kept = self._kept.popitem(last=False)
        self._bytes -= len(kept[2])
