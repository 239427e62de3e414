"""The journal in memory and on a disk that works."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.disk import FakeDisk, StepWriter
from fakes.journals import DIRECTORY, State, fill, open_journal, segments, state_of

from cacheflow.errors import ConfigError
from cacheflow.raft.log.disk import Disk
from cacheflow.raft.log.journal import RELAXED_S, CorruptJournal, Journal
from cacheflow.raft.log.reading import read_entries
from cacheflow.raft.log.records import RECORD_BYTES
from cacheflow.raft.log.segments import NothingLost


def reopened(disk: FakeDisk) -> Journal:
    disk.stop()
    return open_journal(disk)


def test_a_new_journal_is_empty_and_begins_with_what_is_added_first() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    assert len(journal) == 0
    assert (journal.first_index, journal.last_index, journal.last_term, journal.durable_index) == (0, 0, 0, 0)
    assert journal.getRaftCommitIndex() == 1
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.clock_pair) == (0, None, None)
    journal.add(b"\x01", 1, 0)
    assert reopened(disk)[:] == [(b"\x01", 1, 0)]


def test_entries_term_vote_and_clock_come_back() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 5)
    journal.setCurrentTerm(7, "node-1")
    journal.note_clock(123, 456)
    journal.add(b"", 6, 7)
    before = state_of(journal)
    again = reopened(disk)
    assert state_of(again) == before
    assert again.clock_pair == (123, 456)
    assert again.durable_index == again.last_index == 6
    again.setCurrentTerm(8, None)
    assert reopened(disk).getVotedForNodeId() is None


def test_it_reads_like_a_list() -> None:
    journal = open_journal(FakeDisk())
    fill(journal, 4)
    assert journal[-1] == (b"c4", 4, 1)
    assert journal[0] == (b"\x01", 1, 0)
    assert journal[1:3] == [(b"c2", 2, 1), (b"c3", 3, 1)]
    with pytest.raises(IndexError):
        journal[9]


def test_an_entry_that_does_not_follow_is_refused() -> None:
    journal = open_journal(FakeDisk())
    fill(journal, 3)
    for index in (3, 5):
        with pytest.raises(ValueError, match="does not follow"):
            journal.add(b"x", index, 1)
    assert journal.last_index == 3


def test_what_would_empty_the_log_is_refused() -> None:
    journal = open_journal(FakeDisk())
    fill(journal, 3)
    for position in (-1, 0, 4):
        with pytest.raises(ValueError, match="cannot drop"):
            journal.deleteEntriesFrom(position)
    with pytest.raises(ValueError, match="cannot trim"):
        journal.trim(4)
    assert len(journal) == 3


def test_a_lower_term_is_refused_and_the_same_one_costs_nothing() -> None:
    journal = open_journal(FakeDisk())
    journal.setCurrentTerm(3, "a")
    position = journal.position
    journal.setCurrentTerm(3, "a")
    assert journal.position == position
    with pytest.raises(ValueError, match="lower"):
        journal.setCurrentTerm(2, None)


def test_truncated_entries_are_replaced() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 9)
    journal.deleteEntriesFrom(4)
    assert (journal.last_index, journal.durable_index) == (4, 4)
    journal.add(b"other", 5, 2)
    before = state_of(journal)
    assert state_of(reopened(disk)) == before


def test_term_at_and_entries_answer_by_index() -> None:
    journal = open_journal(FakeDisk())
    fill(journal, 10, command=lambda index: b"x" * 10)
    journal.trim(4)
    assert [journal.term_at(index) for index in (3, 4, 10, 11)] == [None, 1, 1, None]
    assert [entry[1] for entry in journal.entries(6, 25)] == [6, 7]
    assert [entry[1] for entry in journal.entries(6, 1)] == [6]
    assert [entry[1] for entry in journal.entries(6, 10**9)] == [6, 7, 8, 9, 10]
    assert [entry[1] for entry in journal.entries(9)] == [9, 10]
    assert [entry[1] for entry in journal.entries(0)] == [4, 5, 6, 7, 8, 9, 10]
    assert journal.entries(11, 100) == []
    assert open_journal(FakeDisk()).entries(0, 10) == []


def test_a_trim_keeps_the_tail_and_removes_older_segments() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 200)
    journal.setCurrentTerm(4, "n")
    journal.note_clock(1, 2)
    many = len(segments(disk))
    assert many > 4
    tail = journal[149:]
    journal.trim(150)
    assert journal[:] == [(b"", 150, 1), *tail[1:]]
    assert (journal.first_index, journal.getRaftCommitIndex()) == (150, 150)
    # What came behind the snapshot while it was built counts as ever.
    assert journal.log_bytes == sum(RECORD_BYTES + len(command) for command, _, _ in journal[1:]) > 0
    assert journal.bytes_up_to(160) + sum(RECORD_BYTES + len(command) for command, _, _ in journal[11:]) == (
        journal.log_bytes
    )
    assert len(segments(disk)) < many
    assert journal.disk_bytes == sum(disk.size(DIRECTORY / name) for name in segments(disk))
    before = state_of(journal)
    again = reopened(disk)
    assert state_of(again) == before
    assert again.clock_pair == (1, 2)
    again.trim(149)
    assert again.first_index == 150


def test_after_trims_only_what_is_needed_is_left_on_disk() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    for index in range(100, 2000, 100):
        fill(journal, index)
        journal.trim(index - 5)
        assert len(segments(disk)) <= 5
    before = state_of(journal)
    assert state_of(reopened(disk)) == before


def test_the_entry_to_which_the_log_is_trimmed_stays_as_the_sentinel() -> None:
    journal = open_journal(FakeDisk())
    fill(journal, 5)
    journal.trim(3)
    assert journal[:] == [(b"", 3, 1), (b"c4", 4, 1), (b"c5", 5, 1)]


def test_an_installed_snapshot_keeps_a_matching_suffix() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 10, term=2)
    journal.install(7, 2)
    assert journal[:] == [(b"", 7, 2), (b"c8", 8, 2), (b"c9", 9, 2), (b"c10", 10, 2)]
    before = state_of(journal)
    assert state_of(reopened(disk)) == before


@pytest.mark.parametrize(("index", "term"), [(7, 3), (50, 3)])
def test_an_installed_snapshot_that_does_not_match_begins_the_log_anew(index: int, term: int) -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 100, term=2)
    journal.trim(5)
    journal.install(index, term)
    assert journal[:] == [(b"", index, term)]
    assert len(segments(disk)) == 1
    journal.add(b"next", index + 1, term)
    before = state_of(journal)
    assert state_of(reopened(disk)) == before


def test_a_snapshot_older_than_the_log_is_refused() -> None:
    journal = open_journal(FakeDisk())
    fill(journal, 9)
    journal.trim(6)
    with pytest.raises(ValueError, match="older"):
        journal.install(5, 1)


def test_a_cleared_log_is_on_disk_until_the_next_one_begins() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 9)
    before = state_of(journal)
    journal.clear()
    assert len(journal) == 0
    assert journal.entries(0) == []
    assert state_of(open_journal(disk.copy())) == before
    journal.add(b"a", 20, 3)
    journal.add(b"b", 21, 3)
    assert reopened(disk)[:] == [(b"a", 20, 3), (b"b", 21, 3)]


def test_an_entry_larger_than_a_segment_has_one_of_its_own() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 3)
    journal.add(b"x" * 10_000, 4, 1)
    fill(journal, 8)
    before = state_of(journal)
    assert state_of(reopened(disk)) == before


# Flushing.


def test_what_gathers_while_the_disk_works_shares_one_flush() -> None:
    disk, writer, told = FakeDisk(), StepWriter(), []
    journal = open_journal(disk, writer.submit, segment_bytes=65536)
    journal.on_durable = lambda: told.append(journal.durable_position)
    journal.add(b"\x01", 1, 0)
    fill(journal, 50)
    syncs = disk.counts["sync"]
    assert (journal.position, journal.durable_position, journal.durable_index, len(writer)) == (50, 0, 0, 1)
    writer.step()
    assert (journal.durable_position, journal.durable_index) == (1, 1)
    writer.step()
    assert (journal.durable_position, journal.durable_index) == (50, 50)
    assert disk.counts["sync"] == syncs + 2
    assert told == [1, 50]
    assert len(writer) == 0


def test_with_defer_one_turn_of_the_loop_is_one_flush() -> None:
    disk, writer = FakeDisk(), StepWriter()
    turns: list[Callable[[], None]] = []
    journal = open_journal(disk, writer.submit, defer=turns.append, segment_bytes=65536)
    fill(journal, 50)
    assert (len(turns), len(writer)) == (1, 0)
    turns.pop()()
    writer.drain()
    assert journal.durable_position == 50
    assert disk.counts["write"] == 2  # the header and all entries


def test_what_nobody_waits_for_is_flushed_with_what_comes_or_after_a_moment() -> None:
    disk, writer = FakeDisk(), StepWriter()
    timers: list[tuple[float, Callable[[], None]]] = []
    journal = open_journal(disk, writer.submit, later=lambda after_s, call: timers.append((after_s, call)))
    fill(journal, 1)
    writer.drain()
    journal.add(b"a", 2, 1, awaited=False)
    journal.add(b"b", 3, 1, awaited=False)
    assert (len(writer), [after_s for after_s, _ in timers]) == (0, [RELAXED_S])
    timers.pop()[1]()
    writer.drain()
    assert journal.durable_index == 3
    journal.add(b"c", 4, 1, awaited=False)
    journal.add(b"d", 5, 1)
    assert len(writer) == 1
    writer.drain()
    assert journal.durable_index == 5
    timers.pop()[1]()
    assert len(writer) == 0
    journal.add(b"e", 6, 1, awaited=False)
    journal.close()
    writer.drain()
    timers.pop()[1]()
    assert reopened(disk).last_index == 6


def test_a_flush_that_nobody_waits_for_does_not_pass_one_that_is_under_way() -> None:
    disk, writer = FakeDisk(), StepWriter()
    timers: list[Callable[[], None]] = []
    journal = open_journal(disk, writer.submit, later=lambda _, call: timers.append(call))
    fill(journal, 1)
    writer.drain()
    journal.add(b"a", 2, 1, awaited=False)
    journal.setCurrentTerm(2, "n1")
    journal.add(b"b", 3, 1, awaited=False)
    timers.pop()()
    assert len(writer) == 1
    writer.drain()
    assert (journal.durable_index, journal.durable_position) == (3, journal.position)


def test_the_durable_index_never_counts_what_was_truncated_meanwhile() -> None:
    disk, writer = FakeDisk(), StepWriter()
    journal = open_journal(disk, writer.submit)
    fill(journal, 10)
    writer.drain()
    fill(journal, 20)
    writer.step()
    journal.deleteEntriesFrom(5)
    journal.add(b"new", 6, 2)
    assert journal.durable_index == 5
    writer.step()
    assert journal.durable_index == 5
    writer.drain()
    assert journal.durable_index == 6


@pytest.mark.parametrize(("mode", "flushes"), [("always", 3), ("interval", 0), ("never", 0)])
def test_each_mode_flushes_as_often_as_it_says(mode: str, flushes: int) -> None:
    disk = FakeDisk()
    journal = open_journal(disk, fsync=mode)
    before = disk.counts["sync"]
    fill(journal, 3)
    assert disk.counts["sync"] - before == flushes
    assert journal.durable_position == 3
    # A vote promises something in every mode.
    journal.setCurrentTerm(1, "n")
    assert disk.counts["sync"] - before == flushes + 1


def test_interval_flushes_once_a_second_and_only_what_was_written() -> None:
    disk = FakeDisk()
    journal = open_journal(disk, fsync="interval")
    fill(journal, 3)
    before = disk.counts["sync"]
    for _ in range(5):
        journal.onOneSecondTimer()
    assert disk.counts["sync"] == before + 1
    fill(journal, 4)
    for _ in range(5):
        journal.onOneSecondTimer()
    assert disk.counts["sync"] == before + 2


@pytest.mark.parametrize("mode", ["always", "interval", "never"])
def test_an_idle_journal_writes_nothing(mode: str) -> None:
    disk = FakeDisk()
    journal = open_journal(disk, fsync=mode)
    fill(journal, 3)
    journal.note_clock(1, 2)
    for _ in range(3):
        journal.onOneSecondTimer()
    quiet = (disk.counts["write"], disk.counts["sync"], journal.position)
    journal.note_clock(1000, 1000)
    for _ in range(10):
        journal.onOneSecondTimer()
    assert (disk.counts["write"], disk.counts["sync"], journal.position) == quiet


def test_the_clock_pair_is_written_when_the_journal_falls_idle() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 3)
    journal.note_clock(10, 20)
    assert journal.durable_position == journal.position
    journal.onOneSecondTimer()
    again = reopened(disk)
    assert again.clock_pair == (10, 20)
    again.note_clock(30, 40)
    again.onOneSecondTimer()
    assert reopened(disk).clock_pair == (30, 40)


@pytest.mark.parametrize("mode", ["always", "interval", "never"])
def test_close_writes_and_flushes_everything(mode: str) -> None:
    disk, writer = FakeDisk(), StepWriter()
    journal = open_journal(disk, writer.submit, fsync=mode)
    fill(journal, 20)
    journal.note_clock(3, 4)
    journal.close()
    journal.close()
    writer.drain()
    assert journal.durable_position == journal.position == 20
    assert disk.open_handles == 0
    journal.add(b"late", 21, 1)
    assert len(writer) == 0
    again = open_journal(disk)
    assert (again.last_index, again.clock_pair) == (20, (3, 4))


def test_many_trimmed_entries_are_freed_little_by_little() -> None:
    journal = open_journal(FakeDisk(), segment_bytes=1 << 22)
    fill(journal, 30_000)
    journal.trim(29_999)
    assert len(journal) == 2
    assert sum(map(len, journal._trimmed)) > 10_000
    for _ in range(10):
        journal.onOneSecondTimer()
    assert journal._trimmed == []


# Failing.


@pytest.mark.parametrize(
    ("operation", "code"), [("write", errno.ENOSPC), ("sync", errno.EIO), ("preallocate", errno.EIO)]
)
def test_a_failure_is_told_once_and_nothing_is_written_after_it(operation: str, code: int) -> None:
    disk, writer = FakeDisk(), StepWriter()
    failures: list[BaseException] = []
    journal = open_journal(disk, writer.submit, on_failure=failures.append)
    fill(journal, 3)
    writer.drain()
    error = OSError(code, "no")
    disk.fail(operation, error)
    fill(journal, 200)
    writer.drain()
    assert failures == [error]
    assert journal.failed is error
    assert journal.durable_position < journal.position
    durable, written = journal.durable_index, disk.counts["write"]
    assert durable < 200
    journal.setCurrentTerm(9, "n")
    fill(journal, 210)
    journal.onOneSecondTimer()
    writer.drain()
    assert (journal.durable_index, disk.counts["write"], failures) == (durable, written, [error])
    journal.close()
    writer.drain()
    assert disk.open_handles == 0
    again = open_journal(disk)
    assert durable <= again.last_index <= 200


def test_a_full_disk_shows_when_space_is_reserved() -> None:
    disk, timers = FakeDisk(capacity_bytes=5000), Timers()
    journal = open_journal(disk, on_failure=raise_it, later=timers.later)
    fill(journal, 200)
    timers.run()
    assert journal.trouble == "no space left"
    assert not any(name.endswith(".new") for name in disk.list(DIRECTORY))
    durable = journal.durable_index
    assert 0 < durable < 200
    assert open_journal(disk.copy(), later=timers.later).last_index >= durable
    disk.capacity_bytes = 1 << 30
    timers.run()
    assert journal.durable_index == 200, "it goes on by itself"
    assert not journal.trouble
    journal.close()
    assert open_journal(disk).last_index == 200


class Timers:
    """A loop's call_later whose calls are made by ``run``."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append(call)

    def run(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


def raise_it(error: BaseException) -> None:
    raise error


def full_of_trims(disk: FakeDisk, timers: Timers) -> list[State]:
    """Fill several segments, with votes and trims between; return every state on the way, the last one is the present."""
    journal = open_journal(disk, on_failure=raise_it, later=timers.later)
    states = [state_of(journal)]
    for step in range(12):
        fill(journal, journal.last_index + 40, term=step + 1)
        journal.setCurrentTerm(step + 1, "n")
        states.append(state_of(journal))
        journal.trim(journal.last_index - 30)
        states.append(state_of(journal))
        while timers.due:
            # As long as it is refused nothing may be promised.
            assert journal.durable_position < journal.position
            timers.run()
        assert journal.durable_position == journal.position
    journal.close()
    return states


def opening(operation: str) -> int:
    """Return how often a disk is asked for something before a new journal is open."""
    disk = FakeDisk()
    open_journal(disk)
    return disk.counts[operation]


@pytest.mark.parametrize("operation", ["open", "sync_directory", "preallocate", "rename"])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOSPC])
def test_what_a_new_segment_lacks_is_waited_for_and_nothing_is_lost(operation: str, code: int) -> None:
    plain = FakeDisk()
    states = full_of_trims(plain, Timers())
    for number in range(opening(operation), plain.counts[operation]):
        disk = FakeDisk()
        disk.fail(operation, OSError(code, "not now"), after=number)
        disk.fail(operation, OSError(code, "not yet"), after=number + 1)
        assert full_of_trims(disk, Timers()) == states
        assert disk.open_handles == 0
        assert state_of(open_journal(disk.copy())) == states[-1]


