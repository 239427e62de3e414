"""The journal on a disk that forgets, tears, breaks and lies."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgpack
import pytest
from fakes.disk import FakeDisk, StepWriter
from fakes.journals import DIRECTORY, State, fill, open_journal, segments, state_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheflow.errors import NewerCacheFlow
from cacheflow.raft.log.formats import FORMAT_BYTES, encode_format
from cacheflow.raft.log.journal import CorruptJournal, Journal
from cacheflow.raft.log.records import CLUSTER, MAGIC, RECORD_BYTES, Header, LogState

# More of them by hand: CACHEFLOW_SEEDS=5000.
SEEDS = int(os.environ.get("CACHEFLOW_SEEDS", "300"))


def path_of(disk: FakeDisk, position: int) -> Path:
    return DIRECTORY / segments(disk)[position]


def used_bytes(disk: FakeDisk, path: Path) -> int:
    return len(bytes(disk.contents(path)).rstrip(b"\0"))


def small_journal(segment_bytes: int = 1300) -> tuple[FakeDisk, Journal]:
    """Two segments with every kind of record, marked."""
    disk = FakeDisk(sector_bytes=16)
    journal = open_journal(disk, segment_bytes=segment_bytes)
    fill(journal, 3)
    journal.setCurrentTerm(2, "n1")
    journal.note_clock(7, 8)
    fill(journal, 6, term=2)
    journal.deleteEntriesFrom(4)
    fill(journal, 7, term=3)
    journal.trim(2)
    fill(journal, 12, term=3)
    journal.onOneSecondTimer()
    disk.stop()
    return disk, journal


def outcome(disk: FakeDisk) -> State | str:
    try:
        return state_of(open_journal(disk))
    except CorruptJournal as error:
        return str(error)


def test_every_flipped_bit_is_found_or_harmless() -> None:
    disk, journal = small_journal()
    expected = state_of(journal)
    names = segments(disk)
    assert len(names) == 2
    refused = harmless = 0
    for name in names:
        path = DIRECTORY / name
        used = used_bytes(disk, path)
        offsets = [*range(used), *range(used, disk.size(path), 29)]
        for offset in offsets:
            for bit in range(8) if offset < used else (offset % 8,):
                damaged = disk.copy()
                damaged.contents(path)[offset] ^= 1 << bit
                loaded = outcome(damaged)
                if isinstance(loaded, str):
                    assert str(path) in loaded or "segment" in loaded
                    refused += 1
                else:
                    assert loaded == expected, f"{name}: byte {offset}, bit {bit}"
                    # Only behind the last promise: the mark or the seal itself and the free tail.
                    assert offset >= used - RECORD_BYTES
                    harmless += 1
    assert refused > 5000
    assert harmless > 100


def test_damage_to_a_batch_that_nothing_vouches_for_yet_cuts_at_most_that_batch() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 5)
    before = used_bytes(disk, path_of(disk, 0))
    fill(journal, 6)
    after = used_bytes(disk, path_of(disk, 0))
    for offset in range(before, after):
        damaged = disk.copy()
        damaged.contents(path_of(disk, 0))[offset] ^= 1
        loaded = outcome(damaged)
        assert loaded == ((*journal[:5],), 0, None)


def test_a_file_cut_anywhere_is_refused() -> None:
    disk, _ = small_journal()
    for name in segments(disk):
        path = DIRECTORY / name
        for length in range(disk.size(path)):
            damaged = disk.copy()
            del damaged.contents(path)[length:]
            loaded = outcome(damaged)
            assert isinstance(loaded, str)
            assert str(path) in loaded or "segment" in loaded


def test_a_tail_lost_anywhere_behind_the_last_flush_is_cut_and_what_was_flushed_is_there() -> None:
    disk, turns = FakeDisk(), deque[Callable[[], None]]()
    journal = open_journal(disk, segment_bytes=4096, defer=turns.append)
    fill(journal, 5)
    turns.pop()()
    synced = used_bytes(disk, path_of(disk, 0))
    disk.fail("sync", OSError("power"))
    fill(journal, 12, command=lambda index: b"%d" % index * 3)
    turns.pop()()
    path = path_of(disk, 0)
    used = used_bytes(disk, path)
    entries = tuple(journal[:])
    lengths = set()
    for begin in range(synced, used):
        # The first lost byte, and whether everything behind it is lost too.
        for end in {used, begin + 1, begin + 16}:
            torn = disk.copy()
            torn.contents(path)[begin:end] = bytes(len(torn.contents(path)[begin:end]))
            loaded = outcome(torn)
            assert not isinstance(loaded, str), loaded
            assert loaded[0] == entries[: len(loaded[0])]
            assert len(loaded[0]) >= 5
            lengths.add(len(loaded[0]))
            # The cut is durable, and the next record is as good as any.
            again = open_journal(torn)
            fill(again, again.last_index + 2, term=9)
            torn.stop()
            assert outcome(torn) == state_of(again)
    assert len(lengths) > 5


def test_what_was_cut_does_not_come_back_when_the_same_entry_is_appended_again() -> None:
    disk, turns = FakeDisk(), deque[Callable[[], None]]()
    journal = open_journal(disk, segment_bytes=4096, defer=turns.append)
    fill(journal, 5)
    turns.pop()()
    hole = used_bytes(disk, path_of(disk, 0))
    disk.fail("sync", OSError("power"))
    fill(journal, 8)
    turns.pop()()
    disk.contents(path_of(disk, 0))[hole] ^= 1
    disk.stop()
    again = open_journal(disk)
    assert again.last_index == 5
    fill(again, 6)
    disk.stop()
    assert open_journal(disk).last_index == 6


def test_a_mark_that_was_lost_is_a_torn_tail_whatever_follows_it() -> None:
    disk = FakeDisk()
    journal = open_journal(disk, segment_bytes=4096)
    fill(journal, 5)
    begin = used_bytes(disk, path_of(disk, 0))
    journal.onOneSecondTimer()
    assert used_bytes(disk, path_of(disk, 0)) > begin
    disk.fail("sync", OSError("power"))
    fill(journal, 6)
    disk.contents(path_of(disk, 0))[begin : begin + RECORD_BYTES] = bytes(RECORD_BYTES)
    disk.stop()
    assert open_journal(disk).last_index == 5


def test_a_hole_in_front_of_what_a_later_flush_vouches_for_is_damage() -> None:
    disk = FakeDisk()
    journal = open_journal(disk, segment_bytes=4096)
    fill(journal, 12)
    path = path_of(disk, 0)
    used = used_bytes(disk, path)
    for offset in range(0, used - RECORD_BYTES * 2, 16):
        damaged = disk.copy()
        if any(damaged.contents(path)[offset : offset + 16]):
            damaged.contents(path)[offset : offset + 16] = bytes(16)
            assert isinstance(outcome(damaged), str), offset


def test_missing_and_foreign_segments_are_refused_by_name() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 200)
    names = segments(disk)
    assert len(names) > 4
    for position, name in enumerate(names):
        damaged = disk.copy()
        damaged.remove(DIRECTORY / name)
        loaded = outcome(damaged)
        assert isinstance(loaded, str)
        assert "missing" in loaded, position
        assert "--seed" in loaded
    swapped = disk.copy()
    swapped.put(DIRECTORY / names[1], bytes(disk.contents(DIRECTORY / names[2])))
    assert f"{names[1]}" in str(outcome(swapped))
    damaged = disk.copy()
    damaged.contents(DIRECTORY / names[0])[len(MAGIC)] = 77
    assert "its format is unreadable" in str(outcome(damaged))
    foreign = disk.copy()
    foreign.put(DIRECTORY / names[0], b"hello")
    assert "not a segment" in str(outcome(foreign))
    with pytest.raises(CorruptJournal, match="group 0, not 3"):
        open_journal(disk.copy(), group=3)


def test_a_journal_of_a_newer_build_is_called_so() -> None:
    disk, _ = small_journal()
    path = DIRECTORY / segments(disk)[0]
    before = bytes(disk.contents(path))
    disk.contents(path)[len(MAGIC) : len(MAGIC) + FORMAT_BYTES] = encode_format(2)
    with pytest.raises(
        NewerCacheFlow, match=r"the journal, .* was written by a newer CacheFlow \(format 2; .* knows 1\)"
    ):
        open_journal(disk)
    assert bytes(disk.contents(path))[len(MAGIC) + FORMAT_BYTES :] == before[len(MAGIC) + FORMAT_BYTES :]


def test_a_record_or_a_header_of_a_newer_build_is_no_damage() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 3)
    journal._record(CLUSTER + 1, 0, 0, b"what a later level writes")
    journal.close()
    with pytest.raises(NewerCacheFlow, match=r"the journal, .* \(kind of record 11; this build knows 10\)"):
        open_journal(disk)
    with pytest.raises(NewerCacheFlow, match="fields in a header"):
        Header.unpack(msgpack.packb((*msgpack.unpackb(Header(1, 2, LogState()).pack()), "more")))


def test_segments_of_another_journal_are_refused() -> None:
    disks = []
    for command in (b"a", b"b"):
        disk = FakeDisk()
        journal = open_journal(disk)
        fill(journal, 200, command=lambda index, command=command: command * 10)  # type: ignore[misc]
        disks.append(disk)
    mixed = disks[0].copy()
    path = path_of(mixed, 2)
    mixed.put(path, bytes(disks[1].contents(path)))
    assert "does not continue" in str(outcome(mixed))


def test_a_value_that_looks_like_a_journal_is_only_a_value() -> None:
    source, _ = small_journal()
    image = bytes(source.contents(path_of(source, 0)))
    disk, writer = FakeDisk(), StepWriter()
    journal = open_journal(disk, writer.submit, segment_bytes=1 << 16, random_bytes=Random(99).randbytes)
    fill(journal, 3)
    writer.drain()
    disk.fail("sync", OSError("power"))
    journal.add(image * 3, 4, 1)
    writer.drain()
    path = path_of(disk, 0)
    disk.contents(path)[used_bytes(disk, path) - 500] ^= 1
    loaded = outcome(disk)
    assert not isinstance(loaded, str)
    assert len(loaded[0]) == 3


def test_leftovers_of_a_segment_that_was_never_named_are_removed() -> None:
    disk = FakeDisk()
    open_journal(disk)
    disk.put(DIRECTORY / "journal-000000000002.cfj.new", b"x")
    disk.put(DIRECTORY / "other.new", b"x")
    disk.stop()
    open_journal(disk)
    assert [name for name in disk.list(DIRECTORY) if name.endswith(".new")] == ["other.new"]


class World:
    """One journal, a list as its model, and a machine that loses power.

    ``states[position]`` is what a restart brings back when exactly that many records survived.
    """

    def __init__(self, seed: int, fsync: str) -> None:
        self.random = Random(seed)
        self.fsync = fsync
        self.disk = FakeDisk(sector_bytes=self.random.choice([8, 64, 512]))
        self.writer: StepWriter
        self.journal: Journal
        self.states: dict[int, State] = {}
        self.vote_position = 0
        self.open()

    def open(self) -> None:
        self.writer = StepWriter()
        self.journal = open_journal(
            self.disk, self.writer.submit, fsync=self.fsync, segment_bytes=1500, random_bytes=self.random.randbytes
        )
        self.vote_position = 0
        self.note()

    def note(self) -> None:
        self.states[self.journal.position] = state_of(self.journal)
        durable = self.journal.durable_index
        assert durable <= self.journal.last_index

    def append(self, count: int) -> None:
        journal = self.journal
        if len(journal) == 0:
            journal.add(b"\x01", 1, 0)
            self.note()
        for _ in range(count):
            term = max(journal.last_term, journal.getCurrentTerm())
            journal.add(self.random.randbytes(self.random.choice([0, 3, 40, 300])), journal.last_index + 1, term)
            self.note()

    def truncate(self, count: int) -> None:
        if len(self.journal) > 1:
            self.journal.deleteEntriesFrom(max(1, len(self.journal) - count))
            self.note()

    def vote(self, _: int) -> None:
        self.journal.setCurrentTerm(self.journal.getCurrentTerm() + 1, self.random.choice([None, "a", "b"]))
        self.vote_position = self.journal.position
        self.note()

    def trim(self, count: int) -> None:
        if len(self.journal) > count:
            self.journal.trim(self.journal[count][1])
            self.note()

    def install(self, count: int) -> None:
        journal = self.journal
        if len(journal):
            index = max(journal.first_index + 1, journal.last_index + count - 10)
            term = max(journal.last_term, journal.getCurrentTerm()) + count % 2
            journal.install(index, term)
            self.note()

    def clock(self, count: int) -> None:
        self.journal.note_clock(count, count)

    def timer(self, _: int) -> None:
        self.journal.onOneSecondTimer()

    def step(self, count: int) -> None:
        for _ in range(min(count, len(self.writer))):
            self.writer.step()

    def work_only(self, _: int) -> None:
        if len(self.writer):
            self.writer.step() if self.writer._settled else self.writer.work_only()

    def die_at_work(self, count: int) -> None:
        """The next calls of the disk end the process, somewhere inside a piece of work."""
        calls = ["write", "sync", "preallocate", "rename", "sync_directory", "remove", "truncate", "close"]
        self.disk.fail(calls[count % len(calls)], OSError("died"), after=count // len(calls))
        self.append(3)
        self.trim(3)
        self.writer.drain()

    def kill(self, _: int) -> None:
        self.disk.stop()
        self.restart(self.journal.durable_position)

    def crash(self, _: int) -> None:
        durable = self.journal.durable_position
        if self.fsync != "always":
            # Only terms and votes are promised, with what came before them.
            durable = self.vote_position if durable >= self.vote_position else 0
        self.disk.crash(self.random)
        self.restart(durable)

    def close(self, _: int) -> None:
        self.journal.close()
        self.writer.drain()
        failed = self.journal.failed is not None
        self.restart(self.journal.durable_position if failed else self.journal.position)

    def restart(self, durable: int) -> None:
        self.disk._failures.clear()
        before, position = self.states, self.journal.position
        self.states = {}
        self.open()
        found = self.states[0]
        assert found in [before[at] for at in range(durable, position + 1)]


OPERATIONS = [
    *("append", "append", "append", "truncate", "vote", "trim", "install", "clock", "timer"),
    *("step", "step", "work_only", "die_at_work", "kill", "crash", "crash", "close"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    fsync=st.sampled_from(["always", "always", "interval", "never"]),
    operations=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(1, 12)), max_size=40),
)
def test_whatever_happens_a_restart_finds_everything_durable_and_nothing_else(
    seed: int, fsync: str, operations: list[tuple[str, int]]
) -> None:
    world = World(seed, fsync)
    for name, count in [*operations, ("crash", 1)]:
        getattr(world, name)(count)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_long_histories_end_as_they_should(seed: int) -> None:
    random = Random(seed)
    world = World(seed, random.choice(["always", "always", "interval", "never"]))
    for _ in range(120):
        getattr(world, random.choice(OPERATIONS))(random.randint(1, 12))
