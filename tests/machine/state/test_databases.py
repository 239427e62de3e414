"""Databases in the machine: their keys, their counts, and who does not see them."""

from __future__ import annotations

from machine.driver import Driver, assert_invariants

from cacheflow.machine.language import commands as c
from cacheflow.machine.language.databases import DATABASES, OTHERS_BEFORE, PREFIXES, database_of, keys_of_database

# Texts that no front makes, but a peer may send.
SENSELESS = ["\x01", "\x01g", "\x01G", "\x010x", "\x01é", "\x00", "\x7f"]


def test_a_prefix_tells_the_database_and_any_text_has_one() -> None:
    for number, prefix in enumerate(PREFIXES):
        assert database_of(f"{prefix}k") == number
        assert (prefix < OTHERS_BEFORE) and (number == 0 or prefix == f"\x01{number:x}")
    assert {database_of(key) for key in SENSELESS} == {0}
    keys = [f"{prefix}k" for prefix in PREFIXES]
    assert [keys_of_database(keys, number) for number in range(DATABASES)] == [[key] for key in keys]


def test_a_list_of_keys_is_one_of_database_0(driver: Driver) -> None:
    driver.put("\x01aa", "\x01fz", "b", "a", " ", "é")
    assert driver.machine.keys() == ([" ", "a", "b", "é"], None)
    assert driver.machine.keys(limit=2) == ([" ", "a"], "a")
    assert driver.machine.keys(after="\x01a") == ([" ", "a", "b", "é"], None)
    assert driver.machine.keys(prefix="a") == (["a"], None)


def test_clearing_a_database_leaves_the_others(driver: Driver) -> None:
    driver.put("\x01aa", "\x01fz", "b", "a")
    assert driver.count(driver.one(c.clear_database(10, counted=True))[1]) == 1
    assert driver.live() == ["\x01fz", "a", "b"]
    assert driver.count(driver.one(c.clear_database(0, counted=True))[1]) == 2
    assert driver.live() == ["\x01fz"]
    driver.put("a")
    driver.one(c.clear_all())
    assert driver.live() == []


def test_databases_are_counted_whatever_happens_to_their_keys(driver: Driver) -> None:
    driver.one(c.configure({"max_items": 5}))
    for number, key in enumerate(("a", "\x013a", "\x013b", "\x01fa", *SENSELESS) * 3):
        # New and again, with and without an expiry; others go for them.
        driver.put(key, ttl_ms=(0, 40, 0, 7)[number % 4])
        assert_invariants(driver.machine)
        assert_invariants(driver.copy().machine)
        driver.at_ms += 3
    driver.run(*[c.touch(key, 50) for key in SENSELESS], c.delete("\x01fa"), c.incr("\x013n", 1, 0, 9))
    assert_invariants(driver.machine)
    driver.run(c.batch([c.set_("\x013a", b"1", 0), c.append("\x013a", b"2")]), at=driver.at_ms + 100)
    assert_invariants(driver.machine)
    assert driver.machine.contents.count_of(3) == 1


def test_databases_are_counted_when_many_keys_go_at_once(driver: Driver) -> None:
    for lost in (c.delete_prefix("\x013"), c.clear_database(3), c.configure({"max_items": 4}), c.clear_all()):
        driver.put("a", "\x013a", "\x01fa", ttl_ms=10_000)
        driver.put("b", "\x013b", "\x01fb", "c", "d")
        driver.run(lost)
        assert_invariants(driver.machine)
        assert_invariants(driver.copy().machine)