@pytest.mark.parametrize("operation", ["open", "sync_directory", "preallocate", "rename"])
def test_a_kill_while_a_new_segment_is_waited_for_leaves_a_whole_journal(operation: str) -> None:
    plain = FakeDisk()
    full_of_trims(plain, Timers())
    for number in range(opening(operation), plain.counts[operation]):
        disk, timers = FakeDisk(), Timers()
        disk.fail(operation, OSError(errno.EMFILE, "not now"), after=number)
        journal = open_journal(disk, on_failure=raise_it, later=timers.later)
        while not timers.due and journal.last_index < 480:
            fill(journal, journal.last_index + 40)
            journal.trim(journal.last_index - 30)
        left = disk.copy()
        again = open_journal(left)
        assert again.last_index >= journal.durable_index
        fill(again, again.last_index + 100)
        again.close()
        assert open_journal(left).last_index == again.last_index


def test_a_journal_that_is_closed_while_it_is_refused_fails_and_closes_its_files() -> None:
    disk, timers = FakeDisk(capacity_bytes=5000), Timers()
    failures: list[BaseException] = []
    journal = open_journal(disk, on_failure=failures.append, later=timers.later)
    fill(journal, 200)
    journal.close()
    timers.run()
    assert [type(failure) for failure in failures] == [NothingLost]
    assert disk.open_handles == 0
    disk.capacity_bytes = 1 << 30
    assert open_journal(disk).last_index >= journal.durable_index


