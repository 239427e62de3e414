"""EXPIRE: a new TTL under a condition on the present one."""

from __future__ import annotations

import pytest
from machine.driver import Driver

from cacheflow.machine.language import commands as c

# A key without expiry, and one that ends 50 ms from now.
NEVER, LATER = 0, 50
NX, XX, GT, LT = c.IF_UNSET, c.IF_SET, c.IF_LATER, c.IF_EARLIER


@pytest.mark.parametrize(
    ("present", "wanted", "holds"),
    [
        (NEVER, 10, (0, NX, LT)),
        (NEVER, NEVER, (0, NX)),
        (LATER, 10, (0, XX, LT, XX | LT)),
        (LATER, 49, (0, XX, LT, XX | LT)),
        (LATER, 50, (0, XX)),
        (LATER, 51, (0, XX, GT, XX | GT)),
        (LATER, NEVER, (0, XX, GT, XX | GT)),
    ],
)
def test_a_condition_is_about_the_present_expiry(
    driver: Driver, present: int, wanted: int, holds: tuple[int, ...]
) -> None:
    for when in (0, NX, XX, GT, LT, XX | GT, XX | LT):
        driver.run(c.delete("k"), c.set_("k", b"x", 1, None, present), at=100)
        version = driver.machine.contents.revision
        result = driver.one(c.expire("k", wanted, when))
        if when in holds:
            assert result == [c.OK, version, 100 + wanted if wanted else 0], when
        else:
            assert result == [c.PRECONDITION, version], when
        expires_at_ms = driver.machine.contents.raw["k"][4]
        assert expires_at_ms == (result[2] if when in holds else 100 + present if present else 0)


@pytest.mark.parametrize(("present", "holds"), [(NEVER, (0, NX, LT)), (LATER, (0, XX, LT, XX | LT))])
def test_an_end_in_the_past_removes_the_key_where_the_condition_holds(
    driver: Driver, present: int, holds: tuple[int, ...]
) -> None:
    for when in (0, NX, XX, GT, LT, XX | GT, XX | LT):
        driver.run(c.delete("k"), c.set_("k", b"x", 1, None, present), at=100)
        result = driver.one(c.expire("k", c.TTL_ENDED, when))
        if when in holds:
            assert result == [c.OK, driver.machine.contents.revision] and "k" not in driver.machine.contents.raw, when
        else:
            assert result == [c.PRECONDITION, driver.machine.contents.revision] and "k" in driver.live(), when


def test_an_absent_key_is_missing_whatever_the_condition(driver: Driver) -> None:
    driver.put("k", ttl_ms=5)
    driver.run(at=100)
    for when in (0, NX, XX, GT, LT):
        assert driver.one(c.expire("k", 5, when)) == [c.MISSING]


def test_it_counts_as_a_use_when_it_takes_place(cache: Driver) -> None:
    cache.put("a", "b")
    cache.one(c.expire("a", 5, XX))
    assert cache.order() == ["a", "b"]
    cache.one(c.expire("a", 5, NX))
    assert cache.order() == ["b", "a"]


@pytest.mark.parametrize("when", [3, 5, 9, 12, 14, 17, 18, 32, -1, True, None])
def test_conditions_that_contradict_each_other_are_malformed(driver: Driver, when: int) -> None:
    driver.put("k", ttl_ms=5)
    assert driver.one(c.expire("k", 5, when))[0] == c.MALFORMED


@pytest.mark.parametrize("ttl_ms", [c.TTL_KEEP, -5, c.TTL_MS_MAX + 1, 1.0, None])
def test_a_ttl_is_a_number_above_nought_or_none(driver: Driver, ttl_ms: int) -> None:
    driver.put("k")
    assert driver.one(c.expire("k", ttl_ms))[0] == c.MALFORMED
