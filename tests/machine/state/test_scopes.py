"""Scopes: a client's numbered writes take place once, in any order, as long as the scope is open; never afterwards."""

from __future__ import annotations

from random import Random

import pytest
from machine.driver import Driver, sets

from cacheflow.machine.language import commands as c
from cacheflow.machine.state import scopes

INCR = c.incr("n", 1, 0)


def opened(driver: Driver) -> int:
    status, number = driver.one(c.open_scope("x"))
    assert status == c.OK
    assert isinstance(number, int)
    return number


def scoped(scope: int, number: int, lowest: int = 1, command: c.Command = INCR) -> c.Command:
    return c.scoped(scope, "x", number, lowest, command)


def test_each_opening_gives_another_scope(driver: Driver) -> None:
    assert [opened(driver), opened(driver.copy()), opened(driver)] == [1, 2, 2]


def test_a_number_takes_place_once_in_any_order(driver: Driver) -> None:
    scope = opened(driver)
    third, first = driver.run(scoped(scope, 3), scoped(scope, 1))
    assert (third[2], first[2]) == (1, 2)
    for one in (driver, driver.copy()):
        assert one.run(scoped(scope, 1), scoped(scope, 3), scoped(scope, 1)) == [first, third, first]
        assert one.one(scoped(scope, 2))[2] == 3


def test_a_failure_is_kept_and_a_malformed_command_is_not(driver: Driver) -> None:
    scope = opened(driver)
    missing = scoped(scope, 1, command=c.incr("absent", 1))
    assert driver.one(missing) == [c.MISSING]
    driver.put("absent", data=b"1")
    assert driver.one(missing) == [c.MISSING]
    assert driver.one(scoped(scope, 2, command=c.set_("k", b"", 9)))[0] == c.MALFORMED
    assert driver.one(scoped(scope, 2))[0] == c.OK


def test_a_number_with_another_command_is_refused(driver: Driver) -> None:
    scope = opened(driver)
    driver.one(scoped(scope, 1))
    assert driver.one(scoped(scope, 1, command=c.incr("n", 2, 0))) == [c.KEY_REUSED]


def test_what_the_client_waits_for_no_more_is_dropped_and_never_done(driver: Driver) -> None:
    scope = opened(driver)
    driver.run(scoped(scope, 1), scoped(scope, 3), scoped(scope, 4, lowest=3))
    for one in (driver, driver.copy()):
        # The second was given up: it may still come.
        assert one.run(scoped(scope, 1), scoped(scope, 2)) == [[c.FORGOTTEN]] * 2
        assert one.one(scoped(scope, 3))[2] == 2
        # The lowest number never falls.
        assert one.one(scoped(scope, 5, lowest=1))[2] == 4
        assert one.one(scoped(scope, 2)) == [c.FORGOTTEN]


def test_a_scope_that_is_not_open_answers_that_nothing_is_known(driver: Driver) -> None:
    scope = opened(driver)
    for unknown in (c.scoped(scope + 1, "x", 1, 1, INCR), c.scoped(scope, "another cluster's", 1, 1, INCR)):
        assert driver.one(unknown) == [c.FORGOTTEN]
    assert driver.machine.contents.revision == 0


def test_a_scope_that_was_not_used_for_ten_minutes_is_closed(driver: Driver) -> None:
    driver.run(at=1000)
    idle, used = opened(driver), opened(driver)
    driver.one(scoped(used, 1), at=2000)
    driver.run(at=601_000)
    for one in (driver, driver.copy()):
        assert one.one(scoped(idle, 1)) == [c.FORGOTTEN]
        assert one.one(scoped(used, 1))[2] == 1
        # A new scope is another one.
        assert opened(one) == used + 1
    driver.run(at=1_300_000)
    assert not driver.machine.scopes.by_id
    assert driver.machine.scopes.bytes_kept == 0
    assert driver.one(scoped(used, 1)) == [c.FORGOTTEN]


def test_many_scopes_are_closed_some_at_a_time(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "CLOSED_PER_ENTRY_MAX", 2)
    for _ in range(5):
        opened(driver)
    left = []
    for _ in range(3):
        driver.run(at=driver.at_ms + 600_000)
        left.append(len(driver.machine.scopes.by_id))
    assert left == [3, 1, 0]


