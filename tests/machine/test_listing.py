"""Copies of all keys, made in slices while the machine goes on."""

from __future__ import annotations

import gc
import random

import pytest
from machine.driver import Driver

from cacheflow.machine import listing
from cacheflow.machine.language import commands as c
from cacheflow.machine.listing import STEP_KEYS, KeysCopy, page
from cacheflow.machine.state.entries import EXPIRES_AT_MS


def change(driver: Driver, chance: random.Random) -> None:
    """Whatever may happen between two slices."""
    present = list(driver.machine.contents.raw)
    kind = chance.random()
    if kind < 0.4 or not present:
        driver.run(*(c.set_(f"n{chance.randrange(10**6)}", b"x", 0) for _ in range(chance.randrange(5))))
    elif kind < 0.7:
        driver.run(*(c.delete(chance.choice(present)) for _ in range(chance.randrange(5))))
    elif kind < 0.73:
        driver.run(c.delete_prefix(f"k{chance.randrange(10)}"))
    elif kind < 0.735:
        driver.run(c.delete_prefix(""))
    elif kind < 0.75:
        driver.run(c.configure({"policy": chance.choice(["lru", "lfu"]), "max_items": chance.choice([60, 300])}))
    else:
        driver.run(c.set_(chance.choice(present), b"y", 0))


@pytest.mark.parametrize("seed", range(300))
def test_a_key_that_is_there_all_the_time_is_copied_exactly_once(
    driver: Driver, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SLICE_KEYS", 7)
    chance = random.Random(seed)
    driver.run(*(c.set_(f"k{number}", b"x", 0) for number in range(chance.randrange(200))))
    copy = KeysCopy(lambda: driver.machine.contents)
    # Since the beginning, and since whoever was the last that could still join.
    always = since_joined = set(driver.machine.contents.raw)
    while not copy.done:
        if copy.still_gathers:
            since_joined = set(driver.machine.contents.raw)
        copy.go_on()
        if not copy.done:
            for _ in range(chance.randrange(4)):
                change(driver, chance)
        present = set(driver.machine.contents.raw)
        always, since_joined = always & present, since_joined & present
    found = [key for part in copy.slices for key in part]
    assert always | since_joined <= set(found)
    assert len(found) == len(set(found))


def test_a_copy_has_all_keys_until_something_is_written(driver: Driver) -> None:
    driver.run(*(c.set_(f"k{number}", b"x", 0) for number in range(10)))
    copy = KeysCopy(lambda: driver.machine.contents)
    told = [(copy.done, copy.has_all, copy.still_gathers)]
    copy.go_on()
    told.append((copy.done, copy.has_all, copy.still_gathers))
    driver.run(c.set_("another", b"x", 0))
    told.append((copy.done, copy.has_all, copy.still_gathers))
    assert told == [(False, False, True), (True, True, False), (True, False, False)]


def test_the_garbage_collector_does_not_look_at_slices_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SLICE_KEYS", 7)
    driver.run(*(c.set_(f"k{number}", b"x", 0) for number in range(100)))
    copy = KeysCopy(lambda: driver.machine.contents)
    while not copy.done:
        assert not gc.is_tracked(copy.go_on())
        driver.run(c.delete(f"k{len(copy.slices)}"))


def test_a_host_without_garbage_collection_is_left_alone(driver: Driver) -> None:
    driver.run(c.set_("k", b"x", 0))
    gc.disable()
    try:
        collections = gc.get_stats()[0]["collections"]
        KeysCopy(lambda: driver.machine.contents).go_on()
        assert gc.get_stats()[0]["collections"] == collections
    finally:
        gc.enable()


def test_who_frees_a_copy_is_handed_its_slices(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SLICE_KEYS", 7)
    driver.run(*(c.set_(f"k{number}", b"x", 0) for number in range(20)))
    given_up: list[list[tuple[str, ...]]] = []
    copy = KeysCopy(lambda: driver.machine.contents, given_up.append)
    while not copy.done:
        copy.go_on()
    slices = copy.slices
    del copy
    assert given_up == []
    expected = list(slices)
    del slices
    assert given_up == [expected]


@pytest.mark.parametrize("seed", range(400))
def test_a_page_has_the_first_keys_that_are_there_all_the_time(
    driver: Driver, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("SLICE_KEYS", 7), ("_SORTED_KEYS", 3), ("_PICKED_MAX", 6)):
        monkeypatch.setattr(listing, name, size)
    chance = random.Random(seed)
    # Another machine takes the place of this one when a snapshot is installed.
    present, successor = driver, Driver()
    ttls_ms = chance.choice([(0, 0, 10), (0, 10, 10, 10)])
    for each in (driver, successor):
        keys = [f"k{chance.randrange(1000)}" for _ in range(chance.randrange(200))]
        each.run(*(c.set_(key, b"x", 0, ttl_ms=chance.choice(ttls_ms)) for key in keys))
    now_ms = driver.machine.now_ms + chance.choice([0, 20])
    prefix, after, limit = chance.choice(["", "k", "k1"]), chance.choice(["", "k3"]), chance.choice([None, 0, 1, 5, 50])

    def wanted() -> set[str]:
        return {
            key
            for key, entry in present.machine.contents.raw.items()
            if key.startswith(prefix) and key > after and not 0 < entry[EXPIRES_AT_MS] <= now_ms
        }

    at_first = always = wanted()
    changes = chance.random() < 0.5

    def give_way() -> None:
        nonlocal always, present
        if changes and chance.random() < 0.3:
            change(present, chance)
            always = always & wanted()
            if chance.random() < 0.1:
                present = successor
                always = always & wanted()

    found, cursor = page(lambda: present.machine.contents, prefix, limit, after, now_ms, give_way)
    assert found == sorted(set(found))
    expected = sorted(always)
    if changes:
        # What has come or gone meanwhile may be there or not.
        assert cursor is None or len(found) == limit
        assert {key for key in expected if cursor is None or key <= cursor} <= set(found)
    else:
        assert found == sorted(at_first)[:limit]
        assert (cursor is None) == (limit is None or len(at_first) <= limit)


# All keys are sorted in pieces, and gone through as far as the page goes.
@pytest.mark.parametrize(("limit", "steps"), [(None, 6000 // STEP_KEYS), (10, 0), (3000, 3000 // STEP_KEYS)])
def test_who_lists_a_page_gives_way_all_the_time(driver: Driver, limit: int | None, steps: int) -> None:
    keys = [f"k{number:05}" for number in range(6000)]
    for start in range(0, len(keys), 1000):
        driver.run(*(c.set_(key, b"x", 0) for key in keys[start : start + 1000]))
    given_way = 0

    def give_way() -> None:
        nonlocal given_way
        given_way += 1

    found, _ = driver.machine.keys("", limit, give_way=give_way)
    assert found == keys[:limit]
    # Before that they are copied in two slices, looked at in three pieces, of which two are sorted, and the copy is freed.
    assert given_way >= 2 + 3 + 2 + 2 + steps
