"""Snapshots: written, damaged, sent, received, and built from the journal."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fakes.disk import FakeDisk
from fakes.journals import DIRECTORY, fill, open_journal

from cacheflow.errors import ConfigError, NewerCacheFlow
from cacheflow.machine import image
from cacheflow.machine.language.commands import CodecError
from cacheflow.machine.machine import CacheMachine
from cacheflow.raft.log.formats import encode_format
from cacheflow.raft.log.journal import CorruptJournal
from cacheflow.raft.snapshots import files, helper, receiver, storage
from cacheflow.raft.snapshots.files import (
    CorruptSnapshot,
    SnapshotMeta,
    load_newest,
    write_snapshot,
)
from cacheflow.raft.snapshots.receiver import SnapshotReceiver, SnapshotRefused

# The chunks of a FakeMachine, and what its snapshot says of itself.
CHUNKS = [(42).to_bytes(8, "little"), b"two" * 100, b"x"]
META = SnapshotMeta(42, 3, b"%016d" % 2, b"what comes next")


class FakeMachine:
    """Remembers what it applied."""

    def __init__(self) -> None:
        self.applied_index = 1
        self.payloads: list[bytes] = []

    @property
    def digest(self) -> bytes:
        return b"%016d" % len(self.payloads)

    def outlook(self) -> bytes:
        return b"what comes next"

    def apply(self, index: int, payload: bytes) -> None:
        assert index == self.applied_index + 1
        self.applied_index = index
        self.payloads.append(payload)

    def snapshot(self) -> Iterator[bytes]:
        yield self.applied_index.to_bytes(8, "little")
        yield from (b"p" + payload for payload in self.payloads)

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> FakeMachine:
        machine = cls()
        first, *rest = chunks
        machine.payloads = [chunk[1:] for chunk in rest]
        machine.applied_index = int.from_bytes(first, "little")
        return machine


def build(disk: FakeDisk, directory: Path, index: int, machine_type: Any = FakeMachine) -> SnapshotMeta:
    return helper.build(disk, directory, index, machine_type=machine_type)


def receiver_of(disk: FakeDisk, index: int, term: int, size: int, machine_type: Any = FakeMachine) -> SnapshotReceiver:
    return SnapshotReceiver(disk, DIRECTORY, index, term, size, machine_type)


def written(disk: FakeDisk, meta: SnapshotMeta = META) -> SnapshotMeta:
    return write_snapshot(disk, DIRECTORY, meta, CHUNKS)


def path_of(index: int) -> Path:
    return files.snapshot_path(DIRECTORY, index)


def loaded(disk: FakeDisk) -> tuple[SnapshotMeta, list[bytes]]:
    meta = load_newest(disk, DIRECTORY)
    assert meta is not None
    return meta, list(files.chunks_of(disk, path_of(meta.index)))


def test_a_snapshot_comes_back_as_it_was_written() -> None:
    disk = FakeDisk()
    assert load_newest(disk, DIRECTORY) is None
    meta = written(disk)
    assert meta == replace(META, bytes=disk.size(path_of(42)))
    disk.crash(Random(1))
    assert loaded(disk) == (meta, CHUNKS)
    assert disk.open_handles == 0


def test_empty_chunks_are_left_out_and_many_are_fine() -> None:
    disk = FakeDisk()
    write_snapshot(disk, DIRECTORY, META, [b"", b"a" * 700_000, b"", b"b" * 700_000])
    assert loaded(disk)[1] == [b"a" * 700_000, b"b" * 700_000]
    write_snapshot(disk, DIRECTORY, SnapshotMeta(43, 3), [])
    assert loaded(disk)[1] == []


def test_every_flipped_bit_and_every_cut_is_found() -> None:
    disk = FakeDisk()
    size = written(disk).bytes
    for offset in range(size):
        for bit in range(8):
            disk.contents(path_of(42))[offset] ^= 1 << bit
            with pytest.raises(CorruptSnapshot, match=r"snapshot-0+42\.cfs.*--seed"):
                load_newest(disk, DIRECTORY)
            disk.contents(path_of(42))[offset] ^= 1 << bit
    whole = bytes(disk.contents(path_of(42)))
    for length in range(size):
        disk.put(path_of(42), whole[:length])
        with pytest.raises(CorruptSnapshot):
            load_newest(disk, DIRECTORY)
    disk.put(path_of(42), whole + b"\0")
    with pytest.raises(CorruptSnapshot, match="end of the file"):
        load_newest(disk, DIRECTORY)


def test_a_damaged_newest_one_is_refused_although_an_older_one_is_whole() -> None:
    disk = FakeDisk()
    written(disk, SnapshotMeta(41, 3))
    written(disk)
    disk.contents(path_of(42))[50] ^= 1
    with pytest.raises(CorruptSnapshot):
        load_newest(disk, DIRECTORY)
    assert files.list_snapshots(disk, DIRECTORY) == [41, 42]


def test_a_renamed_snapshot_is_refused() -> None:
    disk = FakeDisk()
    written(disk)
    disk.rename(path_of(42), path_of(77))
    with pytest.raises(CorruptSnapshot, match="up to 42"):
        load_newest(disk, DIRECTORY)


def test_another_format_version_is_refused_by_number() -> None:
    disk = FakeDisk()
    written(disk)
    disk.contents(path_of(42))[6:8] = encode_format(9)
    with pytest.raises(
        NewerCacheFlow, match=r"snapshot-0+42\.cfs, was written by a newer CacheFlow \(format 9; .* knows 1\)"
    ):
        load_newest(disk, DIRECTORY)
    assert path_of(42) in disk._names


@pytest.mark.parametrize("operation", ["open", "write", "sync", "close", "rename", "sync_directory"])
def test_whatever_fails_the_one_before_is_loaded_and_no_leftover_stays(operation: str) -> None:
    for seed in range(20):
        disk = FakeDisk(sector_bytes=16)
        before = written(disk, SnapshotMeta(41, 3))
        disk.fail(operation, OSError(errno.EIO, "no"))
        with pytest.raises(OSError, match="no"):
            written(disk)
        disk.crash(Random(seed))
        assert loaded(disk)[0].index in ((41, 42) if operation == "sync_directory" else (41,))
        assert before.index == 41
        assert len(disk.list(DIRECTORY)) == 1


def test_chunks_that_raise_leave_nothing_behind() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("machine")

    disk = FakeDisk()
    with pytest.raises(ValueError, match="machine"):
        write_snapshot(disk, DIRECTORY, META, chunks())
    assert disk.list(DIRECTORY) == []


def test_older_ones_go_except_those_being_sent() -> None:
    disk = FakeDisk()
    for index in (10, 20, 30):
        written(disk, SnapshotMeta(index, 1))
    files.remove_older(disk, DIRECTORY, 30, sending=[10])
    assert files.list_snapshots(disk, DIRECTORY) == [10, 30]
    disk.put(path_of(31).with_suffix(".cfs.new"), b"x")
    disk.put(path_of(32).with_suffix(".cfs.part"), b"x")
    disk.put(DIRECTORY / "something.new", b"x")
    assert loaded(disk)[0].index == 30
    assert sorted(disk.list(DIRECTORY)) == [path_of(30).name, "something.new"]
    files.discard(disk, DIRECTORY, SnapshotMeta(30, 1))
    assert load_newest(disk, DIRECTORY) is None


# Sending and receiving.


def sent(disk: FakeDisk, meta: SnapshotMeta, length: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, meta.bytes, length):
        yield offset, files.read_piece(disk, DIRECTORY, meta, offset, length)


def test_a_snapshot_travels_in_pieces() -> None:
    disk, other = FakeDisk(), FakeDisk()
    meta = written(disk)
    receiver = receiver_of(other, 42, 3, meta.bytes)
    for offset, data in sent(disk, meta, 50):
        receiver.write(offset, data)
        assert load_newest(other.copy(), DIRECTORY) is None
    found, machine = receiver.finish()
    assert found == meta
    assert next(iter(machine.snapshot())) == CHUNKS[0]
    other.crash(Random(2))
    assert loaded(other) == (meta, CHUNKS)
    for late in (lambda: receiver.write(0, b"x"), receiver.finish):
        with pytest.raises(SnapshotRefused, match="complete"):
            late()
    receiver.abandon()
    assert other.list(DIRECTORY) == [path_of(42).name]


@pytest.mark.parametrize(("offset", "data"), [(1, b"x"), (0, b"x" * 10_000)], ids=["a gap", "too much"])
def test_what_does_not_fit_is_refused(offset: int, data: bytes) -> None:
    disk = FakeDisk()
    receiver = receiver_of(disk, 42, 3, 500)
    with pytest.raises(SnapshotRefused, match="do not follow"):
        receiver.write(offset, data)
    assert disk.list(DIRECTORY) == []
    assert disk.open_handles == 0


def test_a_snapshot_that_came_damaged_short_or_as_another_is_not_taken() -> None:
    disk = FakeDisk()
    meta = written(disk)
    whole = files.read_piece(disk, DIRECTORY, meta, 0, meta.bytes)
    damaged = whole[:60] + b"?" + whole[61:]
    for index, term, data, reason in (
        (42, 3, damaged, "damaged"),
        (43, 3, whole, "up to 42"),
        (42, 4, whole, "of term 3"),
        (42, 3, whole[:-1], "bytes are here"),
    ):
        other = FakeDisk()
        receiver = receiver_of(other, index, term, meta.bytes)
        receiver.write(0, data)
        with pytest.raises(SnapshotRefused, match=reason):
            receiver.finish()
        assert other.list(DIRECTORY) == []
        assert other.open_handles == 0


def test_a_receiver_without_space_says_so_at_the_first_piece_and_does_nothing_before() -> None:
    disk = FakeDisk(capacity_bytes=100)
    receiver = receiver_of(disk, 42, 3, 500)
    assert disk.list(DIRECTORY) == []
    with pytest.raises(OSError, match="space"):
        receiver.write(0, b"x")
    assert disk.list(DIRECTORY) == []


# Building.


def command(index: int) -> bytes:
    return [b"\x00regular%d", b"\x01", b"\x02members%d"][index % 3].replace(b"%d", b"%d" % index)


def payloads(first: int, last: int) -> list[bytes]:
    return [b"" if index % 3 == 1 else command(index)[1:] for index in range(first, last + 1)]


def test_building_is_applying_the_log_up_to_exactly_there() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 150, command=command)
    journal.deleteEntriesFrom(99)
    fill(journal, 120, term=2, command=command)
    meta = build(disk, DIRECTORY, 110)
    assert (meta.index, meta.term) == (110, 2)
    found, chunks = loaded(disk)
    assert found == meta
    assert FakeMachine.restore(chunks).payloads == payloads(2, 110)
    journal.trim(110)
    fill(journal, 300, term=3, command=command)
    # From the snapshot on, and the caller's bytes stay.
    again = build(disk, DIRECTORY, 300)
    assert (again.index, again.term, again.digest) == (300, 3, b"%016d" % 299)
    assert FakeMachine.restore(loaded(disk)[1]).payloads == payloads(2, 300)
    assert build(disk, DIRECTORY, 300) == again


def test_a_snapshot_that_cannot_be_built_leaves_the_old_one() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 20, command=command)
    build(disk, DIRECTORY, 10)
    with pytest.raises(CorruptJournal, match="asked for"):
        build(disk, DIRECTORY, 21)
    with pytest.raises(ConfigError, match="cannot be built on 10"):
        build(disk, DIRECTORY, 9)
    journal.install(40, 5)
    with pytest.raises(CorruptJournal):
        build(disk, DIRECTORY, 40)
    assert loaded(disk)[0].index == 10


def test_a_snapshot_of_another_history_is_not_built_upon() -> None:
    disk = FakeDisk()
    fill(open_journal(disk), 20, command=command)
    meta = build(disk, DIRECTORY, 10)
    write_snapshot(disk, DIRECTORY, replace(meta, term=9), files.chunks_of(disk, path_of(10)))
    with pytest.raises(CorruptJournal, match="term 9"):
        build(disk, DIRECTORY, 15)


class Unloadable(FakeMachine):
    """A machine whose snapshot nobody can load."""

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> FakeMachine:
        raise CodecError("not a snapshot: its end is missing")


@pytest.mark.parametrize("base", [None, 10])
def test_what_was_written_is_loaded_before_it_gets_its_name(monkeypatch: pytest.MonkeyPatch, base: int | None) -> None:
    disk = FakeDisk()
    fill(open_journal(disk), 20, command=command)
    if base is not None:
        build(disk, DIRECTORY, base)
    whole = FakeMachine.snapshot
    monkeypatch.setattr(FakeMachine, "snapshot", lambda machine: iter([*whole(machine), b"p"]))
    with pytest.raises(ConfigError, match="what was written could not be loaded: it holds other contents"):
        build(disk, DIRECTORY, 15)
    if base is None:
        with pytest.raises(ConfigError, match="could not be loaded: not a snapshot: its end is missing"):
            build(disk, DIRECTORY, 15, Unloadable)
    assert files.list_snapshots(disk, DIRECTORY) == ([] if base is None else [base])
    assert not [name for name in disk.list(DIRECTORY) if name.endswith(".new")]


def test_what_was_received_is_loaded_before_it_gets_its_name() -> None:
    source, disk = FakeDisk(), FakeDisk()
    meta = written(source)
    receiver = receiver_of(disk, 42, 3, meta.bytes, Unloadable)
    receiver.write(0, files.read_piece(source, DIRECTORY, meta, 0, meta.bytes))
    with pytest.raises(SnapshotRefused, match="its end is missing"):
        receiver.finish()
    assert disk.list(DIRECTORY) == []


def test_a_snapshot_that_cannot_be_loaded_is_named_at_the_start() -> None:
    disk = FakeDisk()
    written(disk)
    unloadable: Any = Unloadable
    with pytest.raises(CorruptSnapshot, match=r"snapshot-0+42\.cfs: not a snapshot.*--seed"):
        storage.load_machine(disk, DIRECTORY, unloadable)


@pytest.mark.parametrize("how", ["written", "received"])
def test_a_large_snapshot_is_flushed_on_the_way(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    for module in (files, receiver):
        monkeypatch.setattr(module, "FLUSH_BYTES", 2 << 20)
    source = FakeDisk()
    meta = write_snapshot(source, DIRECTORY, replace(META, digest=b"%016d" % 10), [CHUNKS[0], *([bytes(1 << 20)] * 10)])
    disk = source
    if how == "received":
        disk = FakeDisk()
        received = receiver_of(disk, META.index, META.term, meta.bytes)
        for offset in range(0, meta.bytes, 256 * 1024):
            received.write(offset, files.read_piece(source, DIRECTORY, meta, offset, 256 * 1024))
        received.finish()
    assert disk.counts["sync"] >= 5


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "input/output error")])
def test_no_room_and_no_reading_is_not_called_damage(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.undo()
    disk = FakeDisk()
    machine = CacheMachine()
    meta = SnapshotMeta(machine.applied_index, 1, machine.digest, machine.outlook())
    write_snapshot(disk, DIRECTORY, meta, machine.snapshot())

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(image, "_load_fields", fail)
    with pytest.raises(type(error)):
        files.restored(disk, path_of(meta.index), meta)
    with pytest.raises((ConfigError, OSError)) as caught:
        storage.load_machine(disk, DIRECTORY)
    assert "remove" not in str(caught.value).lower() and not isinstance(caught.value, CorruptSnapshot)
