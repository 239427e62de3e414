"""Exactly once, over sessions: resent, lost, reordered and forgotten blocks."""

from __future__ import annotations

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.language.levels import BUILD_LEVEL
from cacheflow.machine.state import sessions as sessions_module
from cacheflow.machine.state.sessions import Session

INCR = c.incr("n", 1, 0)


def numbers(results: list[c.Result]) -> list[int]:
    return [result[2] for result in results]


def test_opening_a_session_tells_its_id_and_the_nonce(driver: Driver) -> None:
    driver.table("a", "b")
    openings = [c.open_session("a", "1", 7, "x"), c.open_session("b", "1", 1, "y", 3)]
    assert driver.run(*openings) == [[c.OK, 1, "x"], [c.OK, 2, "y"]]
    assert [(one.start, one.level) for _, one in driver.copy().machine.sessions] == [(7, BUILD_LEVEL), (1, 3)]
    good = openings[0]
    for place in range(1, 6):
        for wrong in (None, True, 0, -1, 2**63, "", "a" * 257, b"a"):
            assert driver.one((*good[:place], wrong, *good[place + 1 :]))[0] == c.MALFORMED
    assert driver.one([c.OPEN_SESSION, "a", "x"])[0] == c.MALFORMED


def test_what_is_sent_again_is_answered_and_not_applied_again(driver: Driver) -> None:
    session = driver.session()
    first = driver.send(session, 1, INCR, INCR)
    assert numbers(first) == [1, 2]
    assert driver.send(session, 1, INCR, INCR, INCR) == [*first, [c.OK, 3, 3, 0]]
    assert driver.machine.contents.revision == 3


def test_a_block_whose_last_moment_is_over_takes_its_numbers_and_does_nothing(driver: Driver) -> None:
    session = driver.session()
    driver.run(at=1000)
    late = c.encode_block(session, 1, 1, [INCR, c.get("n")], until_ms=999)
    for one in (driver, driver.copy()):
        assert one.entry(late)[0][2] == [[c.TOO_LATE], [c.TOO_LATE]]
        # At its last moment it is in time; what was too late once stays it, whatever is sent again.
        again = c.encode_block(session, 1, 1, [INCR, INCR, INCR], until_ms=1000)
        assert one.entry(again)[0][2] == [[c.TOO_LATE], [c.TOO_LATE], [c.OK, 1, 1, 0]]
        # What took place in time is answered, also later.
        both = c.encode_block(session, 3, 3, [INCR, INCR], until_ms=1)
        assert one.entry(both)[0][2] == [[c.OK, 1, 1, 0], [c.TOO_LATE]]
        assert numbers(one.send(session, 5, INCR)) == [2]


def test_outside_a_session_a_block_has_no_last_moment(driver: Driver) -> None:
    assert driver.entry(c.encode_block(0, 0, 0, [INCR], until_ms=1), at=1000)[0][2] == [[c.OK, 1, 1, 0]]


def test_a_gap_is_refused_with_the_number_that_was_expected(driver: Driver) -> None:
    session = driver.session()
    driver.send(session, 1, INCR)
    assert driver.send(session, 3, INCR, INCR) == [[c.OUT_OF_ORDER, 2], [c.OUT_OF_ORDER, 2]]
    assert numbers(driver.send(session, 2, INCR)) == [2]


def test_an_unknown_session_is_refused_for_every_command(driver: Driver) -> None:
    assert driver.send(7, 1, INCR, INCR) == [[c.UNKNOWN_SESSION], [c.UNKNOWN_SESSION]]
    assert driver.send(-1, 1, INCR) == [[c.UNKNOWN_SESSION]]
    assert driver.machine.contents.revision == 0


def test_a_new_start_of_a_member_closes_its_older_session_only(driver: Driver) -> None:
    old, other = driver.session("a"), driver.session("b")
    new = driver.session("a", start=2)
    assert new > other > old
    assert driver.send(old, 1, INCR) == [[c.UNKNOWN_SESSION]]
    assert numbers(driver.send(other, 1, INCR) + driver.send(new, 1, INCR)) == [1, 2]


def test_an_opening_that_came_twice_opens_one_session(driver: Driver) -> None:
    session = driver.session("a")
    driver.send(session, 1, INCR)
    twin = driver.copy()
    for one in (driver, twin):
        assert one.session("a") == session
        assert numbers(one.send(session, 2, INCR)) == [2]


def test_a_repeated_opening_of_an_earlier_start_opens_nothing(driver: Driver) -> None:
    """Simulation 950053: it closed the session of the process that had taken the dead one's place."""
    driver.session("a", start=4)
    later = driver.session("a", start=6)
    for one in (driver, driver.copy()):
        for start, nonce in ((4, "start 4"), (5, "start 5"), (6, "another of this number")):
            assert one.one(c.open_session("a", "1", start, nonce)) == [c.NOT_THIS_START]
        assert numbers(one.send(later, 1, INCR)) == [1]


