"""Snapshot files: a snapshot is on the disk as a whole or not at all.

``snapshot-<index>.cfs`` is a magic with a format version and *frames*: length 4, check 8, data. The first frame is the
header (msgpack), the next frames are the machine's chunks as they came, an empty frame ends them, and a digest of 16
bytes over all frames' heads ends the file. A check is BLAKE2b-64 over the frame's number, length and data, so a frame
that is damaged, missing, doubled or moved is found. A file gets its name after it was flushed; the folder is flushed
after that.

A damaged newest snapshot is refused by name, and no older one is taken instead: the journal in between may be trimmed.

**Building one never stops the node.** ``build`` runs in a process of its own,

    python -m cacheflow.raft.snapshots.files DIRECTORY INDEX

which loads the last snapshot, applies the journal's entries up to ``INDEX`` from its files, and writes the new one. The
node compares the digest with its own at that index before it trims anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import struct
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgpack

from cacheflow.errors import CacheFlowError, ConfigError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.reading import read_entries

MAGIC: Final = b"CFSNAP"
FORMAT_VERSION: Final = 1

_NAME = re.compile(r"snapshot-(\d{20})\.cfs")
# Suffixes of files that are not complete: one that this node writes, and one that it receives.
_WRITING = ".new"
_RECEIVING = ".part"
_FRAME: Final = struct.Struct("<I8s")
_NUMBERED: Final = struct.Struct("<II")
_TOTAL_BYTES: Final = 16
_BUFFER_BYTES: Final = 1 << 20
# Bytes between two flushes of a file that is being written. One flush of the whole file would keep the journal's
# flushes waiting behind it: measured with 130 MB on a fast disk, 57 ms, and 18 ms with flushes on the way.
_FLUSH_BYTES: Final = 16 << 20

# The kinds of entries in the log: the first byte of a command.
_REGULAR: Final = b"\x00"
_NO_OP: Final = b"\x01"
_CONFIGURATION: Final = b"\x02"


class CorruptSnapshot(ConfigError):
    """A snapshot that cannot be trusted. The message names the file and what is wrong."""

    def __init__(self, file: object, what: str) -> None:
        self.what = what
        super().__init__(
            f"the snapshot is damaged: {file}: {what}. Nothing was loaded. Remove this node's data directory and start "
            "it again with --seed; it rejoins the cluster as a new member"
        )


class SnapshotRefused(CacheFlowError):
    """A peer sent something else than the snapshot that it announced. Nothing of it is kept."""


# ``bytes`` under another name, because SnapshotMeta has a field of that name.
_Bytes: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The description of a snapshot.

    index, term: those of the last entry that it covers. digest: the machine's after that entry.
    bytes: the length of the file; 0 before it is written.
    """

    index: int
    term: int
    digest: _Bytes = b""
    bytes: int = 0

    @classmethod
    def of(cls, report: dict[str, Any]) -> SnapshotMeta:
        """Return the description in the line that the helper process prints. Raises KeyError, ValueError."""
        return cls(report["index"], report["term"], _Bytes.fromhex(report["digest"]), bytes=report["bytes"])


def snapshot_path(directory: Path, index: int) -> Path:
    """Return the path of the snapshot up to ``index``."""
    return directory / f"snapshot-{index:020}.cfs"


def list_snapshots(disk: Disk, directory: Path) -> list[int]:
    """Return the indexes of the snapshots in ``directory``, in order."""
    return sorted(int(match[1]) for name in disk.list(directory) if (match := _NAME.fullmatch(name)))


def write_snapshot(disk: Disk, directory: Path, meta: SnapshotMeta, chunks: Iterable[bytes]) -> SnapshotMeta:
    """Write a snapshot and return its meta, with the size, once it is durable. Blocks.

    Raises OSError, and whatever ``chunks`` raises; then nothing is left behind.
    """
    path = snapshot_path(directory, meta.index)
    temporary = path.with_name(path.name + _WRITING)
    handle = disk.open(temporary, create=True)
    try:
        try:
            size = flushed = 0
            buffer: list[bytes] = []
            buffered = 0
            for piece in _pieces(meta, chunks):
                buffer.append(piece)
                buffered += len(piece)
                if buffered >= _BUFFER_BYTES:
                    disk.write(handle, size, b"".join(buffer))
                    size, buffer, buffered = size + buffered, [], 0
                    if size - flushed >= _FLUSH_BYTES:
                        disk.sync(handle)
                        flushed = size
            disk.write(handle, size, b"".join(buffer))
            disk.sync(handle)
        finally:
            disk.close(handle)
        disk.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(temporary)
        raise
    disk.sync_directory(directory)
    return replace(meta, bytes=size + buffered)


