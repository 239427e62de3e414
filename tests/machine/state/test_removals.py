"""Removing by prefix, clearing and lowering a limit: at once for everybody, told in bounded steps."""

from __future__ import annotations

import pytest
from machine.driver import Driver, assert_invariants

from cacheflow.machine.effects import DELETED, EVICTED, WRITTEN
from cacheflow.machine.language import commands as c
from cacheflow.machine.state.removals import WHOLE_LOT_MIN, Removals


def test_a_prefix_removes_what_starts_with_it_and_tells_how_many(cache: Driver) -> None:
    cache.put("a1", "b1", "a2", "b2")
    assert cache.one(c.delete_prefix("a")) == [c.OK, 2]
    assert cache.live() == ["b1", "b2"]
    assert cache.told() == [(DELETED, "a1"), (DELETED, "a2")]
    assert cache.machine.contents.revision == 6
    assert cache.one(c.delete_prefix("zz")) == [c.OK, 0]


def test_many_keys_are_absent_at_once_and_told_a_thousand_an_entry(cache: Driver) -> None:
    cache.put("stays", *(f"k{number:04}" for number in range(2500)))
    assert cache.one(c.delete_prefix("k")) == [c.OK, 2500]
    machine = cache.machine
    assert cache.live() == ["stays"]
    assert machine.lookup("k0000", 0) is None
    assert (len(machine.contents.raw), machine.contents.bytes_used, machine.next_due_ms()) == (1, 70, 0)
    assert machine.contents.revision == 2501 + 1000
    cache.run()
    assert machine.contents.revision == 2501 + 2000
    cache.run()
    assert machine.contents.revision == 2501 + 2500
    assert machine.next_due_ms() is None


@pytest.mark.parametrize("count", [WHOLE_LOT_MIN - 1, WHOLE_LOT_MIN + 1])
def test_the_empty_prefix_clears_everything(cache: Driver, count: int) -> None:
    cache.put(*(f"k{number}" for number in range(count)), ttl_ms=5)
    assert cache.one(c.delete_prefix("")) == [c.OK, count]
    assert (len(cache.machine.contents.raw), cache.machine.contents.bytes_used, cache.live()) == (0, 0, [])
    twin = cache.copy()
    for one in (cache, twin):
        while one.machine.next_due_ms() == 0:
            one.put("k77")
            assert_invariants(one.machine)
    assert cache.machine.contents.revision == 2 * count + (count - 1) // 1000
    assert cache.machine.contents_digest() == twin.machine.contents_digest()


def test_writing_over_a_key_that_waits_begins_a_new_life_after_its_removal(cache: Driver) -> None:
    cache.put(*(f"k{number:04}" for number in range(2500)))
    cache.one(c.delete_prefix(""))
    cache.at_ms = 5
    assert cache.one(c.incr("k2499", 1)) == [c.MISSING]
    assert cache.one(c.set_("k2450", b"new", 1, when=c.IF_ABSENT))[2]
    assert cache.live() == ["k2450"]
    cache.run()
    assert cache.machine.contents.deleted == 2500


def test_a_removal_is_told_before_the_write_that_follows_it(driver: Driver) -> None:
    driver.put(*(f"k{number:04}" for number in range(1500)))
    created = driver.run(c.delete_prefix(""), c.set_("k1400", b"new", 1), c.set_("fresh", b"", 1))[1]
    assert created == [c.OK, 1500 + 1000 + 2, True, 0]
    assert driver.told()[-3:] == [(DELETED, "k1400"), (WRITTEN, "k1400"), (WRITTEN, "fresh")]
    driver.run()
    assert driver.machine.contents.deleted == 1500
    assert driver.live() == ["fresh", "k1400"]


def test_a_lowered_limit_is_told_in_steps_too(cache: Driver) -> None:
    cache.put(*(f"k{number:04}" for number in range(2500)))
    cache.one(c.configure({"max_items": 10}))
    assert (len(cache.machine.contents.raw), cache.machine.contents.waiting) == (10, 1490)
    cache.put("new", "k1500")
    assert len(cache.machine.contents.raw) == 10
    assert cache.told()[0] == (EVICTED, "k1000")
    cache.run()
    assert cache.machine.contents.evicted == 2492
    assert cache.machine.next_due_ms() is None


def test_items_with_a_ttl_do_not_expire_once_they_are_removed(cache: Driver) -> None:
    cache.put(*(f"k{number:04}" for number in range(1100)), ttl_ms=5)
    cache.put("stays")
    cache.one(c.delete_prefix("k"))
    cache.run(at=100)
    assert (cache.machine.contents.expired, cache.machine.contents.deleted) == (0, 1100)


@pytest.mark.parametrize("command", [c.configure({"max_items": 10}), c.delete_prefix("k"), c.delete_prefix("")])
def test_a_restored_machine_tells_what_waits_in_the_same_order(cache: Driver, command: c.Command) -> None:
    cache.put("stays", *(f"k{number * 7919 % 4000:04}" for number in range(4000)))
    cache.run(*(c.get(f"k{number:04}") for number in range(0, 4000, 7)))
    cache.one(command)
    twin = cache.copy()
    for step in range(5):
        for one in (cache, twin):
            one.put(f"k{step * 700:04}")
            one.one(c.delete_prefix(f"k{step}"))
        assert cache.machine.contents.effects == twin.machine.contents.effects
    assert cache.machine.next_due_ms() is None


def test_few_of_many_keys_are_removed_in_an_order_that_a_restored_machine_repeats(cache: Driver) -> None:
    cache.put(*(f"{number % 20}:{number}" for number in range(400)))
    cache.run(*(c.get(f"{number % 20}:{number}") for number in range(0, 400, 3)))
    twin = cache.copy()
    for prefix in ("3:", "7:", "1", ""):
        for one in (cache, twin):
            one.one(c.delete_prefix(prefix))
        assert cache.machine.contents.effects == twin.machine.contents.effects
        assert cache.machine.digest == twin.machine.digest


def test_a_queue_gives_each_key_once_and_where_it_was_put_last() -> None:
    queue = Removals()
    queue.add({"a": 1, "b": 2})
    assert queue.discard("a")
    assert not queue.discard("a")
    queue.add({"c": 3, "a": 4})
    assert list(queue) == ["b", "c", "a"]
    twin = Removals.of(queue)
    assert [queue.pop() for _ in range(4)] == [twin.pop() for _ in range(4)] == ["b", "c", "a", None]
    assert queue.count == twin.count == 0
