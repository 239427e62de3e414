"""The machine as a whole: entries that are none, digests, reading, listing, the lookup of other threads."""

from __future__ import annotations

import gc
import weakref

import msgpack
import pytest
from machine.driver import Driver, assert_invariants, sets

from cacheflow.machine.eviction.lfu import LfuItems
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import DIGESTS_KEPT, CacheMachine


def test_a_new_machine_is_empty_and_past_the_first_entry_of_raft() -> None:
    machine = CacheMachine()
    assert (machine.applied_index, machine.contents.revision, machine.now_ms, len(machine.contents.raw)) == (1, 0, 0, 0)
    assert machine.digest_at(1) == machine.digest == bytes(16)


def test_an_empty_payload_moves_the_index_only(driver: Driver) -> None:
    driver.put("k", ttl_ms=5)
    digest = driver.machine.digest
    assert driver.apply(b"") == []
    assert driver.machine.applied_index == 3
    assert driver.machine.digest == digest
    assert driver.machine.contents.effects == []


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x00",
        b"\x90",
        b"nonsense",
        msgpack.packb(["1", []]),
        msgpack.packb([5, {}]),
        msgpack.packb([5, ["x"]]),
    ],
)
def test_a_malformed_entry_has_no_effect(driver: Driver, payload: bytes) -> None:
    driver.put("k")
    assert driver.apply(payload) == []
    assert driver.machine.now_ms == 1
    assert driver.machine.applied_index == 3


def test_a_malformed_block_is_skipped_and_the_others_are_not(driver: Driver) -> None:
    good = c.encode_block(0, 4, 0, [c.noop()])
    settled = driver.entry(good, b"", b"\xc1", msgpack.packb([0, 1, 1, None]), msgpack.packb([0, "1", 1, []]), good)
    assert settled == [(0, 4, [[c.OK]]), (0, 4, [[c.OK]])]


def test_blocks_settle_in_order_with_their_session_and_first_number(driver: Driver) -> None:
    session = driver.session()
    blocks = [
        c.encode_block(session, 1, 1, [c.noop()]),
        c.encode_block(9, 7, 7, [c.noop()]),
        c.encode_block(0, 0, 0, []),
    ]
    assert driver.entry(*blocks) == [(session, 1, [[c.OK]]), (9, 7, [[c.UNKNOWN_SESSION]]), (0, 0, [])]


def test_the_digest_covers_every_effect_and_only_effects(driver: Driver) -> None:
    digests = [driver.machine.digest]
    for command in (
        c.set_("k", b"1", 1),
        c.set_("k", b"2", 1),
        c.touch("k", 10**6),
        c.touch("k", 10**6 + 1),
        c.set_("k", b"2", 0),
        c.set_("k", b"2", 0, "meta"),
        c.delete("k"),
    ):
        driver.one(command)
        digests.append(driver.machine.digest)
    assert len(set(digests)) == len(digests)
    driver.run(c.get("k"), c.delete("k"), c.noop(), c.recency([("k", 1)]), c.open_session("a", "1", 1, "n"))
    assert driver.machine.digest == digests[-1]


def test_the_last_ten_thousand_digests_are_known(driver: Driver) -> None:
    known = {1: driver.machine.digest}
    for number in range(DIGESTS_KEPT + 20):
        driver.put(f"k{number % 50}") if number % 3 else driver.apply(b"")
        known[driver.machine.applied_index] = driver.machine.digest
    latest = driver.machine.applied_index
    for index in range(latest + 2):
        wanted = known.get(index) if index > latest - DIGESTS_KEPT else None
        assert driver.machine.digest_at(index) == wanted


def test_a_restored_machine_knows_no_digest_from_before(driver: Driver) -> None:
    driver.put("k")
    twin = driver.copy()
    assert twin.machine.digest_at(1) is None
    assert twin.machine.digest_at(2) == driver.machine.digest
    assert twin.machine.digest_at(3) is None


def test_reading_does_not_count_as_a_use(cache: Driver) -> None:
    cache.put(*"abc")
    before = cache.machine.contents_digest()
    cache.machine.lookup("a", 0)
    cache.machine.keys()
    assert cache.machine.contents_digest() == before
    assert cache.order() == [*"abc"]


