"""The snapshot helper: a process beside the node that builds a snapshot, so that building never stops the node.

    python -I cacheflow/raft/snapshots/run_helper.py PATH BUILD DIRECTORY INDEX [--gentle] [--digest | --backup | --check ...]

``helper_process.py`` starts it beside a node. It loads the last snapshot, applies the journal's entries up to ``INDEX`` from
its files, writes the new one, and loads what it has written. The node compares the digest with its own at that index before
it trims anything. With ``--digest`` it writes nothing, and tells the digest of the whole contents at that entry. With
``--backup`` it writes a backup of the contents at that entry to its standard input, a file that is open for writing; with
``--check`` it reads a backup from there. With ``--gentle`` it yields to everybody else (gentle.py); if they leave it no
time it gives up and says so, and the node begins again without.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final

from cacheflow.errors import BadBackup, ConfigError, NewerCacheFlow, ValueTooLarge
from cacheflow.files.backup import BackupMeta, checked, written
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.entries import EXPIRES_AT_MS, META
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
from cacheflow.raft.snapshots.gentle import Gentle


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


# What a gentle helper reports when it gives up: others leave it no time, and the work has to end some time.
STARVED: Final = {"index": 0, "starved": True}


def contents_at(
    disk: Disk, directory: Path, index: int, *, group: int = 0, machine_type: type[CacheMachine] = CacheMachine
) -> tuple[SnapshotMeta | None, int, CacheMachine]:
    """Return (the newest snapshot's description, the term of the log entry ``index``, the state machine after that entry).

    The machine is made of the node's newest snapshot and its journal. Blocks. index: that of an applied entry, at most the
    journal's ``durable_index``. Raises CorruptSnapshot, CorruptJournal, NewerCacheFlow, ConfigError, OSError.
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
    term = base.term
    for command, at, at_term in read_entries(disk, directory, base.index, index, after_term=after_term, group=group):
        machine.apply(at, command[1:] if command[:1] in ENTRY_KINDS else b"")
        term = at_term
    return newest, term, machine


def build(
    disk: Disk, directory: Path, index: int, *, group: int = 0, machine_type: type[CacheMachine] = CacheMachine
) -> SnapshotMeta:
    """Write a node's snapshot up to the log entry ``index``, made of its newest one and its journal; return the description.

    Blocks. Raises CorruptSnapshot, CorruptJournal, NewerCacheFlow, ConfigError, OSError.
    """
    newest, term, machine = contents_at(disk, directory, index, group=group, machine_type=machine_type)
    if newest is not None and newest.index == index:
        return newest
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


def write_backup(
    disk: Disk,
    directory: Path,
    index: int,
    write: Callable[[bytes], object],
    *,
    machine_type: type[CacheMachine] = CacheMachine,
) -> BackupMeta:
    """Make a backup of a node's contents at the log entry ``index``; return the backup's description.

    write: called with each piece of the backup, in order.
    Blocks. Raises CorruptSnapshot, CorruptJournal, NewerCacheFlow, ConfigError, OSError.
    """
    _, term, machine = contents_at(disk, directory, index, machine_type=machine_type)
    contents = machine.contents
    find, now_ms, raw = contents.find, contents.now_ms, contents.raw
    alive = [key for key, _ in contents.items.ordered() if find(key) is not None]
    meta = BackupMeta(index, term, machine.cluster_id, now_ms, contents.revision, len(alive))
    for piece in written(meta, ((key, *raw[key][: META + 1], raw[key][EXPIRES_AT_MS]) for key in alive)):
        write(piece)
    return meta


def _checked(file: BinaryIO, value_bytes_max: int, bytes_max: int) -> dict[str, Any]:
    """Return the description of the backup in ``file``, or the reason why it is refused, as a JSON object.

    value_bytes_max, bytes_max: the most bytes of one value and of the whole cache; 0 for no limit on the whole cache.
    """
    try:
        return asdict(checked(file, value_bytes_max=value_bytes_max, bytes_max=bytes_max or None))
    except (BadBackup, ValueTooLarge, NewerCacheFlow) as error:
        return {"index": 0, "refused": [type(error).__name__, str(error)]}


def _give_up() -> None:
    """End this process, which others leave no time, with a report of that."""
    print(json.dumps(STARVED), flush=True)
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Run the helper process, which builds one snapshot, makes a digest, or makes or checks a backup; return its exit status.

    The status is 0 or 1. The process prints its result as a line of JSON, or on failure one line on stderr.
    """
    parser = argparse.ArgumentParser(prog="run_helper.py", description="Build one snapshot.")
    parser.add_argument("build", help="the build that the node runs")
    parser.add_argument("directory", type=Path, help="the data directory")
    parser.add_argument("index", type=int, help="the last entry to cover: committed, and durable in the journal")
    parser.add_argument("--digest", action="store_true", help="only tell the digest of the whole contents")
    parser.add_argument("--backup", action="store_true", help="write a backup to the file that is standard input")
    parser.add_argument(
        "--check", nargs=2, type=int, help="check one there: the largest value, and the whole cache's bytes"
    )
    parser.add_argument("--gentle", action="store_true", help="yield to all others, and give up if they leave no time")
    given = parser.parse_args(arguments)
    with Gentle(_give_up) if given.gentle else contextlib.nullcontext():
        return _run(given)


def _run(given: argparse.Namespace) -> int:
    """Do the work that ``given``, the helper's arguments, names; print the result and return the exit status."""
    started = time.perf_counter()
    try:
        if given.build != BUILD:
            raise ConfigError("CacheFlow's files were changed after this node was started; restart it")
        if given.digest:
            _, _, machine = contents_at(Disk(), given.directory, given.index)
            print(json.dumps({"index": given.index, "digest": machine.contents_digest().hex()}))
            return 0
        if given.backup or given.check:
            with open(0, "r+b") as file:
                if given.check:
                    print(json.dumps(_checked(file, *given.check)))
                else:
                    # An earlier helper may have given up.
                    file.seek(0)
                    file.truncate()
                    print(json.dumps(asdict(write_backup(Disk(), given.directory, given.index, file.write))))
            return 0
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
