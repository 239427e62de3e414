"""Snapshots on disk: whole or not at all.

``snapshot-<index>.cfs`` is a magic with a format version and *frames*: length 4, check 8, data. The first frame is the
header (msgpack), the next ones are the machine's chunks as they came, an empty one ends them, and 16 bytes over all
frames' heads end the file. A check is BLAKE2b-64 over the frame's number, length and data, so a frame that is damaged,
missing, doubled or moved is found. A file gets its name after it was flushed; the folder is flushed after that.

A damaged newest snapshot is refused by name. An older one would not do: the journal in between may be trimmed.

**Building one never stops the node.** ``build`` runs in a process of its own,

    python -m cacheflow.raft.snapshots DIRECTORY INDEX

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
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol

import msgpack

from cacheflow.errors import CacheFlowError, ConfigError
from cacheflow.raft.disk import Disk, RealDisk
from cacheflow.raft.reading import read_entries

MAGIC: Final = b"CFSNAP"
FORMAT_VERSION: Final = 1

_NAME = re.compile(r"snapshot-(\d{20})\.cfs")
# Being written by this node, and being received from another.
_WRITING = ".new"
_RECEIVING = ".part"
_FRAME: Final = struct.Struct("<I8s")
_NUMBERED: Final = struct.Struct("<II")
_TOTAL_BYTES: Final = 16
_BUFFER_BYTES: Final = 1 << 20

# The first byte of a command in the log.
_REGULAR, _NO_OP, _CONFIGURATION = 0, 1, 2


class CorruptSnapshot(ConfigError):
    """A snapshot that cannot be trusted. The message names the file and what is wrong."""

    def __init__(self, file: object, what: str) -> None:
        super().__init__(
            f"the snapshot is damaged: {file}: {what}. Nothing was loaded. Remove this node's data directory and start it "
            "again with --seed; it rejoins the cluster as a new member"
        )


class SnapshotRefused(CacheFlowError):
    """What a peer sent is not the snapshot that it announced. Nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """What a snapshot says about itself.

    index, term: of the last entry it covers. digest: the machine's after it. config: the caller's own bytes.
    """

    index: int
    term: int
    digest: bytes = b""
    config: bytes = b""


def snapshot_path(directory: Path, index: int) -> Path:
    """Where the snapshot up to ``index`` is kept."""
    return directory / f"snapshot-{index:020}.cfs"


def list_snapshots(disk: Disk, directory: Path) -> list[int]:
    """Indexes of the snapshots in ``directory``, in order."""
    return sorted(int(match[1]) for name in disk.list(directory) if (match := _NAME.fullmatch(name)))


def write_snapshot(disk: Disk, directory: Path, meta: SnapshotMeta, chunks: Iterable[bytes]) -> int:
    """Write a snapshot and return its size once it is durable. Blocks. Raises OSError, and what ``chunks`` raises."""
    path = snapshot_path(directory, meta.index)
    temporary = path.with_name(path.name + _WRITING)
    handle = disk.open(temporary, create=True)
    try:
        try:
            size = 0
            buffer: list[bytes] = []
            buffered = 0
            for piece in _pieces(meta, chunks):
                buffer.append(piece)
                buffered += len(piece)
                if buffered >= _BUFFER_BYTES:
                    disk.write(handle, size, b"".join(buffer))
                    size, buffer, buffered = size + buffered, [], 0
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
    return size + buffered


def load_newest(disk: Disk, directory: Path, *, at_least: int = 0) -> tuple[SnapshotMeta, Iterator[bytes]] | None:
    """The newest snapshot, verified from end to end, and its chunks; None when there is none. Blocks.

    at_least: the index where the journal begins: no snapshot, or an older one, leaves a hole.
    Raises CorruptSnapshot, OSError.
    """
    indexes = list_snapshots(disk, directory)
    if not indexes or indexes[-1] < at_least:
        if at_least <= 1:  # the journal has everything
            return None
        raise CorruptSnapshot(
            snapshot_path(directory, at_least), "the journal begins there, and no snapshot reaches it"
        )
    path = snapshot_path(directory, indexes[-1])
    meta = verify_snapshot(disk, path)
    if meta.index != indexes[-1]:
        raise CorruptSnapshot(path, f"holds the snapshot up to {meta.index}")
    chunks = _frames(disk, path)
    next(chunks)
    return meta, chunks


