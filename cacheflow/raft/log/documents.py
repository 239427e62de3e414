"""Documents: small files of JSON in a data directory, each of which is there as a whole or not at all.

A check over all members shows damage. ``format_version`` comes first: a later build's document is told from a damaged one.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cacheflow.errors import NewerCacheFlow
from cacheflow.raft.log.disk import Disk

# The suffix of a file that is not complete yet.
WRITING = ".new"


def write_document(disk: Disk, path: Path, fields: dict[str, Any]) -> None:
    """Replace the content of the file ``path`` by the dict ``fields`` and a hash of it, as JSON, durably. Raises OSError."""
    write_text(disk, path, f"{json.dumps({**fields, 'check': _check_of(fields)}, indent=2)}\n")


def write_text(disk: Disk, path: Path, text: str) -> None:
    """Write ``text`` to the file ``path``, durably, in place of its content: as a whole or not at all. Raises OSError."""
    temporary = path.with_name(path.name + WRITING)
    handle = disk.open(temporary, create=True)
    try:
        disk.write(handle, 0, text.encode())
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(temporary, path)
    disk.sync_directory(path.parent)


def read_document(disk: Disk, path: Path, format_version: int, unchecked: int = 0) -> dict[str, Any]:
    """Return the fields of ``path``, a small JSON file, without the hash of all fields that the file holds as a check.

    format_version: the highest version of the file's format that this build knows.  unchecked: files of the versions up to
    this one have no hash. Raises ValueError for a damaged file, NewerCacheFlow for a later version, OSError.
    """
    fields = json.loads(disk.read(path))
    if type(fields) is not dict:
        raise ValueError("no object")
    check = fields.pop("check", None)
    version = fields.get("format_version")
    if type(version) is not int or version < 1 or check != (_check_of(fields) if version > unchecked else None):
        raise ValueError("its check is wrong")
    # Later formats have the same check.
    if version > format_version:
        raise NewerCacheFlow.wrote(str(path), version, format_version, number="format")
    return fields


def _check_of(fields: dict[str, Any]) -> str:
    return blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8).hexdigest()
