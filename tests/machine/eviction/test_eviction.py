"""Who is evicted: both containers against cachetools, limits in items and bytes, newcomers, a change of policy."""

from __future__ import annotations

from itertools import repeat
from random import Random

import cachetools
import pytest
from machine.driver import Driver, assert_invariants, sets

from cacheflow.machine.effects import EVICTED
from cacheflow.machine.eviction import lfu, use_order
from cacheflow.machine.eviction.items import Items
from cacheflow.machine.eviction.lfu import LfuItems
from cacheflow.machine.eviction.lru import LruItems
from cacheflow.machine.language import commands as c
from cacheflow.machine.state.contents import POLICIES
from cacheflow.machine.state.entries import Entry


def entry(number: int) -> Entry:
    return (b"%d" % number, 1, None, number, 0)


def filled(policy: str, count: int) -> Items:
    items = POLICIES[policy]()
    for number in range(count):
        items[f"k{number}"] = entry(number)
    return items


def in_order(items: Items) -> list[str]:
    return [key for key, _ in items.ordered()]


def test_the_private_structures_of_cachetools_are_where_we_reach_for_them() -> None:
    lru = filled("lru", 2)
    assert lru._Cache__data == lru.raw
    lfu = filled("lfu", 2)
    assert lfu._Cache__data == lfu.raw
    assert list(lfu._LFUCache__root.next.keys) == ["k0", "k1"]  # type: ignore[attr-defined]
    assert lfu._LFUCache__root.next is lfu._LFUCache__links["k0"]  # type: ignore[attr-defined]


def test_touching_and_evicting_go_as_in_cachetools_itself(policy: str) -> None:
    ours = POLICIES[policy]()
    theirs: cachetools.Cache[str, Entry] = {"lru": cachetools.LRUCache, "lfu": cachetools.LFUCache}[policy](10**9)
    random = Random(7)
    for step in range(5000):
        key = f"k{random.randrange(40)}"
        action = random.random()
        if action < 0.3:
            ours[key] = theirs[key] = entry(step)
        elif action < 0.85 and key in theirs:
            uses = random.randrange(1, 5)
            ours.touch(key, ours.raw[key], uses)
            for _ in range(uses):
                theirs[key]
        elif action < 0.9 and key in theirs:
            del ours[key], theirs[key]
        elif action < 0.93 and len(theirs) > 5:
            assert ours.pop_victim("") == theirs.popitem()
    assert len(ours) == len(theirs)
    while theirs:
        assert ours.pop_victim("") == theirs.popitem()


def test_a_container_filled_from_an_order_goes_on_like_the_original(policy: str) -> None:
    items = filled(policy, 30)
    random = Random(3)
    for _ in range(200):
        key = f"k{random.randrange(30)}"
        items.touch(key, items.raw[key], random.randrange(1, 4))
    use_order = list(items.ordered())
    twin = type(items).filled(dict(items.raw), [key for key, _ in use_order], [uses for _, uses in use_order])
    assert list(twin.ordered()) == use_order
    for _ in range(200):
        key = f"k{random.randrange(30)}"
        items.touch(key, items.raw[key], 1)
        twin.touch(key, twin.raw[key], 1)
        assert in_order(items) == in_order(twin)


def test_the_protected_key_is_never_the_victim(policy: str) -> None:
    items = filled(policy, 2)
    assert items.pop_victim("k0") == ("k1", entry(1))
    assert items.pop_victim("k0") is None
    items.touch("k0", items.raw["k0"], 3)
    items["k5"] = entry(5)
    assert items.pop_victim("k5") == ("k0", entry(0))


def test_the_protected_key_may_be_alone_in_the_lowest_count() -> None:
    items = LfuItems.filled({"a": entry(1), "b": entry(2)}, ["a", "b"], [1, 7])
    assert items.pop_victim("a") == ("b", entry(2))


