"""Departure: what the disk says of a node that goes out of its cluster by itself, as ``--leave`` has it.

1. It is written before the cluster is asked, so that a removal is known for the node's own wish whatever happens in between. It
   says nothing of whether the removal took place: that a file ``removed`` says.
2. Both together: the member on this disk is gone by its own wish. At the next start the directory is emptied and the node has a
   new incarnation, so no vote of the old one is left that could be repeated or forgotten.
3. It names the members that there were then. A node that comes back empty joins through these and founds no cluster, whatever its
   command says: a founder that left must not found again.
4. It is forgotten once the node is a member, so that a later removal by an operator is one that it keeps to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cacheflow.errors import ConfigError
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.documents import WRITING, read_document, write_document

FORMAT_VERSION: Final = 1
DEPARTURE: Final = "departure"
# The files of a member's memory: its journal and snapshots, and unfinished ones.
_MEMORY: Final = re.compile(r"(recovery|journal-\d+\.cfj|snapshot-\d+\.cfs)(\.new|\.part)?")


@dataclass(frozen=True, slots=True)
class Departure:
    """A node's wish to leave its cluster, as the node's data directory keeps it.

    incarnation: that of the member which is to leave.  members: the Raft addresses of the other members.
    """

    incarnation: str
    members: tuple[str, ...]


def read_departure(disk: Disk, directory: Path) -> Departure | None:
    """Return the departure, a node's wish to leave its cluster, that a data directory holds; None if it holds none.

    Raises ConfigError for a damaged file, NewerCacheFlow for one of a later format, OSError.
    """
    if DEPARTURE not in disk.list(directory):
        return None
    path = directory / DEPARTURE
    try:
        fields = read_document(disk, path, FORMAT_VERSION)
        incarnation, members = fields["incarnation"], fields["members"]
        if type(incarnation) is not str or type(members) is not list or any(type(each) is not str for each in members):
            raise ValueError("a field has the wrong type")
    except (ValueError, KeyError):
        raise ConfigError(
            f"{path} is unreadable; if this node was to leave its cluster, remove {directory} and start again with --seed, "
            f"else remove {path}"
        ) from None
    return Departure(incarnation, tuple(members))


def write_departure(disk: Disk, directory: Path, departure: Departure) -> None:
    """Write ``departure``, a node's wish to leave its cluster, into a data directory, durably. Raises OSError.

    An earlier departure in the directory is replaced.
    """
    fields = {
        "format_version": FORMAT_VERSION,
        "incarnation": departure.incarnation,
        "members": list(departure.members),
    }
    write_document(disk, directory / DEPARTURE, fields)


def forget_departure(disk: Disk, directory: Path) -> None:
    """Remove the departure, a node's wish to leave its cluster, from a data directory, durably.

    Raises OSError, and may be called again then.
    """
    if DEPARTURE in disk.list(directory):
        disk.remove(directory / DEPARTURE)
    disk.sync_directory(directory)


def remove_unfinished(disk: Disk, directory: Path) -> None:
    """Remove from a data directory the unfinished file of a departure, a node's wish to leave its cluster. Raises OSError."""
    name = DEPARTURE + WRITING
    if name in disk.list(directory):
        disk.remove(directory / name)


def has_left(disk: Disk, directory: Path, incarnation: str) -> bool:
    """Return whether a member that is gone from its cluster left by its own wish, as its data directory says.

    incarnation: that of the member. Raises ConfigError, OSError.
    """
    departure = read_departure(disk, directory)
    return departure is not None and departure.incarnation == incarnation


def empty(disk: Disk, directory: Path) -> None:
    """Remove journal and snapshots from the data directory of a member that is gone, durably. Raises OSError."""
    for name in disk.list(directory):
        if _MEMORY.fullmatch(name):
            disk.remove(directory / name)
    disk.sync_directory(directory)
