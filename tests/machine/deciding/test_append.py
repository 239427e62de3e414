"""APPEND: the value grows at either end, and what it then is."""

from __future__ import annotations

import pytest
from machine.driver import Driver

from cacheflow.config import NodeConfig
from cacheflow.errors import ConfigError
from cacheflow.machine.effects import APPENDED, EXPIRED, WRITTEN
from cacheflow.machine.language import commands as c
from cacheflow.machine.state.entries import APPENDED_BYTES_MAX
from cacheflow.values import BYTES, JSON, TEXT


def test_it_adds_behind_or_in_front_and_keeps_meta_and_ttl(driver: Driver) -> None:
    driver.run(c.set_("k", b"b", TEXT, "text/plain", 50), at=100)
    assert driver.one(c.append("k", b"cd")) == [c.OK, 2, 3, 150]
    assert driver.one(c.append("k", b"a", front=True), at=120) == [c.OK, 3, 4, 150]
    assert driver.machine.lookup("k", 0) == (b"abcd", TEXT, "text/plain", 3, 150)


def test_an_absent_key_is_created_only_on_demand(driver: Driver) -> None:
    assert driver.one(c.append("k", b"x")) == [c.MISSING]
    assert driver.one(c.append("k", b"x", create=True)) == [c.OK, 1, 1, 0]
    assert driver.machine.lookup("k", 0) == (b"x", TEXT, None, 1, 0)
    assert driver.told() == [(WRITTEN, "k")]


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize(
    ("kind", "old", "added", "wanted"),
    [
        (TEXT, b"a", "ü".encode(), TEXT),
        (TEXT, b"a", b"\xc3", BYTES),
        (TEXT, b"a", b"\xed\xa0\x80", BYTES),
        (TEXT, b"a", b"", TEXT),
        (BYTES, b"a", b"b", BYTES),
        (BYTES, b"\xff", b"b", BYTES),
        (JSON, b"1", b"2", TEXT),
        (JSON, b"1", b"\xff", BYTES),
        (None, b"", b"a", TEXT),
        (None, b"", b"\xff", BYTES),
    ],
)
def test_it_is_text_while_only_text_was_added(
    driver: Driver, front: bool, kind: int | None, old: bytes, added: bytes, wanted: int
) -> None:
    if kind is not None:
        driver.one(c.set_("k", old, kind))
    driver.one(c.append("k", added, front=front, create=True))
    assert driver.machine.contents.raw["k"][:2] == (added + old if front else old + added, wanted)


def test_text_that_was_cut_inside_a_character_stays_bytes_when_the_rest_comes(driver: Driver) -> None:
    driver.run(*(c.append("k", part, create=True) for part in (b"a\xc3", b"\xbc")))
    assert driver.machine.contents.raw["k"][:2] == ("aü".encode(), BYTES)


def test_a_key_past_its_expiry_is_absent(driver: Driver) -> None:
    driver.put(*(f"k{number:04}" for number in range(1000)), ttl_ms=5)
    driver.put("late", data=b"1", ttl_ms=5)
    assert driver.one(c.append("late", b"2"), at=6) == [c.MISSING]
    driver.put("late", data=b"1", ttl_ms=5)
    driver.put(*(f"k{number:04}" for number in range(1000)), ttl_ms=4)
    assert driver.one(c.append("late", b"2", create=True), at=11)[2:] == [1, 0]
    assert driver.told()[-2:] == [(EXPIRED, "late"), (WRITTEN, "late")]


def test_a_value_cannot_outgrow_the_cache(driver: Driver) -> None:
    driver.one(c.configure({"max_bytes": 1024}))
    driver.put("k", "other", data=bytes(400))
    assert driver.one(c.append("k", bytes(1024 - 65 - 400))) == [c.OK, 4, 1024 - 65, 0]
    assert driver.live() == ["k"]
    assert driver.one(c.append("k", b"x"))[0] == c.TOO_LARGE
    assert driver.one(c.append("new", bytes(1024), create=True))[0] == c.TOO_LARGE
    assert len(driver.machine.contents.raw["k"][0]) == 1024 - 65


def test_a_value_cannot_outgrow_what_any_node_may_be_set_to(driver: Driver) -> None:
    NodeConfig(max_value_bytes=APPENDED_BYTES_MAX)
    with pytest.raises(ConfigError):
        NodeConfig(max_value_bytes=APPENDED_BYTES_MAX + 1)
    driver.put("k", data=bytes(APPENDED_BYTES_MAX - 1))
    assert driver.one(c.append("k", b"x"))[:3] == [c.OK, 2, APPENDED_BYTES_MAX]
    for front in (False, True):
        assert driver.one(c.append("k", b"x", front=front))[0] == c.TOO_LARGE
    assert driver.one(c.append("new", bytes(APPENDED_BYTES_MAX + 1), create=True))[0] == c.TOO_LARGE


def test_it_counts_as_a_use_and_tells_only_what_was_added(cache: Driver) -> None:
    cache.put("a", "b")
    cache.one(c.append("a", b"y", front=True))
    assert cache.order() == ["b", "a"]
    assert cache.machine.contents.effects == [(APPENDED, "a", 3, 0, b"y", True, BYTES)]


def test_the_digest_tells_either_end_and_every_addition_apart() -> None:
    digests = set()
    for data, front in ((b"y", False), (b"y", True), (b"z", False)):
        driver = Driver()
        driver.put("a")
        driver.one(c.append("a", data, front=front))
        digests.add(driver.machine.digest)
    assert len(digests) == 3
