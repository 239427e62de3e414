"""DataDirectory: the folder that one node at a time uses, and that keeps who the node is.

``lock`` is held as long as the node runs. ``identity`` keeps the node id and the *incarnation*, which is new whenever
the journal is: a node that lost its memory is another member, whose votes do not count for the one before. It also counts
the starts that found a journal or made one: when it is gone later, somebody has lost it, and no node starts there. A check over
its members shows damage, for an incarnation that has changed unnoticed would be somebody else's. ``removed``
says that the cluster has removed that member, or was replaced, so that the member must not come back by itself; beside a
``departure`` (``departure.py``) it had left by itself, and its node comes back as another member. ``recovery`` says which cluster
the node belongs to from its next start on (``membership/recovery.py``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cacheflow.errors import ConfigError
from cacheflow.raft.log import departure
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.documents import read_document, write_document, write_text

logger = logging.getLogger(__name__)

# The format of the file ``identity``, and the last one that had no check.
FORMAT_VERSION: Final = 2
_UNCHECKED: Final = 1
# Free space that a new node needs: two segments of the journal. With less it could not start or would stop soon.
FREE_BYTES_MIN: Final = 32 * 1024 * 1024
# The folder in memory for ephemeral directories, and the free space that it must have: snapshots and journal go there,
# too. With less the disk is used instead.
_SHARED_MEMORY: Final = Path("/dev/shm")
_SHARED_MEMORY_FREE_MIN: Final = 256 * 1024 * 1024

_LOCK = "lock"
_IDENTITY = "identity"
_REMOVED = "removed"
# What ``cacheflow recover`` leaves behind for the node's next start.
RECOVERY: Final = "recovery"
# The names of this program's files, also of unfinished ones.
_OWN = re.compile(r"(lock|identity|removed|departure|recovery|journal-\d+\.cfj|snapshot-\d+\.cfs)(\.new|\.part)?")
_INCARNATION = re.compile(r"[0-9a-f]{16}")
_EPHEMERAL = re.compile(r"cacheflow-\d+-[0-9a-f]{16}")


class DataDirectory:
    """A node's data directory, which this process holds locked until ``close``; also a context manager.

    path, node_id, incarnation: the folder, and the node's id and incarnation that are kept there or were made for a new
    node.
    starts: how many times a node has started with this directory; ``note_start`` counts that and writes it there.

    to_start: whether a node is to start with the directory. Only then the old data of a member that has left its cluster by
    its own wish is removed.

    ``ephemeral`` makes a directory in memory that ``close`` removes, with a new incarnation every time, and removes such
    directories that dead processes left. Raises ConfigError if the directory is in use, belongs to another node or to one
    that the cluster removed, is damaged, lacks the journal that it had, is not writable, or is full.
    """

    def __init__(
        self,
        path: Path,
        *,
        node_id: str | None = None,
        ephemeral: bool = False,
        to_start: bool = True,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._random_bytes = random_bytes
        self._ephemeral = ephemeral
        self._to_start = to_start
        # The descriptor that holds the lock; -1 when none does.
        self.lock = -1
        try:
            self.path = self._make_ephemeral() if ephemeral else self._make(path)
        except OSError as error:
            raise ConfigError(f"data directory {path}: {_reason(error)}; give another --data-dir") from None
        try:
            self.node_id, self.incarnation, self.starts = self._identify(node_id)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"data directory {self.path}: {_reason(error)}; make room or give another --data-dir"
            ) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the data directory's lock, and remove the directory if it is ephemeral."""
        if self.lock >= 0:
            if self._ephemeral:
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(self.lock)
            self.lock = -1

    def note_start(self) -> None:
        """Add one to the number of the node's starts in the data directory, durably. Raises ConfigError.

        Called in each start once the node's journal exists.
        """
        self.starts += 1
        try:
            self._write_identity(self.node_id, self.incarnation, self.starts)
        except OSError as error:
            raise ConfigError(f"data directory {self.path}: {_reason(error)}; make room") from None

    def note_removed(self, reason: str) -> None:
        """Write into the data directory that its node is no member any more, and the ``reason``: no node starts there again."""
        try:
            write_text(Disk(), self.path / _REMOVED, f"{reason}\n")
        except OSError as error:
            # The next start learns it from the members.
            logger.warning("%s: this cannot be noted in %s: %s", reason, self.path, _reason(error))

    def __enter__(self) -> DataDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, path: Path) -> Path:
        path = path.absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in path.iterdir():
            # Opening a FIFO would wait for ever, and a link leads to a file of somebody else's.
            if _OWN.fullmatch(file.name) and not stat.S_ISREG(file.lstat().st_mode):
                raise ConfigError(f"{file} is no regular file; remove it, or give another --data-dir")
        lock = _take_lock(path)
        if lock < 0:
            owner = (path / _LOCK).read_text(errors="replace").strip() or "unknown"
            raise ConfigError(f"data directory {path} is in use by process {owner}; stop it or give another --data-dir")
        self.lock = lock
        return path

    def _make_ephemeral(self) -> Path:
        base = _memory()
        for name in os.listdir(base):  # noqa: PTH208 - names, not paths
            if _EPHEMERAL.fullmatch(name):
                _remove_if_dead(base / name)
        while True:
            path = base / f"cacheflow-{os.getpid()}-{self._random_bytes(8).hex()}"
            path.mkdir(mode=0o700)
            try:
                self.lock = _take_lock(path)
            except FileNotFoundError:
                continue  # another node that starts now took it for a leftover
            if self.lock >= 0:
                return path

    def _identify(self, node_id: str | None) -> tuple[str, str, int]:
        """Return the node's (id, incarnation, number of starts), read from the data directory or made for a new node.

        node_id: the id that the directory must have; None accepts any. Raises ConfigError.
        """
        disk = Disk()
        file = self.path / _IDENTITY
        names = disk.list(self.path)
        has_journal = any(name.startswith("journal-") and name.endswith(".cfj") for name in names)
        has_snapshot = any(name.startswith("snapshot-") and name.endswith(".cfs") for name in names)
        rejoin = f"remove {self.path} and start again with --seed: the node rejoins as a new member"
        if _REMOVED in names:
            if not self._begins_anew(names, node_id, rejoin):
                reason = (self.path / _REMOVED).read_text(errors="replace").strip()
                raise ConfigError(f"data directory {self.path}: {reason}; to use it again, {rejoin}")
            self._begin_anew(disk, rejoin)
            names, has_journal, has_snapshot = disk.list(self.path), False, False
        if has_snapshot and not has_journal:
            raise ConfigError(f"data directory {self.path} has a snapshot and no journal; {rejoin}")
        if _IDENTITY in names:
            known_id, incarnation, starts = _read_identity(file, rejoin)
            if node_id not in (None, known_id):
                raise ConfigError(
                    f"data directory {self.path} belongs to node {known_id}, not {node_id}; give --node-id {known_id}, "
                    "or another --data-dir"
                )
            if has_journal:
                return known_id, incarnation, starts
            if starts:
                raise ConfigError(f"data directory {self.path} is that of node {known_id} and has no journal; {rejoin}")
            node_id = known_id
        elif has_journal:
            raise ConfigError(f"data directory {self.path} has a journal and no file {_IDENTITY}; {rejoin}")
        if disk.free_bytes(self.path) < FREE_BYTES_MIN:
            free, needed = disk.free_bytes(self.path) >> 20, FREE_BYTES_MIN >> 20
            raise ConfigError(
                f"data directory {self.path}: {free} MiB are free and {needed} are needed; make room "
                "or give another --data-dir"
            )
        node_id = node_id or str(uuid.UUID(bytes=self._random_bytes(16), version=4))
        incarnation = self._random_bytes(8).hex()
        self._write_identity(node_id, incarnation, 0)
        return node_id, incarnation, 0

    def _begins_anew(self, names: list[str], node_id: str | None, rejoin: str) -> bool:
        """Return whether the member whose data is in the directory has left by its own wish: its node begins as a new member.

        names: the files in the directory.  node_id: the id that the node must have, None for any. Raises ConfigError, OSError.
        """
        if not self._to_start or _IDENTITY not in names:
            return False
        known_id, incarnation, _ = _read_identity(self.path / _IDENTITY, rejoin)
        return node_id in (None, known_id) and departure.has_left(Disk(), self.path, incarnation)

    def _begin_anew(self, disk: Disk, rejoin: str) -> None:
        """Empty the data directory of a member that has left its cluster: its node joins as a new member. Raises OSError."""
        node_id, incarnation, _ = _read_identity(self.path / _IDENTITY, rejoin)
        logger.info("node %s had left its cluster: its old data is removed, and it joins anew", node_id)
        # In this order, so that whatever is interrupted is done again: first the identity expects no journal, and only what has
        # none any more may lose the mark.
        self._write_identity(node_id, incarnation, 0)
        departure.empty(disk, self.path)
        disk.remove(self.path / _REMOVED)
        disk.sync_directory(self.path)

    def _write_identity(self, node_id: str, incarnation: str, starts: int) -> None:
        identity = {
            "format_version": FORMAT_VERSION,
            "node_id": node_id,
            "incarnation": incarnation,
            "starts": starts,
        }
        write_document(Disk(), self.path / _IDENTITY, identity)


