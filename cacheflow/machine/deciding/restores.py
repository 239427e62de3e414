"""Restores: the commands that replace all contents by a backup's, in entries of bounded size.

1. RESTORE_BEGIN condemns everything and raises the revision, so that no version of before meets another value: neither one of
   this cluster nor one of the cluster that the backup is of. It names the restore that it comes after, whose place it takes, so
   one that comes late, when a later restore has begun or is done, changes nothing.
2. RESTORE_ITEMS names its restore and the number of items before its own, so it counts once however often it is sent, and
   nothing comes after a later restore has begun.
3. A key that is there is left as it is: somebody has written it since the restore began.
4. RESTORE_END is refused until all items have come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cacheflow.machine.deciding.plans import Malformed
from cacheflow.machine.effects import RESTORE_BEGUN, RESTORE_ENDED
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import Result
from cacheflow.machine.language.restored import problem_of
from cacheflow.machine.state.entries import entry_bytes
from cacheflow.machine.state.restore import Restore
from cacheflow.machine.state.settings import is_name, is_whole

if TYPE_CHECKING:
    from cacheflow.machine.image import State

# Items of one command: with a value of some hundred bytes each they take some 5 ms to apply.
RESTORED_AT_ONCE_MAX: Final = 500
# What a restore adds to the revision: more than is ever written between a backup and the loss of what came after it.
REVISION_GAP: Final = 2**40
# The highest revision that a restore may lead to: the numbers of the log end at 2^63, and four million restores come first.
REVISION_MAX: Final = 2**62


def begin_restore(machine: State, command: list[Any]) -> Result:
    """Carry out a RESTORE_BEGIN command, which removes all items and begins to restore a backup; return its result.

    The command holds the restore's name. Does nothing if the restore begun last has that name, for then the command was
    carried out before.
    """
    _, restore_id, after, items, revision, online = command
    if (
        not is_name(restore_id)
        or type(after) is not str
        or not is_whole(items, 0)
        or not is_whole(revision, 0)
        or type(online) is not bool
    ):
        raise Malformed("a restore has a short name, one before it, a number of items, a revision and a flag")
    contents = machine.contents
    if machine.restoring is not None and machine.restoring.id == restore_id:
        return [c.OK, contents.revision]
    if after != ("" if machine.restoring is None else machine.restoring.id):
        return [c.PRECONDITION, -1]
    least = max(contents.revision, revision) + REVISION_GAP
    if least > REVISION_MAX:
        raise Malformed("the revision has no room for another restore")
    contents.raise_revision(least)
    contents.condemn("", False, False)
    machine.restoring = Restore(restore_id, items, online)
    machine.is_closed = machine.restoring.closes
    contents.breaks += 1
    contents.effects.append((RESTORE_BEGUN, restore_id, items, online))
    return [c.OK, contents.revision]


def restore_items(machine: State, command: list[Any]) -> Result:
    """Carry out a RESTORE_ITEMS command, which brings some of a backup's items, and return its result.

    Writes each of these items whose key is absent, that fits into the cache and is not past its expiry.
    """
    _, restore_id, first, items = command
    if type(first) is not int or type(items) is not list or not 0 < len(items) <= RESTORED_AT_ONCE_MAX:
        raise Malformed(f"a restore brings 1 to {RESTORED_AT_ONCE_MAX} items at once")
    restore = machine.restoring
    if restore is None or restore.id != restore_id or restore.ended:
        return [c.PRECONDITION, -1]
    if restore.done != first:
        return [c.PRECONDITION, restore.done]
    if first + len(items) > restore.items:
        raise Malformed("a restore brings more items than it has told")
    for item in items:
        if problem := problem_of(item):
            raise Malformed(problem)
    contents = machine.contents
    now_ms, bytes_max = contents.now_ms, contents.bytes_max
    for key, data, kind, meta, expires_at_ms in items:
        if not 0 < expires_at_ms <= now_ms and contents.find(key) is None and entry_bytes(key, data, meta) <= bytes_max:
            contents.write(key, data, kind, meta, expires_at_ms)
    restore.done += len(items)
    if machine.is_closed:
        # Nobody may read a cache that is restored in part, so those who follow its changes are told nothing of that part.
        contents.breaks += 1
    return [c.OK, restore.done]


def end_restore(machine: State, command: list[Any]) -> Result:
    """Carry out a RESTORE_END command, which ends the restore of a backup, and return its result.

    Refused while items are missing, unless the command gives the restore up: then the cache keeps the items that have come.
    """
    _, restore_id, given_up = command
    if type(given_up) is not bool:
        raise Malformed("given_up is not a bool")
    restore = machine.restoring
    if restore is None or restore.id != restore_id:
        return [c.PRECONDITION, -1]
    if restore.ended:
        return [c.OK]
    if restore.done != restore.items and not given_up:
        return [c.PRECONDITION, restore.done]
    restore.ended = True
    machine.is_closed = False
    machine.contents.effects.append((RESTORE_ENDED, restore_id, restore.done))
    return [c.OK]
