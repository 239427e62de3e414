"""Overlay: the cache's contents as commands that have not taken place yet would leave them, over what memory holds.

A transaction with steps and a script look through it: what they will write is decided by the machine's own rules
(``machine/deciding/decisions.py``), at one moment of the cluster's time. What was looked up in memory is noted, and the writes
take place only if it is still so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cacheflow.contract import DATA, EXPIRES_AT_MS, Entry
from cacheflow.contract import WireStore as Store
from cacheflow.machine.deciding.decisions import DECIDE, UNDECIDED, after, result_of
from cacheflow.machine.deciding.field_decisions import FIELD_DECISIONS, searched_bytes, work_of
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Command, Result
from cacheflow.wire.optimistic import Condition, unchanged


class Overlay:
    """The cache as the next command of a transaction or script sees it: a node's memory with earlier commands' effects.

    now_ms: the cluster's time at which commands are decided.  counts: True if looking a key up counts as a use of the key.
    seen: key -> the entry that memory had when the key was looked up first, None for an absent one.
    left: key -> the entry that the earlier commands will leave, None if they remove it; the key written last comes last.
    left_bytes: how many bytes the values in ``left`` have together.
    searched: the cost of deciding the earlier commands: how many bytes of hashes and sets had to be searched.
    """

    def __init__(self, store: Store, now_ms: int, *, counts: bool = False) -> None:
        self.now_ms = now_ms
        self.seen: dict[str, Entry | None] = {}
        self.left: dict[str, Entry | None] = {}
        self.left_bytes = 0
        self.searched = 0
        self._store = store
        self._counts = counts

    def find(self, key: str, *, count: bool = True) -> Entry | None:
        """Return the live entry that ``key`` has after the earlier commands of a transaction or script, None if it has none.

        Two look-ups of a key that no command has written return the same, whatever happens in the node's memory meanwhile.
        """
        if key in self.left:
            return self.left[key]
        if key in self.seen:
            return self.seen[key]
        entry = self.seen[key] = self._store.lookup(key, count=count and self._counts)
        return entry

    def conditions(self) -> list[Condition]:
        """Return the conditions that every key that was looked up in memory still has the entry that was found there."""
        return [unchanged(key, entry) for key, entry in self.seen.items()]

    def expect(self, commands: Sequence[Command]) -> list[Result]:
        """Work out what ``commands`` will do: note the entries that they leave, for later look-ups; return their results."""
        results = []
        for command in commands:
            key = command[1]
            # A SET without conditions does the same whatever was there: that need not stay as it is.
            entry = None if _is_blind(command) else self.find(key, count=False)
            if command[0] == c.SET or command[0] in FIELD_DECISIONS:
                self.searched += searched_bytes(entry, command)
            decision = DECIDE[command[0]](entry, list(command), self.now_ms, math.inf)
            if isinstance(decision, tuple):
                left = after(decision, entry)
                if left is not entry or key in self.left:
                    old = self.left.pop(key, None)
                    self.left[key] = left
                    self.left_bytes += (0 if left is None else len(left[DATA])) - (0 if old is None else len(old[DATA]))
            results.append(result_of(decision))
        return results

    def effects(self) -> list[Command]:
        """Return commands, one for each changed key, that do what all commands so far of a transaction or script would do.

        They do the same only if no key that was looked up in memory has changed meanwhile.
        """
        found = []
        for key, entry in self.left.items():
            known = key in self.seen
            before = self.seen.get(key)
            if entry is None:
                if before is not None or not known:
                    found.append(c.delete(key))
                continue
            data, kind, meta, version, expires_at_ms = entry
            ttl_ms = max(1, expires_at_ms - self.now_ms) if expires_at_ms else c.TTL_NONE
            if version == UNDECIDED:
                if before is not None and 0 < before[EXPIRES_AT_MS] == expires_at_ms:
                    ttl_ms = c.TTL_KEEP
                found.append(c.set_(key, data, kind, meta, ttl_ms))
            elif before is None or before[EXPIRES_AT_MS] != expires_at_ms:
                found.append(c.expire(key, ttl_ms))
        return found


def work_in(store: Store, commands: Sequence[Command]) -> int:
    """Return the extra cost of ``commands``: how many further plain commands would keep the state machine busy as long."""
    return sum(
        [
            work_of(store.peek(command[1]), command)
            for command in commands
            if command[0] == c.SET or command[0] in FIELD_DECISIONS
        ]
    )


def _is_blind(command: Command) -> bool:
    return bool(command[0] == c.SET and command[6] == c.ALWAYS and command[5] != c.TTL_KEEP)