def test_only_the_incarnation_in_the_table_opens_a_session(driver: Driver) -> None:
    session = driver.session("a")
    for member_id, incarnation in (("a", "2"), ("b", "1"), ("b", "2")):
        assert driver.one(c.open_session(member_id, incarnation, 9, "start")) == [c.NOT_THIS_START]
    assert numbers(driver.send(session, 1, INCR)) == [1]


def test_a_new_incarnation_of_a_member_closes_its_session_and_counts_its_starts_anew(driver: Driver) -> None:
    session = driver.session("a", start=7)
    driver.one(c.members("cluster", [["a", "2", "h:1", "h:2", True, False]]))
    assert driver.send(session, 1, INCR) == [[c.UNKNOWN_SESSION]]
    assert driver.one(c.open_session("a", "2", 1, "start")) == [c.OK, session + 1, "start"]


def test_a_member_that_left_the_table_loses_its_session(driver: Driver) -> None:
    gone, stays = driver.session("gone"), driver.session("stays")
    driver.one(c.members("cluster", [["stays", "1", "h:1", "h:2", True, False]]))
    assert driver.send(gone, 1, INCR) == [[c.UNKNOWN_SESSION]]
    assert numbers(driver.send(stays, 1, INCR)) == [1]


def test_results_below_the_lowest_unanswered_number_are_dropped(driver: Driver) -> None:
    session = driver.session()
    driver.send(session, 1, INCR, INCR, INCR)
    assert numbers(driver.send(session, 2, INCR, INCR, INCR, lowest=3)[1:]) == [3, 4]
    assert driver.send(session, 1, INCR, INCR) == [[c.NOT_KEPT]] * 2
    kept = driver.machine.sessions.find(session)
    assert kept is not None
    assert len(kept.kept) == 2
    driver.send(session, 5, lowest=2**63)
    assert len(kept.kept) == 0
    assert numbers(driver.send(session, 5, INCR, lowest=-5)) == [5]


def test_a_malformed_command_uses_its_number_up(driver: Driver) -> None:
    session = driver.session()
    results = driver.send(session, 1, ["nonsense"], INCR)
    assert [result[0] for result in results] == [c.MALFORMED, c.OK]
    assert driver.send(session, 1, ["nonsense"], INCR) == results


def test_numbers_begin_at_one(driver: Driver) -> None:
    session = driver.session()
    assert driver.send(session, 0, INCR, INCR) == [[c.NOT_KEPT], [c.OK, 1, 1, 0]]


def test_kept_results_are_bounded() -> None:
    session = Session("a", 1, "nonce", 1)
    for number in range(1, sessions_module.KEPT_RESULTS_MAX + 11):
        session.last = number
        session.kept.append([c.OK, number])
    assert session.kept_result(10) is None
    assert session.kept_result(11) == [c.OK, 11]
    assert session.kept_result(session.last) == [c.OK, session.last]


def test_the_values_that_a_session_has_read_are_bounded_in_bytes(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "KEPT_READ_BYTES_MAX", 2500)
    session = driver.session()
    driver.run(c.set_("k", bytes(1000), 1))
    read = c.get("k")
    driver.send(session, 1, INCR, lowest=1)
    driver.send(session, 2, read, INCR, lowest=1)
    driver.send(session, 4, c.batch([read]), lowest=1)
    assert [result[0] for result in driver.send(session, 1, *[read] * 4, lowest=1)] == [c.OK] * 4
    driver.send(session, 5, INCR, read, lowest=1)
    for one in (driver, driver.copy()):
        kept = one.machine.sessions.find(session)
        assert kept is not None
        assert kept.read_bytes == 2000
        # The oldest block that has read something is gone, with all before it; the others are answered.
        assert [result[0] for result in one.send(session, 1, *[read] * 6, lowest=1)] == [c.NOT_KEPT] * 3 + [c.OK] * 3
    # Answered reads do not count any more.
    driver.send(session, 7, read, lowest=7)
    kept = driver.machine.sessions.find(session)
    assert kept is not None
    assert (kept.read_bytes, len(kept.reads)) == (1000, 1)


def test_what_a_client_asks_for_again_counts_as_read(driver: Driver) -> None:
    session = driver.session()
    driver.run(c.set_("k", bytes(1000), 1))
    pop = c.idempotent("key", c.batch([c.get("k"), c.delete("k")], atomic=True))
    for number in range(1, 4):
        assert driver.send(session, number, pop, lowest=1)[0][0] == c.OK
    kept = driver.machine.sessions.find(session)
    assert kept is not None
    assert kept.read_bytes > 3000