def verify_snapshot(disk: Disk, path: Path) -> SnapshotMeta:
    """Read the file from end to end. Raises CorruptSnapshot."""
    frames = _frames(disk, path)
    header = next(frames)
    for _ in frames:
        pass
    index, term, digest, config = msgpack.unpackb(header)
    return SnapshotMeta(index, term, bytes.fromhex(digest), config)


def remove_older(disk: Disk, directory: Path, index: int, sending: Collection[int] = ()) -> None:
    """Drop the snapshots below ``index``, which is durable, except those that are being sent."""
    for older in list_snapshots(disk, directory):
        if older < index and older not in sending:
            disk.remove(snapshot_path(directory, older))


def remove_leftovers(disk: Disk, directory: Path) -> None:
    """At start, before anything is built or received: drop what a crash left unfinished."""
    for name in disk.list(directory):
        if _NAME.fullmatch(name.removesuffix(_WRITING).removesuffix(_RECEIVING)) and not _NAME.fullmatch(name):
            disk.remove(directory / name)


class SnapshotFile:
    """A durable snapshot, read in pieces to be sent. Name its index in ``remove_older`` as long as it is used."""

    def __init__(self, disk: Disk, directory: Path, index: int) -> None:
        self.index = index
        self._disk = disk
        self._path = snapshot_path(directory, index)
        self.total_bytes = disk.size(self._path)

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; b"" behind the end. Blocks for a moment. Raises OSError."""
        return self._disk.read(self._path, offset, length)


class SnapshotReceiver:
    """Takes a snapshot from a peer, in order. Each call blocks: make it where the disk's work is done.

    Raises OSError when the space is missing, SnapshotRefused for what does not fit; nothing is left behind then.
    """

    def __init__(self, disk: Disk, directory: Path, index: int, term: int, total_bytes: int) -> None:
        self.index = index
        self.term = term
        self.total_bytes = total_bytes
        self.received = 0
        self._disk = disk
        self._directory = directory
        self._path = snapshot_path(directory, index)
        self._temporary = self._path.with_name(self._path.name + _RECEIVING)
        self._handle = disk.open(self._temporary, create=True)
        try:
            disk.preallocate(self._handle, total_bytes)
        except OSError:
            self.abort()
            raise

    def write(self, offset: int, data: bytes) -> SnapshotMeta | None:
        """Add the next piece. The last one returns the meta of the snapshot, verified, named and durable."""
        if self._handle < 0:
            raise SnapshotRefused("this snapshot is complete or was given up")
        if offset != self.received or offset + len(data) > self.total_bytes:
            self.abort()
            raise SnapshotRefused(
                f"bytes {offset} to {offset + len(data)} do not follow {self.received} of {self.total_bytes}"
            )
        try:
            self._disk.write(self._handle, offset, data)
            self.received += len(data)
            return self._finish() if self.received == self.total_bytes else None
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up, and leave nothing behind. Harmless when it is complete."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._disk.close(handle)
            with contextlib.suppress(OSError):
                self._disk.remove(self._temporary)

    def _finish(self) -> SnapshotMeta:
        self._disk.sync(self._handle)
        try:
            meta = verify_snapshot(self._disk, self._temporary)
        except CorruptSnapshot as error:
            raise SnapshotRefused(f"the snapshot came damaged: {error}") from None
        if (meta.index, meta.term) != (self.index, self.term):
            raise SnapshotRefused(f"the snapshot is one up to {meta.index} of term {meta.term}")
        self._disk.rename(self._temporary, self._path)
        self._disk.sync_directory(self._directory)
        handle, self._handle = self._handle, -1
        self._disk.close(handle)
        return meta


def _pieces(meta: SnapshotMeta, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The file's bytes in order."""
    yield MAGIC + FORMAT_VERSION.to_bytes(2, "little")
    total = blake2b(digest_size=_TOTAL_BYTES)
    header: bytes = msgpack.packb((meta.index, meta.term, meta.digest.hex(), meta.config))
    number = 0
    for data in _with_end(header, chunks):
        head = _FRAME.pack(len(data), _frame_check(number, data))
        total.update(head)
        number += 1
        yield head
        yield data
    yield total.digest()


