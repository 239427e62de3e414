"""The snapshot helper: a process beside the node that builds a snapshot, so that building never stops the node.

    python -I cacheflow/raft/snapshots/run_helper.py PATH BUILD DIRECTORY INDEX

``helper_process.py`` starts it beside a node. It loads the last snapshot, applies the journal's entries up to ``INDEX`` from
its files, writes the new one, and loads what it has written. The node compares the digest with its own at that index before
it trims anything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from cacheflow.errors import ConfigError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.reading import read_entries
from cacheflow.raft.log.records import ENTRY_KINDS
from cacheflow.raft.snapshots.files import (
    CorruptSnapshot,
    SnapshotMeta,
    newest_snapshot,
    restored,
    snapshot_path,
    write_snapshot,
)


def _fingerprint() -> str:
    """Return a digest of all of CacheFlow's source files, as they are on the disk now."""
    package = Path(__file__).parents[2]
    whole = blake2b(digest_size=16)
    for file in sorted(package.rglob("*.py")):
        whole.update(b"%s %d " % (str(file.relative_to(package)).encode(), file.stat().st_size))
        whole.update(file.read_bytes())
    return whole.hexdigest()


# The build that this process runs, by its files at the time they were loaded: another one may apply an entry differently.
BUILD: Final = _fingerprint()


def build(
    disk: Disk, directory: Path, index: int, *, group: int = 0, machine_type: type[CacheMachine] = CacheMachine
) -> SnapshotMeta:
    """Write a node's snapshot up to ``index``, made of its last one and its journal; return the new one's description.

    Blocks. index: that of an applied entry, at most the journal's ``durable_index``.
    Raises CorruptSnapshot, CorruptJournal, NewerCacheFlow, ConfigError, OSError.
    """
    newest = newest_snapshot(disk, directory)
    if newest is None:
        # The first entry of a log is never applied: a machine begins behind it.
        base, machine, after_term = SnapshotMeta(1, 0), machine_type(), None
    else:
        base, machine = newest, restored(disk, snapshot_path(directory, newest.index), newest, machine_type)
        after_term = base.term
    if base.index > index:
        raise ConfigError(f"a snapshot up to {index} cannot be built on {base.index}")
    if newest is not None and base.index == index:
        return newest
    term = base.term
    for command, at, at_term in read_entries(disk, directory, base.index, index, after_term=after_term, group=group):
        machine.apply(at, command[1:] if command[:1] in ENTRY_KINDS else b"")
        term = at_term
    meta = SnapshotMeta(index, term, machine.digest, machine.outlook())
    chunks = machine.snapshot()
    # When all chunks are taken this machine is gone, before the one that is loaded comes.
    del machine

    def check(path: Path) -> None:
        try:
            loaded = restored(disk, path, meta, machine_type)
        except CorruptSnapshot as error:
            raise ConfigError(f"what was written could not be loaded: {error.what}") from None
        if loaded.outlook() != meta.outlook:
            raise ConfigError("what was written and loaded again is not what was written")

    return write_snapshot(disk, directory, meta, chunks, check)


def main(arguments: list[str]) -> int:
    """Run the helper process, which builds one snapshot, and return its exit status, 0 or 1.

    It prints the new snapshot's description as a line of JSON, or on failure one line on stderr.
    """
    parser = argparse.ArgumentParser(prog="run_helper.py", description="Build one snapshot.")
    parser.add_argument("build", help="the build that the node runs")
    parser.add_argument("directory", type=Path, help="the data directory")
    parser.add_argument("index", type=int, help="the last entry to cover: committed, and durable in the journal")
    given = parser.parse_args(arguments)
    # The node's own process has precedence over this one.
    os.nice(10)
    started = time.perf_counter()
    try:
        if given.build != BUILD:
            raise ConfigError("CacheFlow's files were changed after this node was started; restart it")
        meta = build(Disk(), given.directory, given.index)
    except Exception as error:  # whatever it is, the node only needs to know that there is no snapshot
        print(f"no snapshot up to {given.index}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        "index": meta.index,
        "term": meta.term,
        "digest": meta.digest.hex(),
        "outlook": meta.outlook.hex(),
        "bytes": meta.bytes,
        "seconds": round(time.perf_counter() - started, 3),
    }
    print(json.dumps(report))
    return 0
