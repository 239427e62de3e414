"""The snapshot helper: a process of its own that builds a snapshot, so that building never stops the node.

    python -m cacheflow.raft.snapshots.helper DIRECTORY INDEX

It loads the last snapshot, applies the journal's entries up to ``INDEX`` from its files, and writes the new one. The node
compares the digest with its own at that index before it trims anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacheflow.errors import ConfigError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.reading import read_entries
from cacheflow.raft.log.records import CONFIGURATION, NO_OP, REGULAR
from cacheflow.raft.seams import Tasks
from cacheflow.raft.snapshots.files import SnapshotMeta, chunks_of, newest_snapshot, write_snapshot

logger = logging.getLogger(__name__)


class HelperProcess:
    """A Builder that starts a process for each snapshot, so that building costs the node neither time nor memory."""

    def __init__(self, directory: Path, supervisor: Tasks) -> None:
        self._directory = directory
        self._supervisor = supervisor

    def __call__(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        """Start the helper; ``done`` is called on the loop, once, whatever becomes of it."""
        self._supervisor.start("the snapshot helper", lambda: self._run(index, done))

    async def _run(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        try:
            outcome: SnapshotMeta | BaseException = await self._build(index)
        except Exception as error:
            outcome = error
        try:
            done(outcome)
        except Exception:  # it must not start the helper again
            logger.exception("what the snapshot helper has built could not be taken")

    async def _build(self, index: int) -> SnapshotMeta:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cacheflow.raft.snapshots.helper",
            str(self._directory),
            str(index),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, complaint = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            lines = complaint.decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"the helper ended with {process.returncode}")
        return SnapshotMeta.of(json.loads(output))


def payload_of(command: bytes) -> bytes:
    """Return the part of a log entry that the machine applies, b"" for Raft's own. Raises ConfigError for an unknown kind."""
    if command[:1] in (REGULAR, CONFIGURATION):
        return command[1:]
    if command[:1] == NO_OP:
        return b""
    raise ConfigError(f"an entry of kind {command[:1].hex() or 'nothing'} is in the log; this program knows 0, 1 and 2")


def build(disk: Disk, directory: Path, index: int, *, group: int = 0) -> SnapshotMeta:
    """Write the snapshot up to ``index``, made of the last snapshot and the journal, and return its meta. Blocks.

    index: an applied entry, at most the journal's ``durable_index``.
    Raises CorruptSnapshot, CorruptJournal, ConfigError, OSError.
    """
    newest = newest_snapshot(disk, directory)
    if newest is None:
        # The first entry of a log is never applied: a machine begins behind it.
        base, machine, after_term = SnapshotMeta(1, 0), CacheMachine(), None
    else:
        base, machine = newest, CacheMachine.restore(chunks_of(disk, directory, newest))
        after_term = base.term
    if base.index != machine.applied_index or base.index > index:
        raise ConfigError(f"a snapshot up to {index} cannot be built on {base.index}, {machine.applied_index} applied")
    if newest is not None and base.index == index:
        return newest
    term = base.term
    for command, at, at_term in read_entries(disk, directory, base.index, index, after_term=after_term, group=group):
        machine.apply(at, payload_of(command))
        term = at_term
    meta = SnapshotMeta(index, term, machine.digest)
    return write_snapshot(disk, directory, meta, machine.snapshot())


def main() -> int:
    """Run the helper process: print the meta as one line of JSON and return 0, or print one line on stderr and return 1."""
    parser = argparse.ArgumentParser(
        prog="python -m cacheflow.raft.snapshots.helper", description="Build one snapshot."
    )
    parser.add_argument("directory", type=Path, help="the data directory")
    parser.add_argument("index", type=int, help="the last entry to cover: committed, and durable in the journal")
    given = parser.parse_args()
    # The node's own process has precedence over this one.
    os.nice(10)
    started = time.perf_counter()
    try:
        meta = build(Disk(), given.directory, given.index)
    except Exception as error:  # whatever it is, the node only needs to know that there is no snapshot
        print(f"no snapshot up to {given.index}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        "index": meta.index,
        "term": meta.term,
        "digest": meta.digest.hex(),
        "bytes": meta.bytes,
        "seconds": round(time.perf_counter() - started, 3),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
