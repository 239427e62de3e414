"""HelperProcess: starts the snapshot helper beside a node and reads its report."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cacheflow.errors import BadBackup, ConfigError, NewerCacheFlow, ValueTooLarge
from cacheflow.files.backup import BackupMeta
from cacheflow.raft.seams import Tasks
from cacheflow.raft.snapshots.files import SnapshotMeta
from cacheflow.raft.snapshots.helper import BUILD, STARVED

logger = logging.getLogger(__name__)

# A helper that takes longer hangs, and is ended: 100 GiB at 30 MiB/s.
BUILD_S_MAX: Final = 3600.0
# A digest of which nobody will hear is not made to its end.
DIGEST_S_MAX: Final = 60.0
_RUN_HELPER: Final = str(Path(__file__).with_name("run_helper.py"))
# The names of interpreters: a server with Python inside, as uWSGI, calls itself sys.executable and would start once more.
_INTERPRETER: Final = re.compile(r"(python|pypy)[0-9.]*[-a-z]*", re.IGNORECASE)


class HelperProcess:
    """Starts a new process for each snapshot, digest or backup of a node, which costs the node neither time nor memory."""

    def __init__(self, directory: Path, supervisor: Tasks) -> None:
        self._directory = directory
        self._supervisor = supervisor

    def __call__(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        """Start a helper process that builds the node's snapshot up to the log entry ``index``.

        done: called once, on the event loop, with the snapshot's description or an exception.
        """
        self._supervisor.start("the snapshot helper", lambda: self._run(index, done))

    async def _run(self, index: int, done: Callable[[SnapshotMeta | BaseException], None]) -> None:
        try:
            async with asyncio.timeout(BUILD_S_MAX):
                outcome: SnapshotMeta | BaseException = await self._build(index)
        except TimeoutError:
            outcome = RuntimeError(f"the helper took more than {BUILD_S_MAX:g} s and was ended")
        except Exception as error:
            outcome = error
        try:
            done(outcome)
        except Exception:  # it must not start the helper again
            logger.exception("what the snapshot helper has built could not be taken")

    async def _build(self, index: int) -> SnapshotMeta:
        report = await self._ask(index)
        try:
            meta = SnapshotMeta.of(report)
        except (KeyError, TypeError, ValueError):
            raise RuntimeError(f"the helper's report is none: {report}") from None
        if meta.index != index:
            raise RuntimeError(f"the helper was asked for {index} and has built {meta.index}")
        return meta

    async def digest(self, index: int) -> str:
        """Return the digest of the node's whole contents at the log entry ``index``.

        A helper process makes the digest from the node's files.

        index: that of an applied entry which is durable on this node. Raises RuntimeError, TimeoutError.
        """
        async with asyncio.timeout(DIGEST_S_MAX):
            report = await self._ask(index, "--digest")
        return str(report["digest"])

    async def backup(self, index: int, file: int) -> BackupMeta:
        """Have a helper process write a backup of the contents at the log entry ``index`` to a file; return its description.

        index: that of an applied entry which is durable on this node.  file: the open file's descriptor.
        Raises RuntimeError, TimeoutError.
        """
        async with asyncio.timeout(BUILD_S_MAX):
            return BackupMeta(**await self._ask(index, "--backup", file=file, gentle=True))

    async def check_backup(self, file: int, value_bytes_max: int, bytes_max: int | None) -> BackupMeta:
        """Have a helper process read and check the whole backup in a file; return the backup's description.

        file: the open file's descriptor.  value_bytes_max, bytes_max: the most bytes of one value, and of the whole cache,
        that the cluster allows. Raises BadBackup, ValueTooLarge, NewerCacheFlow, RuntimeError, TimeoutError.
        """
        async with asyncio.timeout(BUILD_S_MAX):
            report = await self._ask(0, "--check", str(value_bytes_max), str(bytes_max or 0), file=file, gentle=True)
        if "refused" in report:
            kind, why = report["refused"]
            raise {each.__name__: each for each in (BadBackup, ValueTooLarge, NewerCacheFlow)}[kind](why)
        return BackupMeta(**report)

    async def _ask(
        self, index: int, *options: str, file: int = asyncio.subprocess.DEVNULL, gentle: bool = False
    ) -> dict[str, Any]:
        """Have a helper process work on a node's contents at the log entry ``index``; return the JSON object that it prints.

        options: tell the process what to do, in place of a snapshot.  file: the descriptor for its standard input.
        gentle: a process that works for longer than a second takes only the processor time that no other process wants. If
        that is next to nothing, or it takes very long, it ends, and one of higher priority does the work. Not for what the
        node waits for: it may answer no reads meanwhile.
        """
        if gentle:
            report = await self._run_process(index, "--gentle", *options, file=file)
            if report != STARVED:
                return report
            logger.info("other processes left the helper no time: another one begins again with more precedence")
        return await self._run_process(index, *options, file=file)

    async def _run_process(self, index: int, *options: str, file: int) -> dict[str, Any]:
        """Run one helper process on a node's contents at the log entry ``index``, and return the JSON object that it prints."""
        process = await asyncio.create_subprocess_exec(
            *(find_interpreter(), "-I", _RUN_HELPER),
            *(os.pathsep.join(map(str, sys.path)), BUILD, str(self._directory), str(index), *options),
            stdin=file,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, complaint = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        # The report alone counts: in an application that reaps its children nobody learns how this one ended.
        try:
            report = json.loads(output.splitlines()[-1])
            if type(report["index"]) is not int:
                raise TypeError
        except (IndexError, KeyError, TypeError, ValueError):
            lines = (complaint or output).decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"the helper ended with {process.returncode}") from None
        return dict(report)


def find_interpreter() -> str:
    """Return the path of the Python interpreter that runs this process, or of an interpreter installed beside it.

    Raises ConfigError when there is none.
    """
    names = (f"python{sys.version_info.major}.{sys.version_info.minor}", "python3", "python")
    folders = (f"{sys.prefix}/bin", str(sysconfig.get_config_var("BINDIR")), f"{sys.base_prefix}/bin")
    installed = [f"{folder}/{name}" for folder in folders for name in names]
    for path in (sys.executable, getattr(sys, "_base_executable", None), *installed):
        if path and _INTERPRETER.fullmatch(Path(path).name) and os.access(path, os.X_OK):
            return path
    raise ConfigError(
        f"there is no Python to run the snapshot helper: sys.executable is {sys.executable!r}, and there is none in "
        + ", ".join(folders)
    )
