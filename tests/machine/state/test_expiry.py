"""Time comes from the log; what is due is absent at once and removed in bounded steps."""

from __future__ import annotations

from random import Random
from time import process_time

import pytest
from machine.driver import Driver, assert_invariants, sets

from cacheflow.machine.effects import EXPIRED, WRITTEN
from cacheflow.machine.language import commands as c
from cacheflow.machine.state import expiry
from cacheflow.machine.state.contents import EXPIRED_PER_ENTRY_MAX
from cacheflow.machine.state.expiry import DueTimes


def test_an_item_lives_until_its_time_and_not_in_it(driver: Driver) -> None:
    driver.put("k", ttl_ms=50)
    assert driver.one(c.get("k"), at=50)[0] == c.OK
    assert driver.machine.lookup("k", 50) is not None
    assert driver.machine.lookup("k", 51) is None
    assert driver.one(c.get("k"), at=51) == [c.MISSING]
    assert driver.told() == [(EXPIRED, "k")]


def test_the_clock_never_goes_back_and_absurd_stamps_are_no_stamps(driver: Driver) -> None:
    driver.run(at=1000)
    for stamp in (5, -1, 10**15 + 1, 2**63):
        driver.run(at=stamp)
        assert driver.machine.now_ms == 1000
    driver.run(at=10**15)
    assert driver.machine.now_ms == 10**15
    assert driver.one(c.set_("k", b"", 1, None, c.TTL_MS_MAX))[3] == 10**15 + 10**14


def test_due_items_go_in_the_order_of_time_and_key(driver: Driver) -> None:
    driver.run(*(c.set_(key, b"", 1, None, ttl) for key, ttl in (("b", 9), ("c", 8), ("a", 9), ("d", 99))), at=1)
    driver.run(at=20)
    assert driver.told() == [(EXPIRED, "c"), (EXPIRED, "a"), (EXPIRED, "b")]
    assert driver.machine.contents.expired == 3


def test_an_entry_removes_some_due_items_and_hides_the_rest(driver: Driver) -> None:
    keys = [f"k{number:04}" for number in range(2500)]
    driver.put(*keys, ttl_ms=10)
    assert driver.machine.next_due_ms() == 11
    driver.run(c.get("k2400"), at=11)
    assert len(driver.machine.contents.raw) == 2500 - EXPIRED_PER_ENTRY_MAX
    assert driver.live() == []
    assert driver.machine.next_due_ms() == 0
    assert driver.one(c.get("k2400")) == [c.MISSING]
    driver.work_off()
    assert driver.machine.next_due_ms() is None
    assert driver.machine.contents.expired == 2500


def test_stale_expiries_are_skipped_uncounted(driver: Driver) -> None:
    keys = [f"k{number:04}" for number in range(1500)]
    driver.put(*keys, ttl_ms=5)
    driver.put(*keys, ttl_ms=6)
    driver.put(*(key + "'" for key in keys[:1000]), ttl_ms=7)
    driver.run(at=8)
    assert driver.machine.contents.expired == EXPIRED_PER_ENTRY_MAX
    driver.work_off()
    assert driver.machine.contents.expired == 2500
    assert len(driver.machine.contents.raw) == 0


def test_writing_over_a_due_item_that_still_waits_counts_as_removing_it(driver: Driver) -> None:
    driver.put(*(f"k{number:04}" for number in range(EXPIRED_PER_ENTRY_MAX)), ttl_ms=5)
    driver.put("late", ttl_ms=5)
    result = driver.one(c.set_("late", b"new", 1, when=c.IF_ABSENT), at=6)
    assert result == [c.OK, 2 * EXPIRED_PER_ENTRY_MAX + 3, True, 0]
    assert driver.told()[-2:] == [(EXPIRED, "late"), (WRITTEN, "late")]


