"""Restoring: the steps of a restore, one command after the other, whoever replicates them.

1. One command is under way at a time and each is of bounded size, so the cluster's loops have time for others.
2. Every step may be sent again: the machine counts it once, by the restore's id and the number of items before it.
3. Who is told that the outcome of a step is unknown, or that it was not applied, sends it again; so a restore outlives leaders.
   If the node that sends the steps ends, the cluster keeps what has come, and a new restore begins from nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final

from cacheflow.errors import RestoreConflict
from cacheflow.files.backup import BackupMeta, Item
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result

# Bounds of one step, which a leader appends as one entry: 300 items take some 2 ms to apply, the sweep beside them up to 5 ms.
# RESTORED_AT_ONCE_MAX is what the machine takes.
ITEMS_A_STEP: Final = 300
BYTES_A_STEP: Final = 256 * 1024

Steps = Generator[Command, Result, int]


def steps(restore_id: str, after: str, meta: BackupMeta, items: Iterable[Item], online: bool) -> Steps:
    """Yield the commands that restore a checked backup; the caller sends back each command's result. Return the new revision.

    restore_id: a new unique name of the restore.  after: the name of the cluster's latest restore, "" if there was none.
    meta: the backup's description.  items: those of the backup.  online: whether clients are served meanwhile.
    Raises RestoreConflict when another restore has begun or somebody has given this one up, and what reading ``items`` raises.
    """
    result = yield commands.restore_begin(restore_id, after, meta.items, meta.revision, online)
    if result[0] != commands.OK:
        raise RestoreConflict(f"the restore was not begun, for another one has begun meanwhile: repeat it ({result})")
    revision: int = result[1]
    first = 0
    for block in _blocks(items):
        result = yield commands.restore_items(restore_id, first, block)
        first += len(block)
        # Sent twice it is refused the second time, and the number of items tells that the first one counted.
        if result not in ([commands.OK, first], [commands.PRECONDITION, first]):
            raise _conflict(first - len(block), meta, result)
    result = yield commands.restore_end(restore_id)
    if result[0] != commands.OK:
        raise _conflict(first, meta, result)
    return revision


def _conflict(done: int, meta: BackupMeta, result: Result) -> RestoreConflict:
    return RestoreConflict(
        f"the restore ended after {done} of {meta.items} items: another one has begun, or somebody has given this one up: "
        f"repeat it if its contents are still wanted ({result})"
    )


def _blocks(items: Iterable[Item]) -> Iterator[list[Any]]:
    block: list[Any] = []
    size = 0
    for item in items:
        added = len(item[0]) + len(item[1])
        if block and (len(block) >= ITEMS_A_STEP or size + added > BYTES_A_STEP):
            yield block
            block, size = [], 0
        block.append(item)
        size += added
    if block:
        yield block
