"""A client's Idempotency-Key: the command once, the result as often as it is asked for, within ten minutes."""

from __future__ import annotations

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.state import idempotency
from cacheflow.machine.state.idempotency import IdempotencyTable

INCR = c.idempotent("key", c.incr("n", 1, 0))


def test_the_second_time_gives_the_first_result(driver: Driver) -> None:
    first = driver.one(INCR)
    assert first == [c.OK, 1, 1, 0]
    assert driver.run(INCR, INCR) == [first, first]
    assert driver.machine.contents.revision == 1


def test_a_failure_is_kept_like_a_success(driver: Driver) -> None:
    command = c.idempotent("key", c.incr("n", 1))
    assert driver.one(command) == [c.MISSING]
    driver.put("n", data=b"1")
    assert driver.one(command) == [c.MISSING]


def test_the_same_key_with_another_command_is_refused(driver: Driver) -> None:
    driver.one(INCR)
    assert driver.one(c.idempotent("key", c.incr("n", 2, 0))) == [c.KEY_REUSED]
    assert driver.one(c.idempotent("other", c.incr("n", 2, 0)))[0] == c.OK


def test_a_batch_can_be_idempotent(driver: Driver) -> None:
    command = c.idempotent("key", c.batch([c.incr("n", 1, 0), c.get("n")], atomic=True))
    assert driver.one(command) == driver.one(command)
    assert driver.machine.contents.revision == 1


def test_a_removal_by_prefix_can_be_idempotent(driver: Driver) -> None:
    driver.put("k")
    command = c.idempotent("key", c.delete_prefix("k"))
    assert driver.one(command) == [c.OK, 1]
    driver.put("k")
    assert driver.one(command) == [c.OK, 1]
    assert driver.live() == ["k"]


@pytest.mark.parametrize(
    "command",
    [
        c.append("n", b"1", create=True),
        c.count("n", 1, 0),
        c.expire("n", 5),
        c.guarded([("n", 0)], [c.append("n", b"1", create=True), c.expire("n", 0)]),
    ],
)
def test_every_write_can_be_idempotent(driver: Driver, command: c.Command) -> None:
    once = c.idempotent("key", command)
    first = driver.one(once)
    driver.run(c.set_("n", b"5", 1), c.count("n", 3))
    before = driver.machine.contents.raw["n"]
    assert driver.one(once) == first
    assert driver.machine.contents.raw["n"] == before


def test_a_condition_that_did_not_hold_is_kept_as_well(driver: Driver) -> None:
    command = c.idempotent("key", c.guarded([("n", 1)], [c.count("n", 1, 0)]))
    assert driver.one(command) == [c.PRECONDITION, 0]
    driver.put("n", data=b"1")
    assert driver.one(command) == [c.PRECONDITION, 0]


def test_an_answer_larger_than_the_table_is_given_and_not_kept(driver: Driver) -> None:
    driver.run(c.set_("k", bytes(2**20), 1), INCR)
    reads = c.idempotent("reads", c.batch([c.get("k")] * 10_000))
    assert len(driver.one(reads)[1]) == 10_000
    assert [key for key, _ in driver.machine.idempotency] == ["key"]


def test_results_are_kept_ten_minutes_of_machine_time(driver: Driver) -> None:
    driver.one(INCR, at=1)
    assert driver.one(INCR, at=600_000)[1] == 1
    assert driver.one(INCR, at=600_001)[1] == 2
    driver.run(at=1_200_001)
    assert len(driver.machine.idempotency) == 0


@pytest.mark.parametrize(
    "command",
    [
        c.idempotent("", c.incr("n", 1, 0)),
        c.idempotent("k" * 257, c.incr("n", 1, 0)),
        c.idempotent(7, c.incr("n", 1, 0)),  # type: ignore[arg-type]
        c.idempotent("key", c.get("n")),
        c.idempotent("key", INCR),
        c.idempotent("key", c.noop()),
        c.idempotent("key", ()),
        (c.IDEMPOTENT, "key", None),
        (c.IDEMPOTENT, "key"),
    ],
)
def test_what_cannot_be_idempotent_is_malformed(driver: Driver, command: c.Command) -> None:
    assert driver.one(command)[0] == c.MALFORMED
    assert len(driver.machine.idempotency) == 0


def test_a_malformed_command_is_not_kept(driver: Driver) -> None:
    assert driver.one(c.idempotent("key", c.set_("k", b"", 9)))[0] == c.MALFORMED
    assert driver.one(INCR)[0] == c.OK


def test_the_oldest_results_are_dropped_beyond_the_bounds() -> None:
    table = IdempotencyTable()
    for number in range(idempotency.KEPT_MAX + 1):
        table.keep(f"k{number}", b"print", [c.OK], 0)
    assert len(table) == idempotency.KEPT_MAX
    assert table.find("k0") is None
    assert table.find("k1") == (b"print", [c.OK])
    table.keep("large", b"print", [c.OK, bytes(idempotency.KEPT_BYTES_MAX - 100)], 0)
    assert 1 < len(table) < 100
    table.keep("large too", b"print", [c.OK, bytes(1000)], 0)
    assert table.find("large") is None or len(table) == 2