def test_pages_of_keys_come_in_order_and_end(driver: Driver) -> None:
    keys = [f"k{number:02}" for number in range(25)]
    driver.put(*reversed(keys), "other", "ü")
    page, cursor = driver.machine.keys("k", 10)
    assert (page, cursor) == (keys[:10], "k09")
    page, cursor = driver.machine.keys("k", 15, "k09")
    assert (page, cursor) == (keys[10:], None)
    assert driver.machine.keys("", None) == ([*keys, "other", "ü"], None)
    assert driver.machine.keys("k", 0) == ([], "")
    assert driver.machine.keys("zz", 0) == ([], None)


@pytest.mark.parametrize("limit", [1, 10, 1999, 2000, 30_000])
def test_pages_of_many_keys_skip_the_dead_ones_and_tell_whether_one_follows(driver: Driver, limit: int) -> None:
    keys = [f"k{number * 7919 % 24_000:05}" for number in range(24_000)]
    driver.run(*sets(keys[:6000], ttl_ms=5), *sets(keys[6000:]))
    living, cursor = sorted(keys[6000:]), ""
    listed: list[str] = []
    for _ in range(3):
        page, after = driver.machine.keys("k", limit, cursor, now_ms=100)
        assert page == living[len(listed) : len(listed) + limit]
        listed += page
        assert after == (page[-1] if len(listed) < len(living) else None)
        if after is None:
            break
        cursor = after
    assert driver.machine.keys(now_ms=100)[0] == living


def test_a_page_whose_first_thousands_are_dead_is_full_all_the_same(driver: Driver) -> None:
    driver.run(*sets((f"a{number}" for number in range(9000)), ttl_ms=5), *sets("xyz"))
    assert driver.machine.keys(limit=2, now_ms=100) == (["x", "y"], "y")
    assert driver.machine.keys(limit=3, now_ms=100) == (["x", "y", "z"], None)
    assert driver.machine.keys("a", limit=0, now_ms=100) == ([], None)


def test_pages_go_on_where_they_were_when_keys_come_and_go(driver: Driver) -> None:
    driver.put(*"acegi")
    first, cursor = driver.machine.keys("", 2)
    driver.run(c.delete("c"), c.delete("a"), c.set_("b", b"", 1), c.set_("f", b"", 1))
    assert cursor is not None
    assert first + driver.machine.keys("", None, cursor)[0] == [*"acefgi"]


def test_listing_hides_what_is_past_due(driver: Driver) -> None:
    driver.put("a", "c")
    driver.put("b", ttl_ms=5)
    assert driver.machine.keys(now_ms=5)[0] == [*"abc"]
    assert driver.machine.keys(now_ms=6)[0] == [*"ac"]
    assert driver.machine.keys(limit=2, now_ms=6) == ([*"ac"], None)


def test_an_entry_of_many_commands_leaves_the_machine_sound(cache: Driver) -> None:
    cache.one(c.configure({"max_items": 100}))
    cache.run(*(c.set_(f"k{number % 300}", b"x" * (number % 7), 1, ttl_ms=number % 5) for number in range(5000)))
    assert_invariants(cache.machine)


def test_a_machine_that_is_replaced_is_freed_with_all_its_items_without_the_garbage_collector(cache: Driver) -> None:
    driver = Driver(CacheMachine.restore(cache.machine.snapshot()))
    driver.put("a", "b", "c", ttl_ms=5)
    driver.run(c.get("a"), c.batch([c.set_("d", b"x", 1)], atomic=True), c.guarded([], [c.get("b")]), c.noop())
    items = driver.machine.contents.items
    kept = [weakref.ref(one) for one in (driver.machine, driver.machine.contents, items)]
    if isinstance(items, LfuItems):
        kept.append(weakref.ref(items._LFUCache__root.next.keys))
    del items
    gc.disable()
    try:
        driver.machine = CacheMachine()
        assert [one() for one in kept] == [None] * len(kept)
    finally:
        gc.enable()