def load_newest(disk: Disk, directory: Path) -> tuple[SnapshotMeta, Iterator[bytes]] | None:
    """Return the newest snapshot, verified from end to end, and its chunks; None when there is none. Blocks.

    Removes files that a crash left unfinished, and older snapshots once the newest one is verified: call it at start,
    before anything is built, sent or received. Raises CorruptSnapshot, OSError.
    """
    for name in disk.list(directory):
        if name.endswith((_WRITING, _RECEIVING)) and _NAME.fullmatch(name.rpartition(".")[0]):
            disk.remove(directory / name)
    meta = _newest(disk, directory)
    if meta is None:
        return None
    remove_older(disk, directory, meta.index)
    return meta, chunks_of(disk, directory, meta)


def chunks_of(disk: Disk, directory: Path, meta: SnapshotMeta) -> Iterator[bytes]:
    """Yield the machine's chunks as they were written. Raises CorruptSnapshot on the way if the file is damaged."""
    frames = _frames(disk, snapshot_path(directory, meta.index))
    next(frames)
    return frames


def verify_snapshot(disk: Disk, path: Path) -> SnapshotMeta:
    """Read a snapshot file from end to end and return its meta. Raises CorruptSnapshot, OSError."""
    frames = _frames(disk, path)
    header = next(frames)
    for _ in frames:
        pass
    index, term, digest, _ = msgpack.unpackb(header)
    return SnapshotMeta(index, term, bytes.fromhex(digest), disk.size(path))


def read_piece(disk: Disk, directory: Path, meta: SnapshotMeta, offset: int, length: int) -> bytes:
    """Return up to ``length`` bytes of a snapshot file from ``offset`` on, b"" behind its end. Blocks. Raises OSError."""
    return disk.read(snapshot_path(directory, meta.index), offset, length)


def discard(disk: Disk, directory: Path, meta: SnapshotMeta) -> None:
    """Remove a snapshot that must not be loaded, if it is still there."""
    with contextlib.suppress(FileNotFoundError):
        disk.remove(snapshot_path(directory, meta.index))
    disk.sync_directory(directory)


def remove_older(disk: Disk, directory: Path, index: int, sending: Collection[int] = ()) -> None:
    """Remove the snapshots older than the durable one at ``index``, except those at the indexes in ``sending``."""
    for older in list_snapshots(disk, directory):
        if older < index and older not in sending:
            disk.remove(snapshot_path(directory, older))


class SnapshotReceiver:
    """Takes a snapshot from a peer, piece by piece, in order; ``finish`` makes it one of this node's own.

    Every call blocks, so the calls are made one after the other on the disk's thread; the constructor and ``abandon``
    block for a moment only. ``received`` belongs to the caller: how many bytes it has handed to ``write``. Raises
    OSError when space is missing, SnapshotRefused for a piece that does not fit; then nothing is left behind.
    """

    def __init__(self, disk: Disk, directory: Path, index: int, term: int, total_bytes: int) -> None:
        self.index = index
        self.term = term
        self.total_bytes = total_bytes
        self.received = 0
        self._written = 0
        self._flushed = 0
        self._disk = disk
        self._directory = directory
        self._path = snapshot_path(directory, index)
        self._temporary = self._path.with_name(self._path.name + _RECEIVING)
        self._handle = disk.open(self._temporary, create=True)
        try:
            disk.preallocate(self._handle, total_bytes)
        except OSError:
            self.abandon()
            raise

    def write(self, offset: int, data: bytes) -> None:
        """Write the next piece; after the last piece call ``finish``."""
        if self._handle < 0:
            raise SnapshotRefused("this snapshot is complete or was given up")
        try:
            if offset != self._written or offset + len(data) > self.total_bytes:
                what = f"bytes {offset} to {offset + len(data)} do not follow {self._written} of {self.total_bytes}"
                raise SnapshotRefused(what)
            self._disk.write(self._handle, offset, data)
            self._written += len(data)
            if self._written - self._flushed >= _FLUSH_BYTES:
                self._disk.sync(self._handle)
                self._flushed = self._written
        except BaseException:
            self.abandon()
            raise

    def finish(self) -> SnapshotMeta:
        """Verify the whole file, give it its name and return its meta once it is durable."""
        if self._handle < 0:
            raise SnapshotRefused("this snapshot is complete or was given up")
        try:
            if self._written != self.total_bytes:
                raise SnapshotRefused(f"{self._written} of {self.total_bytes} bytes are here")
            self._disk.sync(self._handle)
            try:
                meta = verify_snapshot(self._disk, self._temporary)
            except CorruptSnapshot as error:
                raise SnapshotRefused(f"the snapshot came damaged: {error.what}") from None
            if (meta.index, meta.term) != (self.index, self.term):
                raise SnapshotRefused(f"it is the snapshot up to {meta.index} of term {meta.term}")
            self._disk.rename(self._temporary, self._path)
            self._disk.sync_directory(self._directory)
        except BaseException:
            self.abandon()
            raise
        self._close()
        return meta

    def abandon(self) -> None:
        """Give up and remove the unfinished file; does nothing after ``finish``."""
        if self._handle >= 0:
            self._close()
            with contextlib.suppress(OSError):
                self._disk.remove(self._temporary)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        self._disk.close(handle)


