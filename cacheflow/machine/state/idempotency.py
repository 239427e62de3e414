"""Idempotency: a command with a client's own Idempotency-Key takes place once, whoever sends it and to whichever node.

It is kept for 10 minutes of machine time, within a budget of bytes. ``reaches_index`` tells how far back: what took place in a
later entry is here. So a command whose client tried it first when that entry was in the log is never let take place twice,
only called forgotten. A place in the log tells that and no time could: the machine's jumps forward when a leader that knows
the time better follows one that guessed it, and what is young by a clock may then be older than a key that was dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.answers import LargeAnswers

# A client that sends a command again within 10 minutes gets the kept result.
KEEP_MS: Final = 600_000
# Bytes of all records: at the least size a hundred and fifty thousand keys.
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
# What a record takes beside its key and its answer, in CPython.
RECORD_BYTES: Final = 400
CLIENT_KEY_CHARS_MAX: Final = 256
# Records that one entry drops because their time is over: a microsecond each, and more than an entry brings.
DROPPED_PER_ENTRY_MAX: Final = 1000

# When it took place (ms), the index of the entry, fingerprint of the command, packed result or b"".
Kept = tuple[int, int, bytes, bytes]


class IdempotencyTable:
    """The kept results of commands that clients sent with an Idempotency-Key, {that key: result}, the oldest result first.

    Not safe for concurrent use.
    """

    __slots__ = ("_answers", "_bytes", "kept", "reaches_index", "reaches_ms")

    def __init__(self, answers: LargeAnswers) -> None:
        self._answers = answers
        self.kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0
        # The entry in which the latest key that was dropped took place, and the time: what took place in later ones is here.
        self.reaches_index = 0
        self.reaches_ms = 0

    @property
    def bytes_kept(self) -> int:
        """The bytes that all kept results take in memory with their idempotency keys, by a fixed formula."""
        return self._bytes

    def keep(self, client_key: str, command_print: bytes, result: Result, now_ms: int, index: int) -> None:
        """Keep ``result`` under a new idempotency key, ``client_key``; drop the oldest results if all take too many bytes.

        command_print: a hash of the command.  index: that of the log entry which the command is in.
        """
        packed = self._answers.keep((0, client_key), result)
        self.adopt(client_key, (now_ms, index, command_print, packed))
        while self._bytes > KEPT_BYTES_MAX:
            self._drop_oldest()

    def adopt(self, client_key: str, kept: Kept) -> None:
        """Add a row of a snapshot's table of idempotency keys to this table, without checking the limits.

        client_key: the idempotency key.  kept: (the command's time in ms, its entry's index, its hash, packed result).
        """
        self.kept[client_key] = kept
        self._bytes += _size(client_key, kept)

    def drop_due(self, now_ms: int) -> None:
        """Drop results, kept by idempotency key, that are older than 10 minutes at ``now_ms``: at most 1,000 a call."""
        for _ in range(DROPPED_PER_ENTRY_MAX):
            if not self.kept or next(iter(self.kept.values()))[0] + KEEP_MS > now_ms:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        client_key, kept = self.kept.popitem(last=False)
        self._bytes -= _size(client_key, kept)
        self.reaches_ms, self.reaches_index = kept[:2]
        if not kept[3]:
            self._answers.drop((0, client_key))


def _size(client_key: str, kept: Kept) -> int:
    return RECORD_BYTES + (len(client_key) if client_key.isascii() else 4 * len(client_key)) + len(kept[3])
