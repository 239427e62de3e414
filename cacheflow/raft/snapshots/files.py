"""Snapshot files: a snapshot is on the disk as a whole or not at all.

``snapshot-<index>.cfs`` is a magic, a format (``log/formats.py``) and frames (``cacheflow/files/frames.py``): the header
(msgpack), then the machine's chunks as they came. A file gets its name after it was flushed; the folder is flushed after that.

A damaged newest snapshot is refused by name, and no older one is taken instead: the journal in between may be trimmed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgpack

from cacheflow.errors import ConfigError
from cacheflow.files.frames import BrokenFrames, framed, unframed
from cacheflow.machine.language.commands import CodecError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.formats import FORMAT_BYTES, encode_format, is_format

MAGIC: Final = b"CFSNAP"
FORMAT_VERSION: Final = 1

_NAME = re.compile(r"snapshot-(\d{20})\.cfs")
# Suffixes of files that are not complete: one that this node writes, and one that it receives.
_WRITING = ".new"
RECEIVING = ".part"
_BUFFER_BYTES: Final = 1 << 20
# Bytes between two flushes of a file that is being written. One flush of the whole file would keep the journal's
# flushes waiting behind it: measured with 130 MB on a fast disk, 57 ms, and 18 ms with flushes on the way.
FLUSH_BYTES: Final = 16 << 20


class CorruptSnapshot(ConfigError):
    """Raised for a snapshot file that is damaged. The message names the file and what is wrong there."""

    def __init__(self, file: object, what: str) -> None:
        self.what = what
        super().__init__(
            f"the snapshot is damaged: {file}: {what}. Nothing was loaded. Remove this node's data directory and start "
            "it again with --seed; it rejoins the cluster as a new member"
        )


# ``bytes`` under another name, because SnapshotMeta has a field of that name.
_Bytes: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The description of a snapshot.

    index, term: those of the last log entry that the snapshot covers.  digest: the state machine's digest after that
    entry.
    outlook: a digest of contents that the digest over effects leaves out though later effects depend on them, such as the
    order in which keys were last used.
    bytes: the length of the snapshot's file; 0 before it is written.
    """

    index: int
    term: int
    digest: _Bytes = b""
    outlook: _Bytes = b""
    bytes: int = 0

    @classmethod
    def of(cls, report: dict[str, Any]) -> SnapshotMeta:
        """Return the description of the snapshot that the helper process has built.

        report: the line of JSON that the process has printed, parsed. Raises KeyError, ValueError.
        """
        digest, outlook = _Bytes.fromhex(report["digest"]), _Bytes.fromhex(report["outlook"])
        return cls(report["index"], report["term"], digest, outlook, report["bytes"])


def snapshot_path(directory: Path, index: int) -> Path:
    """Return the path of the snapshot file in ``directory`` for the snapshot up to the log entry ``index``."""
    return directory / f"snapshot-{index:020}.cfs"


def list_snapshots(disk: Disk, directory: Path) -> list[int]:
    """Return the index of the last log entry covered by each snapshot in ``directory``, ascending."""
    return sorted(int(match[1]) for name in disk.list(directory) if (match := _NAME.fullmatch(name)))


