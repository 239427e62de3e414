"""Backups: a copy of this node's contents as a file, and a file's contents in the place of the cluster's.

A backup is made by the snapshot helper from this node's snapshot and journal, at an entry that is applied here; the node writes
on. A file that comes in is checked by the helper, all of it, before anything is changed; the restore is commands of bounded size.
Files are on the node's own disk, without a name, so that nothing of them is left behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from cacheflow.config import NodeConfig
from cacheflow.contract import Outcome
from cacheflow.errors import (
    ConfigError,
    InvalidRequest,
    NoRoom,
    NotCommitted,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    ReplicationError,
    RestoreConflict,
)
from cacheflow.files.backup import BackupMeta, opened
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command, Result
from cacheflow.machine.state.restore import Restore
from cacheflow.node.engine import Engine
from cacheflow.node.restoring import steps
from cacheflow.node.status import DURABLE_WITHIN_S, WAIT_STEP_S
from cacheflow.raft.snapshots.helper_process import BUILD_S_MAX

logger = logging.getLogger(__name__)

# Tries to make a backup: a snapshot that was taken meanwhile may have removed what the helper reads.
TRIES: Final = 3
# Seconds without any progress after which a restore gives up: several elections.
PATIENCE_S: Final = 60.0
# Seconds between two tries of one step.
AGAIN_S: Final = 0.2
# Bytes of the disk that no backup takes: the journal needs them.
KEPT_FREE_BYTES: Final = 256 * 1024 * 1024


class Backups:
    """Makes backups of a running node's contents, and restores the cluster's contents from backups.

    Any thread may call the methods, which block.
    """

    def __init__(self, engine: Engine, config: NodeConfig) -> None:
        self._engine = engine
        self._config = config
        # One at a time: each is a process with all of the contents in memory.
        self._one = threading.Lock()

    def new_file(self) -> BinaryIO:
        """Return a new temporary file without a name on this node's disk. Raises NotReady if the node was never started."""
        return tempfile.TemporaryFile(dir=self._engine.data_path)

    def room(self) -> int:
        """Return how many bytes a new file may have so that this node's disk keeps enough free space."""
        return max(0, shutil.disk_usage(self._engine.data_path).free - KEPT_FREE_BYTES)

    def take(self) -> tuple[BinaryIO, BackupMeta]:
        """Return a file that holds a backup of this node's contents, and its description.

        Raises NotReady, Overloaded (another backup is being made), NoRoom.
        """
        if not self._one.acquire(blocking=False):
            raise Overloaded("another backup or restore is under way on this node", 5.0)
        try:
            if not self._engine.running:
                raise NotReady(self._engine.stopped)
            local = self._engine.local
            if not local.may_read:
                raise NotReady("this node's contents are not complete: it has not caught up, or a restore is under way")
            needed = local.machine.contents.bytes_used
            if needed > (room := self.room()):
                raise NoRoom(f"a backup takes about {needed} bytes, and this node's disk has {room} to spare")
            file = self.new_file()
            try:
                meta = self._engine.run(self._written(file), timeout_s=BUILD_S_MAX * TRIES)
                file.seek(0)
            except BaseException:
                file.close()
                raise
            return file, meta
        finally:
            self._one.release()

    async def _written(self, file: BinaryIO) -> BackupMeta:
        node = self._engine.local.node
        last: BaseException | None = None
        for _ in range(TRIES):
            index = node.last_applied
            try:
                async with asyncio.timeout(DURABLE_WITHIN_S):
                    while node.durable_index < index:
                        await asyncio.sleep(WAIT_STEP_S)
                return await self._engine.helper.backup(index, file.fileno())
            except (ConfigError, OSError, RuntimeError) as error:
                last = error
        raise NotReady(f"no backup could be made: {last or type(last).__name__}", 5.0)

    def begin_with(self, path: Path) -> None:
        """Restore the backup in the file ``path`` if this start of the node has founded the cluster, or a restore is open.

        A restore is open if it was begun and not ended. Raises ConfigError for a file that cannot be read or is refused.
        """
        local = self._engine.local
        unfinished = self.latest is not None and not self.latest.ended
        if not local.joining.has_founded and not unfinished:
            logger.info("there is data already: %s is not restored", path)
            return
        try:
            with path.open("rb") as file:
                self.restore(file)
        except (OSError, InvalidRequest, RestoreConflict) as error:
            raise ConfigError(f"restore = {str(path)!r}: {error}") from None

    def check(self, file: BinaryIO) -> BackupMeta:
        """Read the whole backup in ``file`` and return its description.

        Raises BadBackup, ValueTooLarge, NewerCacheFlow, NotReady.
        """
        file.flush()
        bytes_max = self._engine.local.machine.settings.max_bytes
        work = self._engine.helper.check_backup(file.fileno(), self._engine.value_bytes_max, bytes_max)
        try:
            return self._engine.run(work, timeout_s=BUILD_S_MAX)
        except (OSError, RuntimeError) as error:
            raise NotReady(f"the backup could not be checked: {error or type(error).__name__}", 5.0) from None

    def restore(self, file: BinaryIO, *, online: bool = False) -> tuple[BackupMeta, int]:
        """Replace the cluster's contents by the backup in ``file``; return the backup's description and the new revision.

        online: whether the nodes serve clients meanwhile, who see a part of the contents.
        Raises BadBackup, ValueTooLarge, NewerCacheFlow, NotReady, Overloaded or NotCommitted with nothing changed;
        RestoreConflict; OutcomeUnknown (the restore may have begun and is not done: the message says how far it is, and
        the restore can be repeated).
        """
        if not self._one.acquire(blocking=False):
            raise Overloaded("another backup or restore is under way on this node", 5.0)
        try:
            if not self._engine.running:
                raise NotReady(self._engine.stopped)
            meta = self.check(file)
            logger.info("a backup of %d items is being restored, made of cluster %s", meta.items, meta.cluster_id)
            _, items = opened(file)
            latest = self.latest
            going = steps(os.urandom(8).hex(), "" if latest is None else latest.id, meta, items, online)
            command = next(going)
            while True:
                try:
                    command = going.send(self._step(command, meta))
                except StopIteration as end:
                    return meta, end.value
        finally:
            self._one.release()

    def _step(self, command: Command, meta: BackupMeta) -> Result:
        deadline = time.monotonic() + PATIENCE_S
        unknown = False
        while True:
            try:
                return self._run([command])[0]
            except ReplicationError as error:
                unknown = unknown or not isinstance(error, NotCommitted)
                if time.monotonic() >= deadline or not self._engine.running:
                    if command[0] == commands.RESTORE_BEGIN and not unknown:
                        raise
                    done = command[2] if command[0] == commands.RESTORE_ITEMS else 0
                    raise OutcomeUnknown(
                        f"the restore is interrupted after {done} of {meta.items} items; repeat it: {error}"
                    ) from None
            time.sleep(AGAIN_S)

    def _run(self, commands_: list[Command]) -> list[Result]:
        """Replicate ``commands_``, whether or not clients are served, and return the results of these commands."""
        outcome: list[Outcome] = []
        answered = threading.Event()

        def done(result: Outcome) -> Callable[[], None]:
            outcome.append(result)
            return answered.set

        self._engine.local.inbox.submit(commands_, done)
        # The loop ends every proposal at its deadline; the margin is for a loop that has died.
        if not answered.wait(self._config.request_timeout_s + 5.0):
            raise OutcomeUnknown("this node's loop does not answer")
        if isinstance(outcome[0], ReplicationError):
            raise outcome[0]
        return outcome[0]

    def give_up(self) -> bool:
        """End the restore of a backup that is under way and keep the items that have come; return False if there is none."""
        restore = self.latest
        if restore is None or restore.ended:
            return False
        [result] = self._run([commands.restore_end(restore.id, given_up=True)])
        return bool(result[0] == commands.OK)

    @property
    def latest(self) -> Restore | None:
        """The restore of a backup that was begun last in this cluster, as far as this node has applied the log; else None."""
        return self._engine.local.machine.restoring
