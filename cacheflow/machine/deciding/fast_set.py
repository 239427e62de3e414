"""A faster way to run the commonest command: SET without a condition and without a TTL.

It leaves exactly what ``decide`` and ``carry_out`` leave: the same state, results and effects (a test compares). It
only saves the calls and tuples between the two, which are two thirds of the work. It looks for no dead items, and at the keys of
database 0 only: while anything in memory is dead, or above a lowered limit, and for other databases, commands go the general
way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cacheflow.machine.effects import EVICTED, WRITTEN
from cacheflow.machine.language.commands import OK, SET, Result
from cacheflow.machine.language.databases import OTHERS_BEFORE
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import (
    DATA,
    ENTRY_BYTES,
    EXPIRES_AT_MS,
    KEY_BYTES_MAX,
    KIND_VALUE_MAX,
    META,
    VERSION,
)

# The zero that fields are compared with by identity, which True and 0.0 do not pass: a command with anything else goes
# the general way, which checks types.
_ZERO: Final = 0


def set_plainly(contents: Contents, commands: Iterable[Any], results: list[Result]) -> None:
    """Run the SET commands without condition and TTL at the beginning of ``commands``; append their results to ``results``.

    The first command of another kind, or with a condition or TTL, ends the run.
    """
    if contents.behind:
        return
    raw = contents.raw
    find, drop = raw.get, raw.pop
    items = contents.items
    place, move, pop_first = items.place, items.move, items.pop_first
    tell = contents.effects.append
    answer = results.append
    items_max, bytes_max = contents.items_max, contents.bytes_max
    revision, bytes_used = contents.revision, contents.bytes_used
    before = len(results)
    evicted = 0
    for command in commands:
        try:
            op, key, data, kind, meta, ttl_ms, when, version = command
        except (TypeError, ValueError):
            break
        # Nothing but a list of eight passes: the eight keys of a map are not three times the zero, and a text has no number.
        if op is not SET or ttl_ms is not _ZERO or when is not _ZERO or version is not _ZERO:
            break
        if type(key) is not str or type(data) is not bytes or not key.isascii():
            break
        if kind is not _ZERO and (type(kind) is not int or not 0 < kind <= KIND_VALUE_MAX):
            break
        if (meta is not None and type(meta) is not int) or key < OTHERS_BEFORE or len(key) > KEY_BYTES_MAX:
            break
        size = ENTRY_BYTES + len(data) + len(key)
        if size > bytes_max:
            break
        old = find(key)
        if old is None:
            while len(raw) >= items_max or bytes_used + size > bytes_max:
                gone = pop_first(key)
                if gone is None:
                    break
                lost = drop(gone)
                if lost[EXPIRES_AT_MS] or gone < OTHERS_BEFORE or type(lost[META]) is str or not gone.isascii():
                    contents.bytes_used, contents.revision = bytes_used, revision
                    contents.evict(gone, lost)
                    bytes_used, revision = contents.bytes_used, contents.revision
                    continue
                bytes_used -= ENTRY_BYTES + len(lost[DATA]) + len(gone)
                evicted += 1
                revision += 1
                tell((EVICTED, gone, revision, 0))
            bytes_used += size
            # The revision rises before the entry is there: no reader may see a version that is above the machine's.
            revision = contents.revision = revision + 1
            raw[key] = (data, kind, meta, revision, 0)
            place(key, revision)
        else:
            if old[EXPIRES_AT_MS] or type(old[META]) is str:
                break
            growth = len(data) - len(old[DATA])
            if bytes_used + growth > bytes_max:
                break
            bytes_used += growth
            revision = contents.revision = revision + 1
            raw[key] = (data, kind, meta, revision, 0)
            move(key, old[VERSION], revision)
        tell((WRITTEN, key, revision, 0, data, kind, meta))
        answer([OK, revision, old is None, 0])
    contents.bytes_used = bytes_used
    contents.evicted += evicted
    contents.written += len(results) - before


def new_keys(contents: Contents, commands: Iterable[Any]) -> list[bool] | None:
    """Return for each of ``commands`` whether it writes a new key; None unless all are plain SET commands that cannot fail.

    Such a SET has no condition and no TTL, and its item would fit into an empty cache. A key that an earlier one of the
    commands writes is not new. Returns None, too, while some items may be past their expiry or removed by prefix and still in
    memory, or while the cache holds more than a lowered limit allows.
    """
    if contents.behind:
        return None
    find = contents.raw.get
    bytes_max = contents.bytes_max
    seen: set[str] = set()
    see = seen.add
    new: list[bool] = []
    tell = new.append
    for command in commands:
        if type(command) is not list or len(command) != 8:
            return None
        op, key, data, kind, meta, ttl_ms, when, version = command
        if op is not SET or ttl_ms is not _ZERO or when is not _ZERO or version is not _ZERO:
            return None
        if type(key) is not str or type(data) is not bytes or type(kind) is not int or not 0 <= kind <= KIND_VALUE_MAX:
            return None
        if (meta is not None and type(meta) is not int) or not key.isascii():
            return None
        if key < OTHERS_BEFORE or len(key) > KEY_BYTES_MAX or ENTRY_BYTES + len(data) + len(key) > bytes_max:
            return None
        tell(find(key) is None and key not in seen)
        see(key)
    return new
