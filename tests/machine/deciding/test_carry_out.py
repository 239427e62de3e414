"""SET, DELETE, INCR, TOUCH and GET: results, conditions, versions; and what of any command on a key is refused."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver

from cacheflow import values
from cacheflow.machine.deciding.decisions import DECIDE
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.databases import PREFIXES
from cacheflow.machine.state import entries


def test_the_kinds_of_the_machine_are_those_of_values() -> None:
    assert (values.TEXT, values.BYTES) == (entries.KIND_TEXT, entries.KIND_BYTES)
    assert (values.HASH, values.SET) == (entries.KIND_HASH, entries.KIND_SET)
    assert values.SET == entries.KIND_MAX
    assert values.JSON == values.VALUE_MAX == entries.KIND_JSON == entries.KIND_VALUE_MAX
    # A client's key, behind the prefix of a database.
    assert entries.KEY_BYTES_MAX == values.KEY_BYTES_MAX + 2
    assert {len(prefix.encode()) for prefix in PREFIXES} == {0, 2}


def test_a_set_tells_version_creation_and_expiry(driver: Driver) -> None:
    assert driver.one(c.set_("k", b"1", 1, "text/plain", 50), at=100) == [c.OK, 1, True, 150]
    assert driver.one(c.set_("k", b"2", 0)) == [c.OK, 2, False, 0]
    assert driver.machine.lookup("k", 0) == (b"2", 0, None, 2, 0)


def test_two_writes_of_one_entry_have_two_versions(driver: Driver) -> None:
    assert [result[1] for result in driver.run(c.set_("k", b"1", 1), c.set_("k", b"2", 1))] == [1, 2]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("when", [c.ALWAYS, c.IF_ABSENT, c.IF_PRESENT, c.IF_VERSION])
def test_a_condition_is_judged_by_the_live_entry(driver: Driver, there: bool, when: int) -> None:
    driver.put("other")
    if there:
        driver.put("k")
    right = when == c.ALWAYS or there != (when == c.IF_ABSENT)
    result = driver.one(c.set_("k", b"new", 1, when=when, version=2))
    assert result == ([c.OK, 3 if there else 2, not there, 0] if right else [c.PRECONDITION, 2 if there else 0])


def test_a_write_with_an_older_version_fails_and_tells_the_present_one(driver: Driver) -> None:
    driver.put("k")
    driver.put("k")
    assert driver.one(c.set_("k", b"new", 1, when=c.IF_VERSION, version=1)) == [c.PRECONDITION, 2]
    assert driver.one(c.delete("k", version=1)) == [c.PRECONDITION, 2]
    assert driver.one(c.delete("k", version=2)) == [c.OK, 3]
    assert driver.one(c.delete("k", version=2)) == [c.PRECONDITION, 0]
    assert driver.one(c.delete("k")) == [c.MISSING]


def test_of_two_nodes_that_compare_and_set_in_one_entry_one_wins(driver: Driver) -> None:
    driver.put("k")
    sessions = [driver.session("a"), driver.session("b")]
    settled = driver.entry(
        *(c.encode_block(one, 1, 1, [c.set_("k", b"%d" % one, 1, when=c.IF_VERSION, version=1)]) for one in sessions)
    )
    assert [results[0][0] for _, _, results in settled] == [c.OK, c.PRECONDITION]
    assert settled[1][2][0] == [c.PRECONDITION, settled[0][2][0][1]]


def test_set_can_keep_the_ttl_of_a_live_entry_only(driver: Driver) -> None:
    driver.put("k", ttl_ms=50)
    kept = c.set_("k", b"2", 1, ttl_ms=c.TTL_KEEP)
    assert driver.one(kept, at=40)[3] == 51
    assert driver.one(kept, at=51) == [c.OK, 4, True, 0]


def test_incr_creates_adds_and_keeps_kind_meta_and_ttl(driver: Driver) -> None:
    assert driver.one(c.incr("n", 5)) == [c.MISSING]
    assert driver.one(c.incr("n", 5, 10, 100), at=1) == [c.OK, 1, 15, 101]
    assert driver.machine.lookup("n", 0) == (b"15", values.JSON, None, 1, 101)
    driver.run(c.set_("t", b"-7", values.TEXT, "text/plain", 100))
    assert driver.one(c.incr("t", 9, 1, 5)) == [c.OK, 3, 2, 101]
    assert driver.machine.lookup("t", 0) == (b"2", values.TEXT, "text/plain", 3, 101)


@pytest.mark.parametrize("data", [b"0", b"-1", b"9223372036854775806", b"-9223372036854775808", b"10"])
def test_incr_takes_any_decimal_64_bit_integer(driver: Driver, data: bytes) -> None:
    driver.put("n", data=data)
    assert driver.one(c.incr("n", 1)) == [c.OK, 2, int(data) + 1, 0]
    assert driver.machine.contents.raw["n"][0] == b"%d" % (int(data) + 1)


OUTSIDE_64_BITS = [b"9223372036854775808", b"-9223372036854775809", b"9" * 19]


@pytest.mark.parametrize(
    "data",
    [
        *OUTSIDE_64_BITS,
        b"",
        b"-",
        b"-0",
        b"+1",
        b" 1",
        b"1 ",
        b"1\n",
        b"01",
        b"1.0",
        b"1e3",
        b"x",
        b"9" * 400,
        "١".encode(),
    ],
)
def test_incr_of_anything_else_fails_and_changes_nothing(driver: Driver, data: bytes) -> None:
    driver.put("n", data=data)
    assert driver.one(c.incr("n", 1))[0] == c.NOT_AN_INTEGER
    assert driver.machine.contents.raw["n"] == (data, 1, None, 1, 0)


def test_a_sum_outside_64_bits_fails_and_changes_nothing(driver: Driver) -> None:
    driver.put("n", data=b"%d" % c.INT64_MAX)
    assert driver.one(c.incr("n", 1))[0] == c.NOT_AN_INTEGER
    assert driver.one(c.incr("m", -1, c.INT64_MIN))[0] == c.NOT_AN_INTEGER
    assert driver.machine.contents.revision == 1


def test_touch_changes_the_expiry_and_nothing_else(driver: Driver) -> None:
    assert driver.one(c.touch("k", 5)) == [c.MISSING]
    driver.put("k")
    assert driver.one(c.touch("k", 50), at=100) == [c.OK, 1, 150]
    assert driver.one(c.touch("k", c.TTL_KEEP)) == [c.OK, 1, 150]
    assert driver.one(c.touch("k", c.TTL_NONE)) == [c.OK, 1, 0]
    assert driver.machine.lookup("k", 0) == (b"x", 1, None, 1, 0)


def test_get_returns_the_entry(driver: Driver) -> None:
    assert driver.one(c.get("k")) == [c.MISSING]
    driver.run(c.set_("k", b"v", 0, 7, 9), at=1)
    assert driver.one(c.get("k")) == [c.OK, b"v", 0, 7, 1, 10]


def test_a_key_has_at_most_1026_bytes_with_the_prefix_of_its_database(driver: Driver) -> None:
    for longest in ("k" * 1024, "ü" * 512):
        assert driver.one(c.set_(longest, b"", 1))[0] == c.OK
        assert driver.one(c.set_(f"\x01f{longest}", b"", 1))[0] == c.OK
    for key in ("", "k" * 1027, "ü" * 514, "\x01f" + "k" * 1025):
        for good in GOOD.values():
            assert driver.one([good[0], key, *good[2:]])[0] == c.MALFORMED


GOOD: dict[int, list[Any]] = {
    c.SET: [c.SET, "k", b"1", 1, None, 0, c.ALWAYS, 0],
    c.DELETE: [c.DELETE, "k", 0],
    c.INCR: [c.INCR, "k", 1, 1, 0],
    c.TOUCH: [c.TOUCH, "k", 0],
    c.GET: [c.GET, "k"],
    c.APPEND: [c.APPEND, "k", b"1", False, True],
    c.COUNT: [c.COUNT, "k", 1, False, 1, 0],
    c.EXPIRE: [c.EXPIRE, "k", 1, c.ALWAYS],
    c.SET_FIELDS: [c.SET_FIELDS, "k", 3, [b"f", b"1"], False, 100],
    c.REMOVE_FIELDS: [c.REMOVE_FIELDS, "k", 3, [b"f"]],
    c.COUNT_FIELD: [c.COUNT_FIELD, "k", b"f", 1, 100],
}
ANY_NUMBER = (
    *((c.INCR, 2), (c.INCR, 3), (c.SET, 7), (c.DELETE, 2), (c.COUNT, 2), (c.COUNT, 4)),
    *((c.SET_FIELDS, 5), (c.COUNT_FIELD, 3), (c.COUNT_FIELD, 4)),
)
NEVER_RIGHT: list[Any] = [-2, 10**15, True, 1.5, [], {}, "x" * 1027]


@pytest.mark.parametrize("op", list(DECIDE))
@pytest.mark.parametrize("wrong", NEVER_RIGHT)
def test_a_wrong_field_makes_a_command_malformed(driver: Driver, op: int, wrong: Any) -> None:
    driver.put("k", data=b"1")
    before = driver.machine.contents_digest()
    for position in range(1, len(GOOD[op])):
        command = [*GOOD[op][:position], wrong, *GOOD[op][position + 1 :]]
        if position == 4 and op == c.SET and type(wrong) is int:
            continue  # wire flags
        if (op, position) in ANY_NUMBER and wrong == 10**15:
            continue  # a number like any other
        if (op, position) in ((c.APPEND, 3), (c.APPEND, 4), (c.COUNT, 3), (c.SET_FIELDS, 4)) and wrong is True:
            continue
        if (op, position) in ((c.INCR, 2), (c.INCR, 3), (c.EXPIRE, 2), (c.COUNT_FIELD, 3)) and wrong == -2:
            continue
        driver.machine.applied_index -= 1
        assert driver.one(command)[0] == c.MALFORMED, command
    assert driver.machine.contents_digest() == before


@pytest.mark.parametrize("op", list(DECIDE))
def test_a_missing_or_surplus_field_makes_a_command_malformed(driver: Driver, op: int) -> None:
    for command in (GOOD[op][:-1], [*GOOD[op], 0], [op]):
        assert driver.one(command)[0] == c.MALFORMED
    assert driver.machine.contents.revision == 0


@pytest.mark.parametrize(
    "command", [None, 1, "x", b"\x01", [], {}, [None], [True, "k"], ["SET"], [99], [1.0, "k"], [[]]]
)
def test_what_is_no_command_is_malformed(driver: Driver, command: Any) -> None:
    assert driver.one(command)[0] == c.MALFORMED
