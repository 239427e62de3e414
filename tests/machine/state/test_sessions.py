"""Exactly once, over sessions: resent, lost, reordered and forgotten blocks."""

from __future__ import annotations

from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.state import sessions as sessions_module
from cacheflow.machine.state.sessions import Session, Sessions

INCR = c.incr("n", 1, 0)


def numbers(results: list[c.Result]) -> list[int]:
    return [result[2] for result in results]


def test_opening_a_session_tells_its_id_and_the_nonce(driver: Driver) -> None:
    assert driver.run(c.open_session("a", "x"), c.open_session("b", "y")) == [[c.OK, 1, "x"], [c.OK, 2, "y"]]
    for command in (c.open_session("", "x"), c.open_session("a", ""), c.open_session("a" * 257, "x"), [11, 1, "x"]):
        assert driver.one(command)[0] == c.MALFORMED


def test_what_is_sent_again_is_answered_and_not_applied_again(driver: Driver) -> None:
    session = driver.session()
    first = driver.send(session, 1, INCR, INCR)
    assert numbers(first) == [1, 2]
    assert driver.send(session, 1, INCR, INCR, INCR) == [*first, [c.OK, 3, 3, 0]]
    assert driver.machine.contents.revision == 3


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
    new = driver.session("a", "another start")
    assert new > other > old
    assert driver.send(old, 1, INCR) == [[c.UNKNOWN_SESSION]]
    assert numbers(driver.send(other, 1, INCR) + driver.send(new, 1, INCR)) == [1, 2]


def test_an_opening_that_came_twice_opens_one_session(driver: Driver) -> None:
    session = driver.session("a", "start")
    driver.send(session, 1, INCR)
    twin = driver.copy()
    for one in (driver, twin):
        assert one.session("a", "start") == session
        assert numbers(one.send(session, 2, INCR)) == [2]


def test_a_member_that_left_the_table_loses_its_session(driver: Driver) -> None:
    gone, stays = driver.session("gone"), driver.session("stays")
    driver.one(c.members("cluster", [["stays", "1", "h:1", "h:2", True]]))
    assert driver.send(gone, 1, INCR) == [[c.UNKNOWN_SESSION]]
    assert numbers(driver.send(stays, 1, INCR)) == [1]


def test_results_below_the_lowest_unanswered_number_are_dropped(driver: Driver) -> None:
    session = driver.session()
    driver.send(session, 1, INCR, INCR, INCR)
    assert numbers(driver.send(session, 2, INCR, INCR, INCR, lowest=3)[1:]) == [3, 4]
    assert driver.send(session, 1, INCR, INCR) == [[c.UNKNOWN_SESSION]] * 2
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
    assert driver.send(session, 0, INCR, INCR) == [[c.UNKNOWN_SESSION], [c.OK, 1, 1, 0]]


def test_kept_results_are_bounded() -> None:
    session = Session("a", "nonce")
    for number in range(1, sessions_module.KEPT_RESULTS_MAX + 11):
        session.last = number
        session.kept.append([c.OK, number])
    assert session.kept_result(10) is None
    assert session.kept_result(11) == [c.OK, 11]
    assert session.kept_result(session.last) == [c.OK, session.last]


def test_open_sessions_are_bounded_and_the_oldest_is_closed() -> None:
    sessions = Sessions()
    for number in range(sessions_module.SESSIONS_MAX + 1):
        sessions.open(f"m{number}", "nonce")
    assert len(sessions) == sessions_module.SESSIONS_MAX
    assert sessions.find(1) is None
    assert sessions.find(2) is not None