def test_a_scope_that_keeps_too_much_forgets_its_lowest_numbers(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = scopes.RECORD_BYTES + 5
    monkeypatch.setattr(scopes, "SCOPE_KEPT_BYTES_MAX", 3 * record)
    scope, other = opened(driver), opened(driver)
    driver.one(scoped(other, 1))
    driver.run(*(scoped(scope, number) for number in (2, 9, 4, 7)))
    for one in (driver, driver.copy()):
        # The result of the second was dropped: neither it nor any below may take place now.
        assert one.run(scoped(scope, 1), scoped(scope, 2)) == [[c.FORGOTTEN]] * 2
        assert one.run(scoped(scope, 9), scoped(scope, 4), scoped(other, 1))[2][2] == 1
        # One above that has not come yet may.
        assert one.one(scoped(scope, 3))[2] == 6
        assert one.one(scoped(scope, 3)) == [c.FORGOTTEN]


def test_when_all_keep_too_much_the_scope_used_longest_ago_is_closed(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scopes, "KEPT_BYTES_MAX", 3 * scopes.SCOPE_BYTES)
    first, second, third = (opened(driver) for _ in range(3))
    driver.one(scoped(first, 1))
    for one in (driver, driver.copy()):
        assert list(one.machine.scopes.by_id) == [third, first]
        assert one.one(scoped(second, 1)) == [c.FORGOTTEN]
        opened(one)
        assert one.one(scoped(first, 1))[2] == 1
        assert one.one(scoped(third, 1)) == [c.FORGOTTEN]
        assert one.machine.scopes.bytes_kept <= scopes.KEPT_BYTES_MAX


@pytest.mark.parametrize(
    "command",
    [
        *(c.scoped(scope, "x", 1, 1, INCR) for scope in (0, -1, True, "1", 2**63)),  # type: ignore[arg-type]
        *(c.scoped(1, nonce, 1, 1, INCR) for nonce in ("", "x" * 257, 5)),  # type: ignore[arg-type]
        *(c.scoped(1, "x", number, 1, INCR) for number in (0, -1, True, None, 2**63)),  # type: ignore[arg-type]
        *(c.scoped(1, "x", 2, lowest, INCR) for lowest in (0, 3, True, None)),  # type: ignore[arg-type]
        *(
            c.scoped(1, "x", 1, 1, inner)
            for inner in (c.get("n"), c.noop(), c.open_scope("x"), c.idempotent("k", INCR), ())
        ),
        c.scoped(1, "x", 1, 1, c.scoped(1, "x", 2, 1, INCR)),
        (c.SCOPED, 1, "x", 1, 1),
        *((c.OPEN_SCOPE, nonce) for nonce in ("", "x" * 257, 5)),
        (c.OPEN_SCOPE,),
    ],
)
def test_what_is_no_scoped_command_is_malformed_and_changes_nothing(driver: Driver, command: c.Command) -> None:
    opened(driver)
    before = driver.machine.contents_digest()
    machine = driver.copy()
    assert machine.one(command)[0] == c.MALFORMED
    machine.machine.applied_index -= 1
    assert machine.machine.contents_digest() == before


def test_the_account_is_right_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "SCOPE_KEPT_BYTES_MAX", 3000)
    monkeypatch.setattr(scopes, "KEPT_BYTES_MAX", 20_000)
    random = Random(3)
    driver = Driver()
    driver.run(*sets(["large"], bytes(5000)))
    done: set[tuple[int, int]] = set()
    for _ in range(3000):
        driver.at_ms += random.choice((0, 0, 10, 30_000))
        if random.random() < 0.05:
            opened(driver)
        latest = driver.machine.scopes.latest_id
        scope, number = random.randrange(max(1, latest - 9), latest + 2), random.randrange(1, 40)
        read = c.batch([c.incr("n", 1, 0), c.get("large")])
        before = driver.machine.lookup("n", 0)
        lowest = random.randrange(1, number + 1) if random.random() < 0.3 else 1
        driver.one(scoped(scope, number, lowest, read if random.random() < 0.2 else INCR))
        if driver.machine.lookup("n", 0) != before:
            assert (scope, number) not in done
            done.add((scope, number))
    table = driver.machine.scopes
    assert len(table.by_id) > 3
    for scope_id, one in table.by_id.items():
        assert sorted(one.numbers) == sorted(one.kept)
        assert all(number >= one.floor for number in one.kept)
        assert one.kept_bytes == sum(scopes.RECORD_BYTES + len(packed) for _, packed in one.kept.values())
        assert scope_id <= table.latest_id
    whole = sum(scopes.SCOPE_BYTES + one.kept_bytes for one in table.by_id.values())
    assert table.bytes_kept == whole <= 20_000
    owners = {(scope_id, number) for scope_id, one in table.by_id.items() for number in one.kept}
    assert {owner for owner, _ in driver.machine.answers} <= owners
    assert driver.copy().machine.contents_digest() == driver.machine.contents_digest()
