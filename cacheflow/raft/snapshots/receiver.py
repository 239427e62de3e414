"""SnapshotReceiver: a snapshot file that is received in pieces, then verified and loaded before it gets its name."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cacheflow.errors import CacheFlowError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.snapshots.files import (
    FLUSH_BYTES,
    RECEIVING,
    CorruptSnapshot,
    SnapshotMeta,
    restored,
    snapshot_path,
    verify_snapshot,
)


class SnapshotRefused(CacheFlowError):
    """Raised when a peer sends something other than the snapshot that it announced. What was received is deleted."""


class SnapshotReceiver:
    """A snapshot that is received from another node in pieces, in order; ``finish`` makes it one of this node's snapshots.

    Every call blocks, so the calls are made one after the other on the disk's thread; the constructor does nothing with the disk.
    ``received`` belongs to the caller: the number of bytes that the caller has passed to ``write``.
    Raises OSError when space is missing, SnapshotRefused for a piece that does not fit; then nothing is left behind.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        index: int,
        term: int,
        total_bytes: int,
        machine_type: type[CacheMachine] = CacheMachine,
    ) -> None:
        self._machine_type = machine_type
        self.index = index
        self.term = term
        self.total_bytes = total_bytes
        self.received = 0
        self._written = 0
        self._flushed = 0
        self._disk = disk
        self._directory = directory
        self._path = snapshot_path(directory, index)
        self._temporary = self._path.with_name(self._path.name + RECEIVING)
        # The file's descriptor; None before the first piece, -1 behind the end.
        self._handle: int | None = None

    def write(self, offset: int, data: bytes) -> None:
        """Write ``data``, the next piece of the snapshot that is received, at the byte ``offset`` of the snapshot's file.

        After the last piece call ``finish``, which verifies the file.
        """
        handle = self._open()
        try:
            if offset != self._written or offset + len(data) > self.total_bytes:
                what = f"bytes {offset} to {offset + len(data)} do not follow {self._written} of {self.total_bytes}"
                raise SnapshotRefused(what)
            self._disk.write(handle, offset, data)
            self._written += len(data)
            if self._written - self._flushed >= FLUSH_BYTES:
                self._disk.sync(handle)
                self._flushed = self._written
        except BaseException:
            self.abandon()
            raise

    def finish(self) -> tuple[SnapshotMeta, CacheMachine]:
        """Verify the whole file of a received snapshot, load it, and give the file its final name.

        Returns the snapshot's description and the loaded state machine once the file is durable. Raises NewerCacheFlow
        for a snapshot of a later feature level than this build knows.
        """
        handle = self._open()
        try:
            if self._written != self.total_bytes:
                raise SnapshotRefused(f"{self._written} of {self.total_bytes} bytes are here")
            self._disk.sync(handle)
            try:
                meta = verify_snapshot(self._disk, self._temporary)
                if (meta.index, meta.term) != (self.index, self.term):
                    raise SnapshotRefused(f"it is the snapshot up to {meta.index} of term {meta.term}")
                machine = restored(self._disk, self._temporary, meta, self._machine_type)
            except CorruptSnapshot as error:
                raise SnapshotRefused(f"the snapshot came damaged: {error.what}") from None
            self._disk.rename(self._temporary, self._path)
            self._disk.sync_directory(self._directory)
        except BaseException:
            self.abandon()
            raise
        self._close()
        return meta, machine

    def abandon(self) -> None:
        """Stop receiving a snapshot and remove its unfinished file; do nothing if the snapshot is complete already."""
        if self._handle is None:
            self._handle = -1
        elif self._handle >= 0:
            self._close()
            with contextlib.suppress(OSError):
                self._disk.remove(self._temporary)

    def _open(self) -> int:
        """Return the descriptor of the file into which the snapshot is received.

        The file is created with its whole length before the first piece.
        """
        if self._handle is None:
            self._handle = self._disk.open(self._temporary, create=True)
            try:
                self._disk.preallocate(self._handle, self.total_bytes)
            except OSError:
                self.abandon()
                raise
        if self._handle < 0:
            raise SnapshotRefused("this snapshot is complete or was given up")
        return self._handle

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle is not None:
            self._disk.close(handle)