def _newest(disk: Disk, directory: Path) -> SnapshotMeta | None:
    """Return the meta of the newest snapshot, every byte of which was verified; None without one."""
    indexes = list_snapshots(disk, directory)
    if not indexes:
        return None
    path = snapshot_path(directory, indexes[-1])
    meta = verify_snapshot(disk, path)
    if meta.index != indexes[-1]:
        raise CorruptSnapshot(path, f"it is the snapshot up to {meta.index}")
    return meta


def _pieces(meta: SnapshotMeta, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a snapshot file in order."""
    yield MAGIC + FORMAT_VERSION.to_bytes(2, "little")
    total = blake2b(digest_size=_TOTAL_BYTES)
    # The fourth field of format version 1 is not used.
    header: bytes = msgpack.packb((meta.index, meta.term, meta.digest.hex(), b""))
    # An empty frame is the end.
    for number, data in enumerate(chain([header], filter(None, chunks), [b""])):
        head = _FRAME.pack(len(data), _frame_check(number, data))
        total.update(head)
        yield head
        yield data
    yield total.digest()


def _frame_check(number: int, data: bytes) -> bytes:
    check = blake2b(_NUMBERED.pack(number, len(data)), digest_size=8)
    check.update(data)
    return check.digest()


def _frames(disk: Disk, path: Path) -> Iterator[bytes]:
    """Yield a snapshot file's header, then its chunks; ends only if the end of the file is right. Raises CorruptSnapshot."""
    size = disk.size(path)
    magic = disk.read(path, 0, len(MAGIC) + 2)
    if not magic.startswith(MAGIC):
        raise CorruptSnapshot(path, "not a snapshot")
    version = int.from_bytes(magic[len(MAGIC) :], "little")
    if version != FORMAT_VERSION:
        raise CorruptSnapshot(path, f"format version {version}; this program knows {FORMAT_VERSION}")
    total = blake2b(digest_size=_TOTAL_BYTES)
    offset = len(magic)
    number = 0
    while True:
        head = disk.read(path, offset, _FRAME.size)
        length, check = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, b"")
        offset += _FRAME.size
        data = disk.read(path, offset, length) if offset + length <= size else b""
        if len(data) != length or _frame_check(number, data) != check:
            raise CorruptSnapshot(path, f"frame {number} at byte {offset - _FRAME.size} is damaged or missing")
        total.update(head)
        offset += length
        number += 1
        if length == 0:
            break
        yield data
    if disk.read(path, offset) != total.digest():
        raise CorruptSnapshot(path, f"the end of the file, byte {offset}, is damaged")


def payload_of(command: bytes) -> bytes:
    """Return the part of a log entry that the machine applies, b"" for Raft's own. Raises ConfigError for an unknown kind."""
    if command[:1] in (_REGULAR, _CONFIGURATION):
        return command[1:]
    if command[:1] == _NO_OP:
        return b""
    raise ConfigError(f"an entry of kind {command[:1].hex() or 'nothing'} is in the log; this program knows 0, 1 and 2")


def build(disk: Disk, directory: Path, index: int, *, group: int = 0) -> SnapshotMeta:
    """Write the snapshot up to ``index``, made of the last snapshot and the journal, and return its meta. Blocks.

    index: an applied entry, at most the journal's ``durable_index``.
    Raises CorruptSnapshot, CorruptJournal, ConfigError, OSError.
    """
    newest = _newest(disk, directory)
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
    parser = argparse.ArgumentParser(prog="python -m cacheflow.raft.snapshots.files", description="Build one snapshot.")
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
