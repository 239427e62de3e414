"""A client's Idempotency-Key: the command once, the result as often as it is asked for, within ten minutes."""

from __future__ import annotations

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.machine.state import answers, idempotency

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
    answer = driver.one(command)
    assert (answer[0], driver.count(answer[1])) == (c.SWEEPING, 1)
    driver.put("k")
    assert driver.one(command) == answer
    assert driver.live() == ["k"]


@pytest.mark.parametrize(
    "command",
    [
        c.append("n", b"1", create=True),
        c.count("n", 1, 0),
        c.expire("n", 5),
        c.guarded([("n", 0, 0)], [c.append("n", b"1", create=True), c.expire("n", 0)]),
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
    command = c.idempotent("key", c.guarded([("n", 1, 0)], [c.count("n", 1, 0)]))
    assert driver.one(command) == [c.PRECONDITION, 0]
    driver.put("n", data=b"1")
    assert driver.one(command) == [c.PRECONDITION, 0]


def test_an_answer_larger_than_the_table_is_given_and_not_kept(driver: Driver) -> None:
    driver.run(c.set_("k", bytes(2**20), 1), INCR)
    reads = c.idempotent("reads", c.batch([c.get("k")] * 10_000))
    assert len(driver.one(reads)[1]) == 10_000
    assert list(driver.machine.idempotency.kept) == ["key", "reads"]
    assert driver.one(reads) == [c.NOT_KEPT]


def test_results_are_kept_ten_minutes_of_machine_time(driver: Driver) -> None:
    driver.one(INCR, at=1)
    assert driver.one(INCR, at=600_000)[1] == 1
    assert driver.one(INCR, at=600_001)[1] == 2
    driver.run(at=1_200_001)
    assert len(driver.machine.idempotency.kept) == 0


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
        (c.IDEMPOTENT, "key", 0, None),
        (c.IDEMPOTENT, "key", c.incr("n", 1, 0)),
        (c.IDEMPOTENT, "key"),
        c.idempotent("key", c.scoped(1, "x", 1, 1, c.incr("n", 1, 0))),
        *(c.idempotent("key", c.incr("n", 1, 0), index) for index in (-1, True, 1.5, None, 2**63)),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_idempotent_is_malformed(driver: Driver, command: c.Command) -> None:
    assert driver.one(command)[0] == c.MALFORMED
    assert len(driver.machine.idempotency.kept) == 0


def test_a_malformed_command_is_not_kept(driver: Driver) -> None:
    assert driver.one(c.idempotent("key", c.set_("k", b"", 9)))[0] == c.MALFORMED
    assert driver.one(INCR)[0] == c.OK


def test_the_oldest_keys_are_dropped_beyond_the_bytes(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT_BYTES_MAX", 3 * (idempotency.RECORD_BYTES + 50))
    for number in range(1, 5):
        driver.one(c.idempotent(f"k{number}", c.incr("n", 1, 0)), at=100 * number)
    first = driver.machine.applied_index - 3
    for one in (driver, driver.copy()):
        assert list(one.machine.idempotency.kept) == ["k2", "k3", "k4"]
        assert one.machine.idempotency.bytes_kept <= idempotency.KEPT_BYTES_MAX
        # What it reaches back to is known: what can only be in a later entry has not taken place.
        assert (one.machine.idempotency.reaches_index, one.machine.idempotency.reaches_ms) == (first, 100)
        assert one.one(c.idempotent("k1", c.incr("n", 1, 0), first)) == [c.FORGOTTEN]
        assert one.one(c.idempotent("k5", c.incr("n", 1, 0), first + 1))[2] == 5
        # One that does not tell since when it tries is done (again).
        assert one.one(c.idempotent("k1", c.incr("n", 1, 0)))[2] == 6


def test_a_key_beyond_its_ten_minutes_is_forgotten_for_who_tells_its_age(driver: Driver) -> None:
    driver.one(INCR, at=1000)
    index = driver.machine.applied_index
    driver.run(at=601_000)
    assert driver.one(c.idempotent("key", c.incr("n", 1, 0), index)) == [c.FORGOTTEN]
    assert driver.one(c.idempotent("key", c.incr("n", 1, 0), index + 1))[2] == 2


def test_a_dropped_key_is_forgotten_although_the_machines_time_has_jumped(driver: Driver) -> None:
    driver.one(INCR, at=1000)
    index = driver.machine.applied_index
    driver.run(at=3_600_000)
    assert driver.one(c.idempotent("key", c.incr("n", 1, 0), index), at=3_600_000) == [c.FORGOTTEN]


def test_a_key_counts_with_what_it_takes(driver: Driver) -> None:
    driver.one(c.idempotent("k" * 256, c.incr("n", 1, 0)))
    ascii_bytes = driver.machine.idempotency.bytes_kept
    driver.one(c.idempotent("ü" * 256, c.incr("n", 1, 0)))
    assert ascii_bytes == idempotency.RECORD_BYTES + 256 + 5
    assert driver.machine.idempotency.bytes_kept == 2 * ascii_bytes + 3 * 256
    assert driver.copy().machine.idempotency.bytes_kept == driver.machine.idempotency.bytes_kept


def test_some_keys_are_dropped_in_one_entry_and_the_rest_later(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "DROPPED_PER_ENTRY_MAX", 2)
    driver.run(*(c.idempotent(f"k{number}", c.incr("n", 1, 0)) for number in range(5)), at=1)
    left = []
    for _ in range(3):
        driver.run(at=driver.at_ms + 600_000)
        left.append(len(driver.machine.idempotency.kept))
    assert left == [3, 1, 0]


def test_large_answers_push_out_large_answers_and_no_key(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LARGE_BYTES_MAX", 25_000)
    scope = driver.one(c.open_scope("x"))[1]
    driver.run(c.set_("large", bytes(10_000), 1), INCR)
    read = c.batch([c.get("large")])
    first = c.idempotent("first", read)
    second, third = (c.scoped(scope, "x", number, 1, read) for number in (1, 2))
    values = driver.run(first, second, third)
    for one in (driver, driver.copy()):
        assert one.run(first, second, third) == [[c.NOT_KEPT], *values[1:]]
        assert one.one(INCR)[2] == 1
        assert one.machine.answers.bytes_kept <= 25_000
    # An answer goes with its record.
    driver.one(c.scoped(scope, "x", 9, 9, c.incr("n", 1, 0)))
    assert driver.machine.answers.bytes_kept == 0
    driver.one(c.idempotent("again", read))
    driver.run(at=driver.at_ms + 600_000)
    assert driver.machine.answers.bytes_kept == 0
