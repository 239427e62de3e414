"""Restore: how far the cluster is with the restore that was begun last, part of the replicated state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cacheflow.machine.language.commands import INT64_MAX


@dataclass(slots=True)
class Restore:
    """The restore of a backup that was begun last in the cluster.

    id: the restore's unique name.  items: how many items the backup has.  done: how many of them have come so far.
    online: whether clients are served meanwhile.  ended: whether the restore is over.
    """

    id: str
    items: int
    online: bool
    done: int = 0
    ended: bool = False

    @property
    def closes(self) -> bool:
        """True if clients are not served because of this restore: it is under way and they would see a part of the items."""
        return not (self.ended or self.online)

    def row(self) -> list[Any]:
        """Return this restore of a backup as a snapshot holds it: [id, items, online, done, ended]."""
        return [self.id, self.items, self.online, self.done, self.ended]


def restore_of(row: Any) -> Restore | None:
    """Return the restore of a backup in ``row``, a snapshot's list of the restore's fields; None for None.

    Raises ValueError for anything else.
    """
    if row is None:
        return None
    if (
        type(row) is not list
        or [*map(type, row)] != [str, int, bool, int, bool]
        or not 0 <= row[3] <= row[1] <= INT64_MAX
    ):
        raise ValueError("a restore is not a list of its five fields")
    return Restore(*row)
