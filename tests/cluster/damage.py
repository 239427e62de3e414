"""Damage to a node's disk: a flipped bit while it is down, a lost file, no room."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

from cluster.processes import NodeProcess

DISK_MIB = 200
# In a journal's tail nobody can tell damage from a write that the crash has torn; this far in front all is whole.
TAIL_BYTES = 1_000_000
HEADER_BYTES = 32


def damage(data_dir: Path, random: Random) -> str:
    """Damage a file of a node that is down, so that it must not start; return what was done."""
    journal = max(data_dir.glob("journal-*.cfj"), key=_written)
    snapshots = sorted(data_dir.glob("snapshot-*.cfs"))
    choice = random.random()
    if choice < 0.2:
        (data_dir / "identity").unlink()
        return "identity removed"
    if choice < 0.4 and snapshots:
        return _flip(snapshots[-1], random, snapshots[-1].stat().st_size)
    return _flip(journal, random, max(_written(journal) - TAIL_BYTES, 2_000))


def empty(data_dir: Path) -> None:
    """Remove everything in a node's directory, but not the directory."""
    for path in data_dir.iterdir():
        path.unlink()


def _written(journal: Path) -> int:
    """Return the number of bytes in front of the zeros that are reserved for later records."""
    return len(journal.read_bytes().rstrip(b"\0"))


def _flip(file: Path, random: Random, end: int) -> str:
    position, bit = random.randrange(HEADER_BYTES, end), random.randrange(8)
    with file.open("r+b") as opened:
        opened.seek(position)
        (byte,) = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 1 << bit]))
    return f"bit {bit} of byte {position} of {file.name} flipped"


class SmallDisk:
    """A node's own small file system, in memory. Making one needs root."""

    def __init__(self, node: NodeProcess) -> None:
        """Mount the file system before the node starts for the first time. Raises OSError where it cannot be mounted."""
        self.node = node
        node.data_dir.mkdir(parents=True)
        mount = shutil.which("mount")
        command = [mount or "mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(node.data_dir)]
        if mount is None or subprocess.run(command, capture_output=True).returncode:
            node.data_dir.rmdir()
            raise OSError("a small file system cannot be mounted here")

    @contextlib.contextmanager
    def filled(self) -> Iterator[None]:
        """Leave not a byte free while the context is open."""
        filler = self.node.data_dir / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            yield
        finally:
            filler.unlink()

    def close(self) -> None:
        """Unmount the file system of a node that has ended."""
        subprocess.run(["umount", "-l", str(self.node.data_dir)], check=False, capture_output=True)