def test_a_disk_that_refuses_at_start_is_a_configuration_error() -> None:
    disk = FakeDisk(capacity_bytes=100)
    with pytest.raises(ConfigError, match="no space left"):
        open_journal(disk)
    assert disk.open_handles == 0


# Reading beside the writer.


def test_entries_are_read_beside_a_living_writer() -> None:
    disk = FakeDisk()
    journal = open_journal(disk)
    fill(journal, 300)
    journal.deleteEntriesFrom(199)
    fill(journal, 250, term=2, command=lambda index: b"other")
    journal.trim(30)
    assert list(read_entries(disk, DIRECTORY, 30, 230, after_term=1)) == journal[1:201]
    assert list(read_entries(disk, DIRECTORY, 250, 250)) == []
    for after, to in ((20, 100), (100, 251)):
        with pytest.raises(CorruptJournal, match="asked for"):
            list(read_entries(disk, DIRECTORY, after, to))
    with pytest.raises(CorruptJournal, match="term 9"):
        list(read_entries(disk, DIRECTORY, 100, 101, after_term=9))
    with pytest.raises(CorruptJournal, match="no entries"):
        list(read_entries(disk, Path("/nothing"), 1, 1))


def test_a_reader_sees_a_clean_prefix_whenever_it_looks(tmp_path: Path) -> None:
    disk = Disk()
    journal = open_journal(disk, directory=tmp_path, segment_bytes=8192)
    fill(journal, 10)
    stop = threading.Event()
    failures: list[BaseException] = []
    reads = [0]
    durable = [10]

    def look() -> None:
        while not stop.is_set():
            last_index = durable[0]
            try:
                entries = list(read_entries(disk, tmp_path, 10, last_index))
            except BaseException as error:
                failures.append(error)
                return
            if [entry[1] for entry in entries] != list(range(11, last_index + 1)):
                failures.append(AssertionError(entries))
            reads[0] += 1

    reader = threading.Thread(target=look)
    reader.start()
    deadline = time.monotonic() + 60
    for turn in range(30):
        # In step with the reader, which is starved by a writer that never waits.
        while reads[0] < turn // 5 and not failures:
            assert time.monotonic() < deadline, "the reader hangs"
            time.sleep(0.0005)
        assert not failures
        fill(journal, journal.last_index + 20)
        durable[0] = journal.durable_index - 10
        journal.deleteEntriesFrom(len(journal) - 5)
    stop.set()
    reader.join()
    journal.close()
    assert failures == []
