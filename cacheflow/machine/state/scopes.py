"""Scopes: the writes of one client, numbered by it, each of which takes place once.

1. A scope's id is a counter of the machine's, so that a number of a closed scope can be told from one of a new scope: an id
   that is not here is of a closed one. What comes in a closed scope is never done.
2. The client tells the lowest number that it still waits for; the scope's *floor* follows it. The results from the floor on
   are kept. What comes below the floor is never done, whatever became of it before.
3. All is bounded in bytes: a scope that keeps too much drops its lowest results, which raises its floor; when all keep too
   much, the scope that was used longest ago is closed.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from typing import Final

from cacheflow.machine.language.commands import Result
from cacheflow.machine.state.answers import LargeAnswers

# A scope that was not used for 10 minutes of machine time is closed.
KEEP_MS: Final = 600_000
# Bytes of all scopes and their records; and of the records of one, so that a client that waits for one answer for ever, and
# goes on, pushes out no other's.
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
SCOPE_KEPT_BYTES_MAX: Final = 4 * 1024 * 1024
# What a scope takes, and a record beside its answer, in CPython.
SCOPE_BYTES: Final = 800
RECORD_BYTES: Final = 300
# Scopes that one entry closes because their time is over: some microseconds each.
CLOSED_PER_ENTRY_MAX: Final = 1000

Kept = tuple[bytes, bytes]  # fingerprint of the command, packed result or b""


class Scope:
    """One client's scope: its numbered writes with their kept results.

    nonce: a text that names the scope beside its id.  floor: the lowest number that may still take place.
    """

    __slots__ = ("floor", "kept", "kept_bytes", "nonce", "numbers", "used_ms")

    def __init__(self, nonce: str, used_ms: int, floor: int = 1) -> None:
        self.nonce = nonce
        self.used_ms = used_ms
        self.floor = floor
        # The results by number, none below the floor; and their numbers as a heap.
        self.kept: dict[int, Kept] = {}
        self.numbers: list[int] = []
        self.kept_bytes = 0


class Scopes:
    """All open scopes of clients; the one that was used longest ago comes first. Not safe for concurrent use."""

    __slots__ = ("_answers", "_bytes", "by_id", "latest_id")

    def __init__(self, answers: LargeAnswers) -> None:
        self._answers = answers
        self.by_id: OrderedDict[int, Scope] = OrderedDict()
        self._bytes = 0
        self.latest_id = 0

    @property
    def bytes_kept(self) -> int:
        """The bytes that all open scopes take in memory with their kept results, by a fixed formula."""
        return self._bytes

    def open(self, nonce: str, now_ms: int) -> int:
        """Open a scope for a client's numbered writes and return its id. nonce: names the scope beside its id."""
        self.latest_id += 1
        self.adopt(self.latest_id, Scope(nonce, now_ms))
        self._make_room()
        return self.latest_id

    def adopt(self, scope_id: int, scope: Scope) -> None:
        """Add a client's new ``scope`` under the id ``scope_id`` to the open scopes, without checking the limits."""
        self.by_id[scope_id] = scope
        self._bytes += SCOPE_BYTES

    def use(self, scope_id: int, nonce: str, now_ms: int) -> Scope | None:
        """Return the open scope with the id ``scope_id`` and the name ``nonce``; None if no such scope is open.

        Notes that the scope is used at ``now_ms``.
        """
        scope = self.by_id.get(scope_id)
        if scope is None or scope.nonce != nonce:
            return None
        scope.used_ms = now_ms
        self.by_id.move_to_end(scope_id)
        return scope

    def raise_floor(self, scope_id: int, scope: Scope, lowest: int) -> None:
        """Drop the kept results of a scope's writes with numbers below ``lowest``: the client does not ask for them again."""
        if lowest > scope.floor:
            scope.floor = lowest
            while scope.numbers and scope.numbers[0] < lowest:
                self._drop_lowest(scope_id, scope)

    def keep(self, scope_id: int, scope: Scope, number: int, command_print: bytes, result: Result) -> None:
        """Keep ``result``, the result of the write ``number`` of a client's scope, with a hash of the write's command.

        The write must be a new one. Drops results of low numbers, or old scopes, where a limit needs that.
        """
        packed = self._answers.keep((scope_id, number), result)
        self.adopt_result(scope, number, (command_print, packed))
        while scope.kept_bytes > SCOPE_KEPT_BYTES_MAX:
            scope.floor = self._drop_lowest(scope_id, scope) + 1
        self._make_room()

    def adopt_result(self, scope: Scope, number: int, kept: Kept) -> None:
        """Add ``kept``, (hash of the command, packed result) of the write ``number``, to an open ``scope``.

        Does not check the limits.
        """
        scope.kept[number] = kept
        heappush(scope.numbers, number)
        scope.kept_bytes += RECORD_BYTES + len(kept[1])
        self._bytes += RECORD_BYTES + len(kept[1])

    def drop_due(self, now_ms: int) -> None:
        """Close the clients' scopes that at ``now_ms`` have not been used for 10 minutes, at most a thousand in one call."""
        for _ in range(CLOSED_PER_ENTRY_MAX):
            if not self.by_id or next(iter(self.by_id.values())).used_ms + KEEP_MS > now_ms:
                return
            self._close_oldest()

    def _make_room(self) -> None:
        while self._bytes > KEPT_BYTES_MAX:
            self._close_oldest()

    def _close_oldest(self) -> None:
        scope_id, scope = self.by_id.popitem(last=False)
        self._bytes -= SCOPE_BYTES + scope.kept_bytes
        for number, (_, packed) in scope.kept.items():
            if not packed:
                self._answers.drop((scope_id, number))

    def _drop_lowest(self, scope_id: int, scope: Scope) -> int:
        number = heappop(scope.numbers)
        _, packed = scope.kept.pop(number)
        scope.kept_bytes -= RECORD_BYTES + len(packed)
        self._bytes -= RECORD_BYTES + len(packed)
        if not packed:
            self._answers.drop((scope_id, number))
        return number
