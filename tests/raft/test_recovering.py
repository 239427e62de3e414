"""What is shown of a stopped node's disk, and decisions that are there as a whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fakes.disk import FakeDisk, StepWriter

from cacheflow.errors import ConfigError, NewerCacheFlow
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.settings import Member
from cacheflow.raft.log.documents import write_document
from cacheflow.raft.log.journal import Journal
from cacheflow.raft.log.reading import flush_log, read_log
from cacheflow.raft.log.records import CONFIGURATION, NO_OP, REGULAR
from cacheflow.raft.membership.configuration import Configuration
from cacheflow.raft.membership.membership import configurations_of
from cacheflow.raft.membership.recovery import TERMS_APART, Recovery, enter, read_recovery, write_recovery
from cacheflow.raft.recovering import decide_alone, decide_with, latest_of, look
from cacheflow.raft.roles import leader
from cacheflow.raft.snapshots.helper import build

DATA = Path("/data")
A = Member("a", "1", "h:1", "h:2", True)
B = Member("b", "1", "h:3", "h:4", True)
C = Member("c", "1", "h:5", "h:6", True)
ROWS = [{"id": member.id, "raft_address": f"moved:{number}"} for number, member in enumerate((A, B, C), 1)]


def entry(kind: bytes, *commands: c.Command) -> bytes:
    return kind + c.encode_entry(1000, [c.encode_block(0, 0, 0, list(commands))])


def opened(disk: FakeDisk) -> tuple[Journal, StepWriter]:
    writer = StepWriter()
    return Journal.open(disk, DATA, submit=writer.submit, segment_bytes=4096), writer


def closed(journal: Journal, writer: StepWriter) -> None:
    journal.close()
    writer.drain()


def disk_of(writes: int = 3, *, term: int = 2, cluster_id: str = "old") -> FakeDisk:
    """The disk of a member of three, with so many writes in its log behind the member table."""
    disk = FakeDisk()
    journal, writer = opened(disk)
    journal.setCurrentTerm(1, "a")
    journal.enter_cluster(cluster_id)
    journal.add(NO_OP, 1, 0)
    journal.add(entry(CONFIGURATION, Configuration(0, cluster_id, {m.id: m for m in (A, B, C)}).command()), 2, 1)
    journal.setCurrentTerm(term, None)
    journal.add(NO_OP, 3, term)
    for number in range(writes):
        journal.add(entry(REGULAR, c.set_(f"k{number}", b"v", 1)), 4 + number, term)
    closed(journal, writer)
    return disk


def start(disk: FakeDisk) -> tuple[Journal, StepWriter, Recovery | None]:
    journal, writer = opened(disk)
    decision = read_recovery(disk, DATA)
    if decision is not None:
        enter(journal, decision, DATA)
    return journal, writer, decision


def test_what_is_on_a_disk_is_shown_and_nothing_is_written() -> None:
    disk = disk_of()
    before = dict(disk.counts)
    found = look(disk, DATA, "a", "1")
    assert {name for name in disk.counts if disk.counts[name] != before.get(name, 0)} <= {"list", "read", "size"}
    assert (found.cluster_id, found.term, found.index, found.last_term) == ("old", 2, 6, 2)
    assert (found.items, found.revision, found.level, found.replaced) == (3, 3, 1, ())
    assert [*found.table.members.values()] == [A, B, C]
    machine = CacheMachine()
    for command, index, _ in read_log(disk, DATA)[1][1:]:
        machine.apply(index, command[1:] if command[:1] != NO_OP else b"")
    assert found.digest == machine.digest and machine.applied_index == 6


def test_all_but_the_end_of_a_log_was_committed_for_certain() -> None:
    # By this rule of the leader's: it appends what clients ask for once all before it is committed.
    assert leader.ENTRIES_AHEAD_MAX == 1
    assert look(disk_of(3), DATA, "a", "1").committed == 5
    assert look(disk_of(0), DATA, "a", "1").committed == 1, (
        "a no-op and a member table say nothing of what is before them"
    )


def test_a_snapshot_covers_what_the_journal_has_no_more() -> None:
    disk = disk_of(5)
    plain = look(disk, DATA, "a", "1")
    build(disk, DATA, 6)
    journal, writer = opened(disk)
    journal.trim(6)
    closed(journal, writer)
    found = look(disk, DATA, "a", "1")
    assert found == replace(plain, table=replace(plain.table, index=6))
    assert found.committed == 7
    behind = disk_of(1)
    build(disk_of(5), DATA, 6)
    # A snapshot that was taken over, when the process died before its journal said so.
    donor = disk_of(5)
    build(donor, DATA, 6)
    (name,) = [path for path in donor._names if path.suffix == ".cfs"]
    behind.put(name, bytes(donor.contents(name)))
    assert (look(behind, DATA, "a", "1").index, look(behind, DATA, "a", "1").committed) == (6, 6)


def test_what_a_killed_process_has_left_unflushed_survives_a_loss_of_power_once_it_was_flushed() -> None:
    lengths = set()
    for seed in range(20):
        for flushes in (False, True):
            disk = disk_of()
            journal, writer = opened(disk)
            writer.drain()
            journal.add(entry(REGULAR, c.set_("late", b"v", 1)), 7, 2)
            disk.fail("sync", OSError("killed"))
            writer.drain()
            disk.stop()
            shown = look(disk, DATA, "a", "1").index
            if flushes:
                flush_log(disk, DATA)
            disk.crash(Random(seed))
            left = look(disk, DATA, "a", "1").index
            assert left == shown or not flushes
            lengths.add((shown, left))
    assert (7, 6) in lengths and (7, 7) in lengths


def test_of_several_the_latest_by_term_and_index_is_named() -> None:
    found = [look(disk, DATA, "a", "1") for disk in (disk_of(9), disk_of(2, term=3), disk_of(1, term=3))]
    assert latest_of(found) is found[1]
    with pytest.raises(ConfigError, match="nothing can be said of which is later"):
        latest_of([found[0], look(disk_of(cluster_id="other"), DATA, "b", "1")])


def test_a_disk_of_no_cluster_is_refused() -> None:
    disk = FakeDisk()
    journal, writer = opened(disk)
    journal.add(NO_OP, 1, 0)
    closed(journal, writer)
    with pytest.raises(ConfigError, match="node a is in no cluster by its log"):
        look(disk, DATA, "a", "1")


def test_alone_the_node_is_the_only_member_of_a_cluster_with_a_new_id_and_later_terms() -> None:
    disk = disk_of()
    decision = decide_alone(look(disk, DATA, "a", "1"), Random(1).randbytes)
    other = decide_alone(look(disk, DATA, "a", "1"), Random(2).randbytes)
    assert decision.cluster_id not in ("old", other.cluster_id)
    assert decision.replaced == ("old",) and decision.term == 2 + TERMS_APART
    assert [*decision.table.members.values()] == [A]
    with pytest.raises(ConfigError, match="no member by its own log"):
        decide_alone(look(disk, DATA, "a", "another disk"), Random(1).randbytes)


def test_an_observer_that_is_left_alone_votes() -> None:
    found = look(disk_of(), DATA, "a", "1")
    observer = replace(found, table=found.table.with_member(replace(A, voter=False)))
    assert decide_alone(observer, Random(1).randbytes).table.voters == ["a"]


def test_with_a_file_of_members_all_disks_decide_for_one_cluster() -> None:
    made = [
        decide_with(look(disk, DATA, node_id, "1"), ROWS)
        for disk, node_id in ((disk_of(3), "a"), (disk_of(9), "b"), (disk_of(1, term=7), "c"))
    ]
    assert len({(each.cluster_id, each.replaced, tuple(each.table.rows())) for each in made}) == 1
    assert made[0].table.members["b"] == replace(B, raft_address="moved:2")
    assert [each.term - TERMS_APART for each in made] == [2, 2, 7]
    other = decide_with(look(disk_of(), DATA, "a", "1"), ROWS[:2])
    assert other.cluster_id != made[0].cluster_id


def test_a_decision_can_be_made_again_at_any_time() -> None:
    disk = disk_of()
    first = decide_with(look(disk, DATA, "a", "1"), ROWS)
    write_recovery(disk, DATA, first)
    assert decide_with(look(disk, DATA, "a", "1"), ROWS) == first, "not started yet"
    journal, writer, _ = start(disk)
    closed(journal, writer)
    found = look(disk, DATA, "a", "1")
    assert (found.cluster_id, found.replaced, found.term) == (first.cluster_id, ("old",), first.term)
    assert found.table == first.table
    assert decide_with(found, ROWS) == first, "started, and nothing in the log yet"
    second = decide_alone(found, Random(1).randbytes)
    assert second.replaced == ("old", first.cluster_id) and second.term == first.term + TERMS_APART
    write_recovery(disk, DATA, second)
    journal, writer, _ = start(disk)
    assert (journal.cluster_id, journal.getCurrentTerm()) == (second.cluster_id, second.term)


def test_a_decision_survives_a_loss_of_power_at_every_step_or_was_never_made() -> None:
    decision = decide_alone(look(disk_of(), DATA, "a", "1"), Random(1).randbytes)
    outcomes = set()
    for operation in ("open", "write", "sync", "close", "rename", "sync_directory"):
        for seed in range(20):
            disk = disk_of()
            files = {path: bytes(disk.contents(path)) for path in disk._names}
            disk.fail(operation, OSError("no power"))
            with pytest.raises(OSError, match="no power"):
                write_recovery(disk, DATA, decision)
            disk.crash(Random(seed))
            found = read_recovery(disk, DATA)
            assert found in (None, decision)
            outcomes.add(found is None)
            assert {path: bytes(disk.contents(path)) for path in files} == files, "log and snapshots are as they were"
            write_recovery(disk, DATA, decision)
            disk.crash(Random(seed))
            assert read_recovery(disk, DATA) == decision
    assert outcomes == {True, False}


def test_the_first_start_after_a_decision_may_be_interrupted_anywhere() -> None:
    disk = disk_of()
    decision = decide_alone(look(disk, DATA, "a", "1"), Random(1).randbytes)
    write_recovery(disk, DATA, decision)
    for seed in range(40):
        again = disk.copy()
        journal, writer, _ = start(again)
        assert (journal.cluster_id, journal.getCurrentTerm()) == (decision.cluster_id, decision.term)
        if seed % 2:
            writer.drain()
        again.crash(Random(seed))
        journal, writer, _ = start(again)
        assert (journal.cluster_id, journal.getCurrentTerm()) == (decision.cluster_id, decision.term)
        writer.drain()
        assert journal.last_index == 6 and journal.durable_position == journal.position


def test_a_decision_about_another_journal_is_refused_at_a_start_and_made_anew_by_recover() -> None:
    disk = disk_of()
    write_recovery(disk, DATA, Recovery.of("new", ("another",), 9, [A]))
    with pytest.raises(ConfigError, match="replaces cluster another, and the journal there is of cluster old"):
        start(disk)
    assert look(disk, DATA, "a", "1").decision is None


def test_every_flipped_bit_and_every_cut_of_a_decision_is_refused() -> None:
    disk = FakeDisk()
    write_recovery(disk, DATA, Recovery.of("new", ("old",), 9, [A]))
    whole = bytes(disk.contents(DATA / "recovery"))
    damaged = [whole[:length] for length in range(len(whole) - 1)]
    for position in range(len(whole) - 1):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            damaged.append(bytes(flipped))
    for data in damaged:
        disk.put(DATA / "recovery", data)
        with pytest.raises(ConfigError, match="is unreadable: run cacheflow recover"):
            read_recovery(disk, DATA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cluster_id": 5},
        {"replaced": []},
        {"replaced": "old"},
        {"replaced": [5]},
        {"term": 0},
        {"members": []},
        {"members": 5},
    ],
)
def test_a_decision_with_a_wrong_field_is_refused(wrong: dict[str, Any]) -> None:
    disk = FakeDisk()
    fields = {
        "format_version": 1,
        "cluster_id": "new",
        "replaced": ["old"],
        "term": 9,
        "members": [["a", "1", "h:1", "h:2", True, False]],
    }
    write_document(disk, DATA / "recovery", fields)
    assert read_recovery(disk, DATA) == Recovery.of("new", ("old",), 9, [A])
    write_document(disk, DATA / "recovery", fields | wrong)
    with pytest.raises(ConfigError, match="unreadable"):
        read_recovery(disk, DATA)
    write_document(disk, DATA / "recovery", fields | {"format_version": 2})
    with pytest.raises(
        NewerCacheFlow, match=r"recovery was written by a newer CacheFlow \(format 2; this build knows 1\)"
    ):
        read_recovery(disk, DATA)


def test_tables_of_the_old_cluster_never_count_again() -> None:
    disk = disk_of()
    build(disk, DATA, 3)
    decision = decide_alone(look(disk, DATA, "a", "1"), Random(1).randbytes)
    write_recovery(disk, DATA, decision)
    journal, writer, read = start(disk)
    machine = CacheMachine()
    for command, index, _ in journal.entries(2, None, 3):
        machine.apply(index, command[1:] if command[:1] != NO_OP else b"")
    assert list(machine.members) == ["a", "b", "c"]
    tables = configurations_of(machine, journal, read)
    assert tables.latest == decision.table
    journal.add(entry(CONFIGURATION, decision.command()), 7, decision.term)
    assert tables.note(journal[-1][0], 7) and tables.latest.index == 7
    tables.drop_from(7)
    assert tables.latest == decision.table, "another leader may not have it"
    # A node that joins has no decision, and learns whose log it is from whoever sends it.
    other, other_writer = opened(FakeDisk())
    other.enter_cluster(decision.cluster_id)
    other.add(NO_OP, 1, 0)
    for command, index, term in journal.entries(2):
        other.add(command, index, term)
    assert [*configurations_of(CacheMachine(), other, None).latest.members] == ["a"]
    other.deleteEntriesFrom(other.last_index - 1)
    assert not configurations_of(CacheMachine(), other, None).latest.members
    for each in ((journal, writer), (other, other_writer)):
        closed(*each)