@pytest.mark.parametrize("piece", [3, 21_000])
@pytest.mark.parametrize("seed", range(10))
def test_a_scan_goes_on_alike_in_a_container_that_was_filled_anew(
    policy: str, seed: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", piece)
    monkeypatch.setattr(lfu, "LINK_KEYS_MAX", piece)
    random = Random(seed)
    items, twin = filled(policy, 30), filled(policy, 30)
    for version in range(31, 600):
        key = f"k{random.randrange(50)}"
        what, uses = random.randrange(7), random.randrange(1, 4)
        for one in (items, twin):
            old = one.raw.get(key)
            if what == 5:
                pass
            elif old is None:
                one.add(key, entry(version))
            elif what < 2:
                one.rewrite(key, old, entry(version))
            elif what < 4:
                one.touch(key, old, uses)
            elif what == 4:
                del one[key]
            else:
                one.pop_victim(key)
        if what == 5:
            assert items.scan(uses) == twin.scan(uses)
        assert items.passed() == twin.passed()
        assert items.next_scanned() == twin.next_scanned() == next(iter(in_order(items)[items.passed() :]), None)
        if random.random() < 0.2:
            keys, counts = zip(*items.ordered(), strict=True)
            twin = POLICIES[policy].filled(dict(items.raw), keys, counts)
            twin.start_scan(items.passed())


def test_a_scan_meets_whatever_is_there_and_not_used(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", 8)
    monkeypatch.setattr(lfu, "LINK_KEYS_MAX", 5)
    random = Random(1)
    items = filled(policy, 200)
    still = {f"k{number}" for number in range(200)}
    version, met = 200, set()
    while some := items.scan(7):
        met |= set(some)
        for _ in range(3):
            version += 1
            key = f"k{random.randrange(200)}"
            still.discard(key)
            if random.random() < 0.3:
                items[f"new {version}"] = entry(version)
            elif key in items.raw:
                items.touch(key, items.raw[key], 1) if random.random() < 0.5 else items.__delitem__(key)
    assert still <= met
    items.start_scan()
    assert items.passed() == 0
    assert items.scan(1000) == in_order(items)


@pytest.mark.parametrize(
    "counts", [[], [1], [1, 1, 1], [1, 1, 1, 2, 5, 5], [1, 2, 2, 2, 3], [2, 7, 7, 7, 7], [3, 4, 5]]
)
@pytest.mark.parametrize("target", ["lru", "lfu"])
def test_an_order_is_handed_over_from_any_container_to_any(counts: list[int], target: str) -> None:
    keys = [f"k{number}" for number in range(len(counts))]
    raw = {key: entry(number) for number, key in sorted(enumerate(keys), reverse=True)}
    for source in (LfuItems.filled(dict(raw), keys, counts), LruItems.filled(dict(raw), keys, counts)):
        given = source.raw
        items = POLICIES[target](given, source.give_order(len(keys)))
        assert items.raw is given
        assert list(items.ordered()) == list(zip(keys, repeat(1), strict=False))
        for key in reversed(keys):
            items.touch(key, items.raw[key], 1)
        items["new"] = entry(9)
        assert in_order(items) == (["new", *reversed(keys)] if target == "lfu" else [*reversed(keys), "new"])


def test_a_change_of_policy_copies_no_large_part_of_the_order() -> None:
    keys = [f"k{number}" for number in range(3 * lfu.LINK_KEYS_MAX)]
    items = LfuItems.filled({key: entry(number + 1) for number, key in enumerate(keys)}, keys, repeat(1, len(keys)))
    held = [link.keys for link in dict.fromkeys(items._LFUCache__links.values())]
    table = items._LFUCache__links
    order = items.give_order(len(keys))
    # The first segments of the new order are the dictionaries themselves, and so is the table of all keys.
    assert [id(segment) for segment in order._segments if segment] == [id(keys) for keys in held]
    assert len(order._taken) == 1 and order._taken[0] is table


def test_an_order_that_comes_back_finds_what_was_written_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", 4)
    lru = filled("lru", 8)
    lfu = LfuItems(lru.raw, lru.give_order(7))
    for number in (1, 2):
        lfu.rewrite(f"k{number}", lfu.raw[f"k{number}"], entry(10 + number))
    back = LruItems(lfu.raw, lfu.give_order(12))
    for _ in range(3):
        # No write tells the order how far the versions have come.
        for number in (1, 2, 3, 4, 5):
            back.touch(f"k{number}", back.raw[f"k{number}"], 1)
    assert in_order(back) == ["k0", "k6", "k7", "k1", "k2", "k3", "k4", "k5"]


@pytest.mark.parametrize("segment_keys", [8, 21_000])
@pytest.mark.parametrize("seed", range(8))
def test_a_container_that_took_an_order_over_goes_on_like_one_filled_from_it(
    seed: int, segment_keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_order, "SEGMENT_KEYS_MAX", segment_keys)
    random = Random(seed)
    first = filled("lru", 60)
    version = 60

    def changes(items: Items) -> list[object]:
        """Some of everything; the same for the same state of ``random``."""
        nonlocal version
        seen: list[object] = []
        # Of many keys or of few: then an order that was taken over is handed on nearly as it came.
        keys_max = random.choice((10, 80))
        for _ in range(60):
            version += 1
            key = f"k{random.randrange(keys_max)}"
            old = items.raw.get(key)
            what = random.randrange(7)
            if what == 6:
                seen.append((items.scan(3), items.passed(), items.next_scanned()))
            elif old is None:
                items.add(key, entry(version))
            elif what < 2:
                items.rewrite(key, old, entry(version))
            elif what < 4:
                items.touch(key, items.raw[key], random.randrange(1, 4))
            elif what == 4:
                del items[key]
            else:
                seen.append(items.pop_victim(key))
            seen.append(list(items.ordered()))
        return [*seen, list(items.ordered())]

    changes(first)
    items: Items = first
    for policy in ["lfu", "lru", "lfu", "lfu", "lru"]:
        keys = in_order(items)
        twin = POLICIES[policy].filled(dict(items.raw), keys, repeat(1, len(keys)))
        items = POLICIES[policy](items.raw, items.give_order(version))
        items.start_scan()
        state, before = random.getstate(), version
        seen = changes(twin)
        random.setstate(state)
        version = before
        assert changes(items) == seen


def test_a_key_is_in_memory_once_whoever_spells_it_again(cache: Driver) -> None:
    keys = [f"key{number}" for number in range(50)]
    cache.put(*keys)
    for _ in range(3):
        cache.run(*(c.get(key) for key in keys[::2]), *sets(keys[::3]), c.recency([(key, 2) for key in keys[::5]]))
    items = cache.machine.contents.items
    held = {key: key for key in items.raw}
    assert all(key is held[key] for key in in_order(items))
    if isinstance(items, LfuItems):
        assert all(key is held[key] for key in items._LFUCache__links)


def test_lru_evicts_what_was_not_used_for_longest(driver: Driver) -> None:
    driver.one(c.configure({"policy": "lru", "max_items": 3}))
    driver.put("a", "b", "c")
    driver.run(c.get("a"), c.touch("b", 0))
    driver.put("d")
    assert driver.order() == ["a", "b", "d"]
    assert (EVICTED, "c") in driver.told()


def test_lfu_evicts_what_was_used_least_and_the_oldest_of_equals(driver: Driver) -> None:
    driver.one(c.configure({"policy": "lfu", "max_items": 3}))
    driver.put("a", "b", "c")
    driver.run(c.get("a"), c.get("a"), c.get("c"))
    driver.put("d")
    assert driver.order() == ["d", "c", "a"]
    driver.put("d")
    driver.put("e")
    assert driver.order() == ["e", "d", "a"]


def test_every_newcomer_to_a_full_lfu_cache_is_readable_after_its_own_set(driver: Driver) -> None:
    driver.one(c.configure({"policy": "lfu", "max_items": 100}))
    old = [f"old{number}" for number in range(100)]
    driver.put(*old)
    driver.run(*(c.get(key) for key in old for _ in range(3)))
    for number in range(100):
        driver.put(f"new{number}")
        assert driver.machine.lookup(f"new{number}", 0) is not None
    results = driver.run(*(command for n in range(100) for command in (c.set_(f"x{n}", b"x", 1), c.get(f"x{n}"))))
    assert all(result[0] == c.OK for result in results)


def test_bytes_are_counted_by_formula(driver: Driver) -> None:
    driver.run(c.set_("kü", b"12345", 1, "text/x"), c.set_("n", b"", 1, 12))
    assert driver.machine.contents.bytes_used == (64 + 3 + 5 + 6) + (64 + 1)


def test_room_in_bytes_is_made_before_a_write_and_never_with_the_key_itself(cache: Driver) -> None:
    cache.one(c.configure({"max_bytes": 1024}))
    cache.put("a", "b", "c", data=bytes(200))
    cache.put("a", data=bytes(650))
    assert cache.order() == ["c", "a"]
    cache.put("d", data=bytes(1024 - 65))
    assert cache.live() == ["d"]


@pytest.mark.parametrize(("surplus", "left"), [(0, ["a", "k"]), (1, ["k"])])
def test_a_limit_in_bytes_may_be_reached_and_not_passed(cache: Driver, surplus: int, left: list[str]) -> None:
    cache.one(c.configure({"max_bytes": 1024}))
    cache.put("a")
    cache.put("k", data=bytes(1024 - 66 - 65 + surplus))
    assert cache.live() == left
    cache.one(c.delete_prefix(""))
    cache.put("a", "k")
    cache.put("k", data=bytes(1024 - 66 - 65 + surplus))
    assert cache.live() == left


def test_an_item_larger_than_the_cache_is_refused_and_the_old_value_stays(cache: Driver) -> None:
    cache.one(c.configure({"max_bytes": 1024}))
    cache.put("k", "other")
    refused = cache.one(c.set_("k", bytes(1024 - 64), 1))
    assert refused[0] == c.TOO_LARGE
    assert cache.live() == ["k", "other"]
    assert cache.one(c.set_("k", bytes(1024 - 65), 1))[0] == c.OK


def test_a_lowered_limit_takes_with_the_next_entry_what_would_have_been_evicted_next(cache: Driver) -> None:
    cache.put(*"abcdef")
    cache.run(c.get("a"), c.get("b"))
    use_order = cache.order()
    cache.one(c.configure({"max_items": 4}))
    assert cache.order() == use_order
    cache.run()
    assert cache.order() == use_order[2:]
    assert cache.told() == [(EVICTED, key) for key in use_order[:2]]


def test_a_lowered_limit_in_bytes_takes_no_more_than_it_must(cache: Driver) -> None:
    cache.put(*"abcdefgh", data=bytes(100))
    cache.run(c.get("a"))
    cache.one(c.configure({"max_items": 7, "max_bytes": 1024}))
    cache.work_off()
    assert cache.order() == [*"defgha"]
    cache.one(c.configure({"max_bytes": 1025}))
    assert cache.order() == [*"defgha"]


def test_a_change_of_policy_keeps_the_order_and_starts_with_one_use_each(driver: Driver) -> None:
    driver.put(*"abcd")
    driver.run(c.get("a"), c.get("b"), c.get("b"))
    driver.one(c.configure({"policy": "lfu"}))
    assert list(driver.machine.contents.items.ordered()) == list(zip("cdab", repeat(1), strict=False))
    driver.run(c.get("c"))
    driver.one(c.configure({"policy": "lru"}))
    assert driver.order() == ["d", "a", "b", "c"]


def test_recency_counts_uses_in_order_and_skips_what_is_no_use(cache: Driver) -> None:
    cache.put(*"abc")
    odd = [["a", 1], ["nobody", 1], ["b", 0], ["b", True], ["b"], "b", [b"b", 1], ["c", 10**9]]
    assert cache.one(c.recency(odd)) == [c.OK]  # type: ignore[arg-type]
    lfu = cache.machine.settings.policy == "lfu"
    assert list(cache.machine.contents.items.ordered()) == [("b", 1), ("a", 2 if lfu else 1), ("c", 1001 if lfu else 1)]
    assert cache.machine.contents.revision == 3
    assert cache.one(c.recency([("a", 1)] * 10_001))[0] == c.MALFORMED


@pytest.mark.parametrize("bytes_max", [None, 4096])
def test_the_limits_hold_after_every_entry(cache: Driver, bytes_max: int | None) -> None:
    cache.one(c.configure({"max_items": 20, "max_bytes": bytes_max}))
    random = Random(5)
    for _ in range(60):
        cache.run(*sets((f"k{random.randrange(60)}" for _ in range(10)), bytes(random.randrange(800))))
        assert_invariants(cache.machine)
