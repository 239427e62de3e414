"""Configurations come and go with the entries that hold them."""

from __future__ import annotations

from cacheflow.machine.language import commands
from cacheflow.machine.state.settings import Member
from cacheflow.raft.log.records import CONFIGURATION
from cacheflow.raft.membership.configuration import NOBODY, Configuration, Configurations


def member(node_id: str, voter: bool = True) -> Member:
    return Member(node_id, f"{node_id}-disk", f"{node_id}:1", f"{node_id}:2", voter)


def configuration(*members: Member) -> Configuration:
    return Configuration(0, "cluster", {one.id: one for one in members})


def entry(table: Configuration) -> bytes:
    return CONFIGURATION + commands.encode_entry(5, [commands.encode_block(0, 0, 0, [table.command()])])


def test_the_latest_in_the_log_counts_committed_or_not() -> None:
    log = [(b"\x01", 1, 0), (entry(configuration(member("a"))), 2, 1), (b"\0x", 3, 1)]
    known = Configurations(NOBODY, log)
    assert known.latest.index == 2 and known.latest.voters == ["a"]
    assert not known.note(b"\0x", 4)
    assert known.note(entry(configuration(member("a"), member("b", voter=False))), 5)
    assert sorted(known.latest.members) == ["a", "b"] and known.latest.voters == ["a"]


def test_when_its_entry_is_dropped_the_one_before_counts_again() -> None:
    known = Configurations(NOBODY, [(entry(configuration(member("a"))), 2, 1)])
    known.note(entry(configuration(member("a"), member("b"))), 7)
    assert not known.drop_from(8)
    assert known.drop_from(7) and known.latest.voters == ["a"]
    assert not known.drop_from(7)


def test_what_is_committed_cannot_be_dropped_any_more() -> None:
    known = Configurations(NOBODY, [(entry(configuration(member("a"))), 2, 1)])
    known.note(entry(configuration(member("a"), member("b"))), 7)
    known.committed(7)
    assert not known.drop_from(3) and known.latest.index == 7


def test_a_snapshot_takes_the_place_of_what_was_known() -> None:
    known = Configurations(NOBODY, [(entry(configuration(member("a"))), 2, 1)])
    base = Configuration(20, "cluster", {"c": member("c")})
    known.restart_from(base, [(b"", 20, 3), (entry(configuration(member("c"), member("d"))), 21, 3)])
    assert known.latest.voters == ["c", "d"]
    assert known.drop_from(21) and known.latest == base


def test_an_entry_that_holds_no_table_changes_nothing() -> None:
    known = Configurations(configuration(member("a")), [])
    for damaged in (CONFIGURATION + b"\xc1", CONFIGURATION, CONFIGURATION + commands.encode_entry(1, [b"?"])):
        assert not known.note(damaged, 3)
    noop = CONFIGURATION + commands.encode_entry(1, [commands.encode_block(0, 0, 0, [commands.noop()])])
    assert not known.note(noop, 3) and known.latest.voters == ["a"]


def test_the_settled_one_is_the_latest_that_is_committed() -> None:
    known = Configurations(NOBODY, [(entry(configuration(member("a"))), 2, 1)])
    known.note(entry(configuration(member("a"), member("b"))), 7)
    assert known.settled == NOBODY and known.latest.index == 7
    assert known.committed(6) == [NOBODY]
    assert known.settled.index == 2
    assert [table.index for table in known.committed(7)] == [2]
    assert known.settled is known.latest


def test_a_member_is_an_id_with_its_disk() -> None:
    table = configuration(member("a"))
    assert table.lists("a", "a-disk")
    assert not table.lists("a", "another disk") and not table.lists("b", "a-disk")
    assert not table.without("a").lists("a", "a-disk")


def test_where_a_node_became_a_member_is_the_first_table_with_its_disk() -> None:
    known = Configurations(NOBODY, [(entry(configuration(member("a"))), 2, 1)])
    known.note(entry(configuration(member("a"), member("b"))), 5)
    known.note(entry(configuration(member("a"), member("b"), member("c"))), 6)
    found = known.first_with("b", "b-disk")
    assert found is not None and found.index == 5
    assert known.first_with("b", "another disk") is None
