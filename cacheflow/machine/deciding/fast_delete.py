"""A faster way to run DELETEs of any version: DEL of thousands of keys is one entry, which keeps every node's loop.

It leaves exactly what ``decide`` and ``carry_out`` leave, as fast_set.py does, and leaves the same to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cacheflow.machine.effects import DELETED
from cacheflow.machine.language.commands import DELETE, MISSING, OK, Result
from cacheflow.machine.language.databases import OTHERS_BEFORE
from cacheflow.machine.state.contents import Contents
from cacheflow.machine.state.entries import DATA, ENTRY_BYTES, EXPIRES_AT_MS, KEY_BYTES_MAX, META

# The zero that versions are compared with by identity, which False and 0.0 do not pass.
_ZERO: Final = 0


def delete_plainly(contents: Contents, commands: Iterable[Any], results: list[Result]) -> None:
    """Run the DELETE commands without a version at the beginning of ``commands``; append their results to ``results``, a list.

    The first other command ends the run, and so does a key whose item has a TTL or a Content-Type.
    """
    if contents.behind:
        return
    find = contents.raw.get
    remove = contents.items.__delitem__
    tell = contents.effects.append
    answer = results.append
    revision, bytes_used = contents.revision, contents.bytes_used
    deleted = 0
    for command in commands:
        if type(command) is not list or len(command) != 3:
            break
        op, key, version = command
        if op is not DELETE or version is not _ZERO or type(key) is not str or not key.isascii():
            break
        if key < OTHERS_BEFORE or len(key) > KEY_BYTES_MAX:
            break
        entry = find(key)
        if entry is None:
            answer([MISSING])
            continue
        if entry[EXPIRES_AT_MS] or type(entry[META]) is str:
            break
        remove(key)
        bytes_used -= ENTRY_BYTES + len(entry[DATA]) + len(key)
        deleted += 1
        revision = contents.revision = revision + 1
        tell((DELETED, key, revision, 0))
        answer([OK, revision])
    contents.bytes_used = bytes_used
    contents.deleted += deleted
