"""Reading the journal's entries from its files: while the process that writes them goes on, or when no process does.

The reader sees the files as they are at one moment. Of a living journal it stops at the first record that is not whole yet, and
takes truncations into account that come later in the stream. Nothing is written, cut or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.records import CorruptJournal, LogEntry, LogState, Record, Replay
from cacheflow.raft.log.segments import SegmentReader, list_segments

V = TypeVar("V")
# (file, first byte, end) of a command.
_Place = tuple[Path, int, int]


def read_entries(
    disk: Disk, directory: Path, after_index: int, to_index: int, *, after_term: int | None = None, group: int = 0
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (command, index, term) of the log entries behind ``after_index`` up to ``to_index``, from the journal's files.

    Only call it for a ``to_index`` that is committed and at most the journal's ``durable_index``: an entry may still be
    replaced in memory while the files show the old one.
    after_term: the term that the entry at ``after_index`` must have.
    Raises CorruptJournal if any of the entries is missing; OSError, also when the journal's owner removes files
    meanwhile.
    """
    log = _places(disk, directory, group)
    if not log or log[0][1] > after_index or log[-1][1] < to_index:
        holds = f"entries behind {log[0][1]} up to {log[-1][1]}" if log else "no entries"
        raise CorruptJournal(directory, 0, f"it holds {holds}; {after_index + 1} to {to_index} are asked for")
    first_index = log[0][1]
    if after_term is not None and log[after_index - first_index][2] != after_term:
        raise CorruptJournal(directory, 0, f"entry {after_index} is not of the snapshot's term {after_term}")
    data, data_path = b"", None
    for (path, begin, end), index, term in log[after_index + 1 - first_index : to_index + 1 - first_index]:
        if path != data_path:
            data, data_path = disk.read(path), path
        yield data[begin:end], index, term


def read_log(disk: Disk, directory: Path, *, group: int = 0) -> tuple[LogState, list[LogEntry]]:
    """Return the state and the entries of a log, as the node's next start will find them in the journal on disk.

    No process may have that journal open. Raises CorruptJournal for a damaged journal, NewerCacheFlow, OSError.
    """
    return _read(disk, directory, group, lambda _, record: record.payload, b"", at_rest=True)


def flush_log(disk: Disk, directory: Path) -> None:
    """Make durable what is in the files of a journal that no process has open. Raises OSError.

    A process that was killed may have left a part of it in the system's memory only, and a loss of power would lose that.
    """
    for _, path in list_segments(disk, directory):
        handle = disk.open(path)
        try:
            disk.sync(handle)
        finally:
            disk.close(handle)
    disk.sync_directory(directory)


def _places(disk: Disk, directory: Path, group: int) -> list[tuple[_Place, int, int]]:
    """Return (place, index, term) of each log entry in the journal's files; place: (path, first byte, end) of its command."""

    def place(path: Path, record: Record) -> _Place:
        return path, record.end - len(record.payload), record.end

    return _read(disk, directory, group, place, (directory, 0, 0), at_rest=False)[1]


def _read(
    disk: Disk, directory: Path, group: int, value_of: Callable[[Path, Record], V], nothing: V, *, at_rest: bool
) -> tuple[LogState, list[tuple[V, int, int]]]:
    """Return the log's state and its entries as (value, index, term), read from the journal's files.

    value_of: called with a file's path and an entry's record in that file; returns the entry's value.  nothing: the value of
    the log's first element if that is no entry and only says where the log begins.
    at_rest: no process writes the files, so that what is missing in them is damage.
    """
    segments = list_segments(disk, directory)
    state = LogState()
    if not segments:
        return state, []
    path = first_path = segments[0][1]
    replay: Replay[V] | None = None
    check = b""

    def value(record: Record) -> V:
        return value_of(path, record)

    for sequence, path in segments:
        reader = SegmentReader(path, disk.read(path), sequence, group)
        if replay is None:
            state = reader.header.state
            replay = Replay(state, value, nothing)
        elif reader.chain_before != check[:4]:
            raise CorruptJournal(path, 0, "does not continue the segment before it")
        for record in reader.records():
            replay.feed(path, record)
            state.note(record.kind, record.index, record.term, record.payload)
        if at_rest:
            reader.judge(last=path == segments[-1][1])
        check = reader.check
    assert replay is not None
    replay.finish(first_path)
    return state, replay.entries