def _with_end(header: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield header
    for chunk in chunks:
        if chunk:  # an empty frame is the end
            yield chunk
    yield b""


def _frame_check(number: int, data: bytes) -> bytes:
    check = blake2b(_NUMBERED.pack(number, len(data)), digest_size=8)
    check.update(data)
    return check.digest()


def _frames(disk: Disk, path: Path) -> Iterator[bytes]:
    """The header and the chunks; ends only when the end of the file was right. Raises CorruptSnapshot."""
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


class Machine(Protocol):
    """What building needs of a CacheMachine."""

    @property
    def applied_index(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    def apply(self, index: int, payload: bytes) -> object: ...
    def snapshot(self) -> Iterable[bytes]: ...


class MachineClass(Protocol):
    """CacheMachine itself, or a test's."""

    def __call__(self) -> Machine: ...
    def restore(self, chunks: Iterable[bytes]) -> Machine: ...


def payload_of(command: bytes) -> bytes:
    """What the machine applies of an entry of the log: b"" for Raft's own. Raises ConfigError for an unknown kind."""
    if command[:1] in (b"\x00", b"\x02"):
        return command[1:]
    if command[:1] == b"\x01":
        return b""
    raise ConfigError(f"an entry of kind {command[:1].hex() or 'nothing'} is in the log; this program knows 0, 1 and 2")


def build(
    disk: Disk,
    directory: Path,
    index: int,
    *,
    machine_class: MachineClass,
    config: bytes | None = None,
    group: int = 0,
) -> tuple[SnapshotMeta, int]:
    """Write the snapshot up to ``index``, from the last one and the journal; returns its meta and size. Blocks.

    index: applied, and at most the journal's ``durable_index``. config: by default what the last snapshot has.
    Raises CorruptSnapshot, CorruptJournal, ConfigError, OSError.
    """
    loaded = load_newest(disk, directory)
    if loaded is None:
        # The first entry of a log is never applied: a machine begins behind it.
        base, machine = SnapshotMeta(1, 0), machine_class()
        after_term = None
    else:
        base, machine = loaded[0], machine_class.restore(loaded[1])
        after_term = base.term
    if base.index != machine.applied_index or base.index > index:
        raise ConfigError(f"a snapshot up to {index} cannot be built on {base.index}, {machine.applied_index} applied")
    if loaded is not None and base.index == index:
        return base, disk.size(snapshot_path(directory, index))
    term = base.term
    for command, at, term in read_entries(disk, directory, base.index, index, after_term=after_term, group=group):
        machine.apply(at, payload_of(command))
    meta = SnapshotMeta(index, term, machine.digest, base.config if config is None else config)
    return meta, write_snapshot(disk, directory, meta, machine.snapshot())


def main(arguments: list[str] | None = None, machine_class: MachineClass | None = None) -> int:
    """The helper process: one line of JSON on stdout, or one line on stderr and 1."""
    parser = argparse.ArgumentParser(prog="python -m cacheflow.raft.snapshots", description="Build one snapshot.")
    parser.add_argument("directory", type=Path, help="the data directory")
    parser.add_argument("index", type=int, help="the last entry to cover: committed, and durable in the journal")
    given = parser.parse_args(arguments)
    if machine_class is None:
        from cacheflow.machine.machine import CacheMachine

        machine_class = CacheMachine
    # The node beside it goes first.
    os.nice(10)
    started = time.perf_counter()
    try:
        meta, size = build(RealDisk(), given.directory, given.index, machine_class=machine_class)
    except Exception as error:  # whatever it is, the node only needs to know that there is no snapshot
        print(f"no snapshot up to {given.index}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        "index": meta.index,
        "term": meta.term,
        "digest": meta.digest.hex(),
        "bytes": size,
        "seconds": round(time.perf_counter() - started, 3),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