def test_a_due_item_that_still_waits_is_absent_to_every_command(driver: Driver) -> None:
    driver.put(*(f"k{number:04}" for number in range(EXPIRED_PER_ENTRY_MAX)), ttl_ms=5)
    driver.put("late", data=b"1", ttl_ms=5)
    driver.at_ms = 6
    commands = [
        (c.delete("late"), [c.MISSING]),
        (c.incr("late", 1), [c.MISSING]),
        (c.touch("late", 50), [c.MISSING]),
        (c.get("late"), [c.MISSING]),
        (c.set_("late", b"", 1, when=c.IF_PRESENT), [c.PRECONDITION, 0]),
        (c.set_("late", b"", 1, when=c.IF_VERSION, version=1001), [c.PRECONDITION, 0]),
        (c.recency([("late", 1)]), [c.OK]),
    ]
    assert driver.run(*(command for command, _ in commands)) == [result for _, result in commands]


def test_an_expired_item_that_still_waits_counts_for_no_prefix(driver: Driver) -> None:
    driver.put(*(f"k{number:04}" for number in range(EXPIRED_PER_ENTRY_MAX)), ttl_ms=5)
    driver.put("late", ttl_ms=5)
    driver.put("later")
    driver.at_ms = 6
    assert driver.removed("late") == 1


def test_next_due_is_the_first_expiry_that_still_holds(driver: Driver) -> None:
    assert driver.machine.next_due_ms() is None
    driver.run(*sets(["a"], ttl_ms=10), *sets(["b"], ttl_ms=10_000_000), at=1)
    assert driver.machine.next_due_ms() == 11
    driver.run(c.touch("a", c.TTL_NONE))
    assert driver.machine.next_due_ms() == 10_000_001
    driver.run(c.delete("b"))
    assert driver.machine.next_due_ms() is None


def test_an_expiry_that_ends_early_is_forgotten_at_once(driver: Driver) -> None:
    driver.one(c.configure({"max_items": 500}))
    for number in range(100):
        driver.run(*sets((f"k{number}-{one}" for one in range(100)), ttl_ms=10**7 + number * 5000))
        assert_invariants(driver.machine)
    for number in range(100):
        driver.run(*sets((f"k{one}" for one in range(100)), ttl_ms=10**8 + number * 7919 % 10**6))
        assert_invariants(driver.machine)


def test_many_expiries_that_ended_early_stop_nobody_when_they_would_have_come_up(driver: Driver) -> None:
    keys = [f"k{number:05}" for number in range(50_000)]
    for start in range(0, len(keys), 1000):
        driver.run(c.batch(sets(keys[start : start + 1000], ttl_ms=1000)))
    # From the last one back: the first is what is due next until the end, and then all are outdated together.
    keys.reverse()
    longest = 0.0
    for start in range(0, len(keys), 1000):
        driver.run(c.batch([c.touch(key, 10**9) for key in keys[start : start + 1000]]))
        before = process_time()
        assert driver.machine.next_due_ms() in (1001, 10**9 + 1)
        longest = max(longest, process_time() - before)
    before = process_time()
    driver.run(at=2000)
    # Left in a heap until then, they took 40 ms, and 300,000 took 1.7 s.
    assert max(longest, process_time() - before) < 0.01
    assert driver.machine.contents.with_ttl == len(keys)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_time_and_key_whatever_comes_and_goes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "BLOCK_KEYS_MAX", 8)
    random, due, model = Random(seed), DueTimes(), dict[str, int]()
    for _ in range(3000):
        key, at_ms, chance = f"k{random.randrange(200)}", random.randrange(1, 60), random.random()
        if chance < 0.1:
            gone = sorted((when, one) for one, when in model.items() if when <= at_ms // 4)[: random.randrange(20)]
            assert due.pop(at_ms // 4, len(gone)) == [one for _, one in gone]
            for _, one in gone:
                del model[one]
        else:
            due.remove(model.pop(key, at_ms), key)
            if chance < 0.6:
                model[key] = at_ms
                due.add(at_ms, key)
        assert (len(due), due.next_ms()) == (len(model), min(model.values(), default=None))
    assert due.pop(60, 1000) == [one for _, one in sorted((when, one) for one, when in model.items())]


def test_blocks_that_lost_most_of_their_keys_do_not_pile_up() -> None:
    due = DueTimes()
    for number in range(100_000):
        due.add(number, "k")
    for number in range(100_000):
        if number % 1000:
            due.remove(number, "k")
    assert len(due._blocks) == len(due._lasts[0]) == len(due._lasts[1]) < 10
    assert due.pop(10**6, 1000) == ["k"] * 100
    assert (len(due), due.next_ms()) == (0, None)
