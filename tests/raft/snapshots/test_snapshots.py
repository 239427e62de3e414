"""Snapshots: written, damaged, sent, received, and built from the journal."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
from fakes.disk import FakeDisk, inline
from fakes.journals import DIRECTORY, fill, open_journal

from cacheflow.errors import ConfigError
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.node.supervisor import Supervisor
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import CorruptJournal, Journal
from cacheflow.raft.snapshots import files, helper, receiver
from cacheflow.raft.snapshots.files import (
    CorruptSnapshot,
    SnapshotMeta,
    load_newest,
    write_snapshot,
)
from cacheflow.raft.snapshots.helper import HelperProcess, build
from cacheflow.raft.snapshots.receiver import SnapshotReceiver, SnapshotRefused

CHUNKS = [b"one", b"two" * 100, b"x"]
META = SnapshotMeta(42, 3, b"\x01" * 16)


class FakeMachine:
    """Remembers what it applied."""

    def __init__(self) -> None:
        self.applied_index = 1
        self.payloads: list[bytes] = []

    @property
    def digest(self) -> bytes:
        return b"%016d" % len(self.payloads)

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


@pytest.fixture(autouse=True)
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "CacheMachine", FakeMachine)


def written(disk: FakeDisk, meta: SnapshotMeta = META) -> SnapshotMeta:
    return write_snapshot(disk, DIRECTORY, meta, CHUNKS)


def path_of(index: int) -> Path:
    return files.snapshot_path(DIRECTORY, index)


def loaded(disk: FakeDisk) -> tuple[SnapshotMeta, list[bytes]]:
    found = load_newest(disk, DIRECTORY)
    assert found is not None
    return found[0], list(found[1])


def test_a_snapshot_comes_back_as_it_was_written() -> None:
    disk = FakeDisk()
    assert load_newest(disk, DIRECTORY) is None
    meta = written(disk)
    assert meta == SnapshotMeta(42, 3, b"\x01" * 16, disk.size(path_of(42)))
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
    disk.contents(path_of(42))[6] = 9
    with pytest.raises(CorruptSnapshot, match="format version 9"):
        load_newest(disk, DIRECTORY)


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
    receiver = SnapshotReceiver(other, DIRECTORY, 42, 3, meta.bytes)
    for offset, data in sent(disk, meta, 50):
        receiver.write(offset, data)
        assert load_newest(other.copy(), DIRECTORY) is None
    assert receiver.finish() == meta
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
    receiver = SnapshotReceiver(disk, DIRECTORY, 42, 3, 500)
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
        receiver = SnapshotReceiver(other, DIRECTORY, index, term, meta.bytes)
        receiver.write(0, data)
        with pytest.raises(SnapshotRefused, match=reason):
            receiver.finish()
        assert other.list(DIRECTORY) == []
        assert other.open_handles == 0


def test_a_receiver_without_space_says_so_at_once() -> None:
    disk = FakeDisk(capacity_bytes=100)
    with pytest.raises(OSError, match="space"):
        SnapshotReceiver(disk, DIRECTORY, 42, 3, 500)
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
    journal.add(b"\x07", 21, 1)
    with pytest.raises(ConfigError, match="kind 07"):
        build(disk, DIRECTORY, 21)
    journal.install(40, 5)
    with pytest.raises(CorruptJournal):
        build(disk, DIRECTORY, 40)
    assert loaded(disk)[0].index == 10


def test_a_snapshot_of_another_history_is_not_built_upon() -> None:
    disk = FakeDisk()
    fill(open_journal(disk), 20, command=command)
    meta = build(disk, DIRECTORY, 10)
    write_snapshot(disk, DIRECTORY, SnapshotMeta(10, 9, meta.digest), chunks=[(10).to_bytes(8, "little")])
    with pytest.raises(CorruptJournal, match="term 9"):
        build(disk, DIRECTORY, 15)


def cache_entry(index: int) -> bytes:
    block = commands.encode_block(0, 0, 0, [commands.set_(f"key{index % 50}", b"v%d" % index, 1, None, index * 10)])
    return b"\x00" + commands.encode_entry(1_000 + index, [block])


def test_the_helper_process_builds_what_the_machine_would_say(tmp_path: Path) -> None:
    journal = Journal.open(Disk(), tmp_path, submit=inline, segment_bytes=1 << 16, fsync="never")
    fill(journal, 400, command=cache_entry)
    machine = CacheMachine()
    for entry, index, _ in journal[1:350]:
        machine.apply(index, entry[1:])
    command_line = [sys.executable, "-m", "cacheflow.raft.snapshots.helper", str(tmp_path)]
    run = subprocess.run([*command_line, "350"], capture_output=True, text=True, timeout=30, check=True)
    report = json.loads(run.stdout)
    meta = SnapshotMeta.of(report)
    assert (meta.index, meta.term, meta.digest) == (350, 1, machine.digest)
    assert (tmp_path / f"snapshot-{350:020}.cfs").stat().st_size == report["bytes"]
    assert report["seconds"] >= 0
    found = load_newest(Disk(), tmp_path)
    assert found is not None
    assert CacheMachine.restore(found[1]).contents_digest() == machine.contents_digest()
    failed = subprocess.run([*command_line, "900"], capture_output=True, text=True, timeout=30, check=False)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert "900" in failed.stderr
    journal.close()


@pytest.mark.parametrize("what", ["there is no such program", "the helper fails"])
def test_a_helper_that_cannot_work_is_told_to_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "there is no such program":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))

    async def main() -> SnapshotMeta | BaseException:
        told: asyncio.Future[SnapshotMeta | BaseException] = asyncio.get_running_loop().create_future()
        HelperProcess(tmp_path, Supervisor(asyncio.get_running_loop()))(7, told.set_result)
        return await asyncio.wait_for(told, 30.0)

    outcome = asyncio.run(main())
    assert isinstance(outcome, FileNotFoundError if what == "there is no such program" else RuntimeError)


def test_a_node_that_stumbles_over_a_built_snapshot_is_not_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    told: list[object] = []

    def stumble(outcome: object) -> None:
        told.append(outcome)
        raise ValueError("stumbled")

    async def main() -> Supervisor:
        supervisor = Supervisor(asyncio.get_running_loop())
        HelperProcess(tmp_path, supervisor)(7, stumble)
        async with asyncio.timeout(30.0):
            while supervisor._tasks:
                await asyncio.sleep(0)
        return supervisor

    assert asyncio.run(main()).problems() == []
    assert len(told) == 1 and "could not be taken" in caplog.text


@pytest.mark.parametrize("how", ["written", "received"])
def test_a_large_snapshot_is_flushed_on_the_way(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    for module in (files, receiver):
        monkeypatch.setattr(module, "FLUSH_BYTES", 2 << 20)
    source = FakeDisk()
    meta = write_snapshot(source, DIRECTORY, META, [bytes(1 << 20)] * 10)
    disk = source
    if how == "received":
        disk = FakeDisk()
        received = SnapshotReceiver(disk, DIRECTORY, META.index, META.term, meta.bytes)
        for offset in range(0, meta.bytes, 256 * 1024):
            received.write(offset, files.read_piece(source, DIRECTORY, meta, offset, 256 * 1024))
        received.finish()
    assert disk.counts["sync"] >= 5