def _read_identity(file: Path, rejoin: str) -> tuple[str, str, int]:
    try:
        identity = read_document(Disk(), file, FORMAT_VERSION, _UNCHECKED)
        node_id, incarnation = identity["node_id"], identity["incarnation"]
    except (ValueError, KeyError):
        raise ConfigError(f"{file} is unreadable; {rejoin}") from None
    # Starts were not counted once.
    starts = identity.get("starts", 1)
    if (
        type(node_id) is not str
        or not node_id
        or type(incarnation) is not str
        or not _INCARNATION.fullmatch(incarnation)
        or type(starts) is not int
        or starts < 0
    ):
        raise ConfigError(f"{file} is unreadable; {rejoin}")
    return node_id, incarnation, starts


def _take_lock(directory: Path) -> int:
    """Lock the data directory and return the file descriptor that holds the lock; -1 when another process holds it.

    The lock file gets this process's id. Raises OSError; FileNotFoundError also when the directory was removed meanwhile.
    """
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino != (directory / _LOCK).stat().st_ino:
            raise FileNotFoundError(errno.ENOENT, "removed by another process", str(directory))
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        os.close(handle)
        return -1
    except BaseException:
        os.close(handle)
        raise
    return handle


def _memory() -> Path:
    """Return the parent folder for ephemeral data directories: in memory if it has room, else the temporary folder."""
    with contextlib.suppress(OSError):
        writable = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        if writable and shutil.disk_usage(_SHARED_MEMORY).free >= _SHARED_MEMORY_FREE_MIN:
            return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _remove_if_dead(path: Path) -> None:
    """Remove the ephemeral data directory ``path`` if it is this user's and no process holds its lock."""
    try:
        if path.is_symlink() or path.stat().st_uid != os.getuid():
            return
        lock = _take_lock(path)
    except OSError:  # gone meanwhile, or not a directory
        return
    if lock >= 0:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
