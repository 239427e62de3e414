"""COUNT: memcached's unsigned counters."""

from __future__ import annotations

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c
from cacheflow.values import JSON, TEXT

MAX = 2**64 - 1


@pytest.mark.parametrize(
    ("old", "delta", "number"),
    [
        (b"1", 2, 3),
        (b"5", -2, 3),
        (b"5", -6, 0),
        (b"0", -1, 0),
        (b"5", 0, 5),
        (b"007", 1, 8),
        (b"%d" % MAX, 1, 0),
        (b"%d" % MAX, MAX, MAX - 1),
        (b"%d" % MAX, -MAX, 0),
        (b"%d" % MAX, -(2**63) - 1, 2**63 - 2),
        (b"%d" % (MAX - 1), 1, MAX),
        (b"00000000000000000001", 1, 2),
    ],
)
def test_it_wraps_upwards_and_stops_at_nought(driver: Driver, old: bytes, delta: int, number: int) -> None:
    driver.put("n", data=old)
    assert driver.one(c.count("n", delta)) == [c.OK, 2, number, 0]
    assert driver.machine.contents.raw["n"][0] == b"%d" % number


def test_an_absent_counter_becomes_the_first_number_itself(driver: Driver) -> None:
    assert driver.one(c.count("n", 5)) == [c.MISSING]
    assert driver.one(c.count("n", 5, MAX, 100), at=1) == [c.OK, 1, MAX, 101]
    assert driver.machine.lookup("n", 0) == (b"%d" % MAX, JSON, None, 1, 101)
    assert driver.one(c.count("m", -5, 0)) == [c.OK, 2, 0, 0]


def test_it_keeps_kind_meta_and_ttl(driver: Driver) -> None:
    driver.run(c.set_("n", b"7", TEXT, 13, 100), at=1)
    assert driver.one(c.count("n", 9, 1, 5)) == [c.OK, 2, 16, 101]
    assert driver.machine.lookup("n", 0) == (b"16", TEXT, 13, 2, 101)


@pytest.mark.parametrize(
    "data", [b"", b"-1", b"+1", b" 1", b"1 ", b"1\n", b"1.0", b"x", b"%d" % (MAX + 1), b"0" * 21, "١".encode()]
)
def test_anything_else_is_no_counter_and_stays(driver: Driver, data: bytes) -> None:
    driver.put("n", data=data)
    assert driver.one(c.count("n", 1, 7))[0] == c.NOT_AN_INTEGER
    assert driver.machine.contents.raw["n"] == (data, 1, None, 1, 0)


@pytest.mark.parametrize("command", [c.count("n", MAX + 1), c.count("n", -MAX - 1), c.count("n", 1, MAX + 1)])
def test_a_number_of_more_than_64_bits_cannot_even_be_sent(command: c.Command) -> None:
    with pytest.raises(OverflowError):
        c.encode_block(0, 0, 0, [command])


@pytest.mark.parametrize(
    "command", [c.count("n", 1, -1), (c.COUNT, "n", -1, False, None, 0), (c.COUNT, "n", 1, 0, 0, 0)]
)
def test_a_negative_number_or_another_direction_is_malformed(driver: Driver, command: c.Command) -> None:
    assert driver.one(command)[0] == c.MALFORMED


def test_a_counter_that_grows_beyond_the_cache_is_refused(driver: Driver) -> None:
    driver.one(c.configure({"max_bytes": 1024}))
    key = "k" * (1024 - 64 - 1)
    driver.put(key, data=b"9")
    assert driver.one(c.count(key, 1))[0] == c.TOO_LARGE
    assert driver.one(c.count(key, -1))[0] == c.OK