def write_snapshot(
    disk: Disk,
    directory: Path,
    meta: SnapshotMeta,
    chunks: Iterable[bytes],
    check: Callable[[Path], object] | None = None,
) -> SnapshotMeta:
    """Write a snapshot file of ``chunks``, the pieces of a state machine's contents; return once the file is durable. Blocks.

    meta: the description of the snapshot; it is returned with the file's size.
    check: called with the path of the finished file, before the file gets its final name.
    Raises OSError, and whatever ``chunks`` and ``check`` raise; then nothing is left behind.
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
                    if size - flushed >= FLUSH_BYTES:
                        disk.sync(handle)
                        flushed = size
            disk.write(handle, size, b"".join(buffer))
            disk.sync(handle)
        finally:
            disk.close(handle)
        if check is not None:
            check(temporary)
        disk.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(temporary)
        raise
    disk.sync_directory(directory)
    return replace(meta, bytes=size + buffered)


def load_newest(disk: Disk, directory: Path) -> SnapshotMeta | None:
    """Return the description of a node's newest snapshot, after verifying its whole file; None when there is no snapshot.

    Blocks. Removes files that a crash left unfinished, and older snapshots once the newest one is verified: call it at
    start, before anything is built, sent or received. Raises CorruptSnapshot, OSError.
    """
    for name in disk.list(directory):
        if name.endswith((_WRITING, RECEIVING)) and _NAME.fullmatch(name.rpartition(".")[0]):
            disk.remove(directory / name)
    meta = newest_snapshot(disk, directory)
    if meta is not None:
        remove_older(disk, directory, meta.index)
    return meta


def chunks_of(disk: Disk, path: Path) -> Iterator[bytes]:
    """Yield the pieces of the state machine's contents in the snapshot file ``path``.

    Raises CorruptSnapshot, perhaps after some pieces, if the file is damaged.
    """
    frames = _frames(disk, path)
    next(frames)
    return frames


def restored(
    disk: Disk, path: Path, meta: SnapshotMeta, machine_type: type[CacheMachine] = CacheMachine
) -> CacheMachine:
    """Return the state machine loaded from the snapshot file ``path``.

    Raises CorruptSnapshot if the file holds no snapshot, or another one than ``meta`` describes; NewerCacheFlow if the
    snapshot is of a later feature level than this build knows.
    """
    try:
        machine = machine_type.restore(chunks_of(disk, path))
    except CodecError as error:
        raise CorruptSnapshot(path, str(error)) from None
    if (machine.applied_index, machine.digest) != (meta.index, meta.digest):
        raise CorruptSnapshot(path, f"it holds other contents than it says, those at {machine.applied_index}")
    return machine


def verify_snapshot(disk: Disk, path: Path) -> SnapshotMeta:
    """Verify the snapshot file ``path`` from end to end; return the snapshot's description.

    Raises CorruptSnapshot, OSError.
    """
    frames = _frames(disk, path)
    header = next(frames)
    for _ in frames:
        pass
    index, term, digest, future = msgpack.unpackb(header)
    return SnapshotMeta(index, term, bytes.fromhex(digest), bytes.fromhex(future), disk.size(path))


def read_piece(disk: Disk, directory: Path, meta: SnapshotMeta, offset: int, length: int) -> bytes:
    """Return up to ``length`` bytes of a snapshot's file from ``offset`` on, b"" behind the file's end. Blocks.

    meta: the snapshot's description. Raises OSError.
    """
    return disk.read(snapshot_path(directory, meta.index), offset, length)


def discard(disk: Disk, directory: Path, meta: SnapshotMeta) -> None:
    """Remove the file of the snapshot ``meta``, which must not be loaded, if the file is still there."""
    with contextlib.suppress(FileNotFoundError):
        disk.remove(snapshot_path(directory, meta.index))
    disk.sync_directory(directory)


def remove_older(disk: Disk, directory: Path, index: int, sending: Collection[int] = ()) -> None:
    """Remove the snapshots older than the durable one at ``index``, except those at the indexes in ``sending``.

    sending: the indexes of the snapshots that are being sent to followers.
    """
    for older in list_snapshots(disk, directory):
        if older < index and older not in sending:
            disk.remove(snapshot_path(directory, older))


def newest_snapshot(disk: Disk, directory: Path) -> SnapshotMeta | None:
    """Return the description of the newest snapshot in ``directory`` after verifying its whole file; None without one."""
    indexes = list_snapshots(disk, directory)
    if not indexes:
        return None
    path = snapshot_path(directory, indexes[-1])
    meta = verify_snapshot(disk, path)
    if meta.index != indexes[-1]:
        raise CorruptSnapshot(path, f"it is the snapshot up to {meta.index}")
    return meta


def _pieces(meta: SnapshotMeta, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a snapshot's file in order.

    meta: the snapshot's description.  chunks: the pieces of the state machine's contents that the snapshot holds.
    """
    yield MAGIC + encode_format(FORMAT_VERSION)
    yield from framed(msgpack.packb((meta.index, meta.term, meta.digest.hex(), meta.outlook.hex())), chunks)


def _frames(disk: Disk, path: Path) -> Iterator[bytes]:
    """Yield the header of the snapshot file ``path``, then the pieces of the snapshot's contents.

    Raises CorruptSnapshot if any part of the file is damaged.
    """
    size = disk.size(path)
    magic = disk.read(path, 0, len(MAGIC) + FORMAT_BYTES)
    if not magic.startswith(MAGIC):
        raise CorruptSnapshot(path, "not a snapshot")
    if not is_format(magic[len(MAGIC) :], FORMAT_VERSION, f"the snapshot, {path},"):
        raise CorruptSnapshot(path, "its format is unreadable")
    try:
        yield from unframed(lambda offset, length: disk.read(path, offset, length), len(magic), size)
    except BrokenFrames as error:
        raise CorruptSnapshot(path, str(error)) from None
