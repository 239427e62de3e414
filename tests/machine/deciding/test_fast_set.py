"""The straight ways for plain SETs and DELETEs leave what the general way leaves: results, effects, order, digests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine.driver import Driver, assert_invariants, sets
from machine.mixed_log import mixed_log

from cacheflow.machine import machine
from cacheflow.machine.deciding import batches
from cacheflow.machine.deciding.fast_delete import delete_plainly
from cacheflow.machine.deciding.fast_set import set_plainly
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import Settled
from cacheflow.machine.state import contents


def by_the_general_way(driver: Driver, payload: bytes) -> list[Settled]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (machine, batches):
            for way in ("set_plainly", "delete_plainly"):
                patch.setattr(module, way, lambda contents, commands, results: None)
        patch.setattr(batches, "new_keys", lambda contents, commands: None)
        return driver.apply(payload)


def assert_equal_after(straight: Driver, general: Driver, payload: bytes) -> None:
    assert straight.apply(payload) == by_the_general_way(general, payload)
    one, other = straight.machine, general.machine
    assert one.contents.effects == other.contents.effects
    assert one.digest == other.digest
    assert straight.order() == general.order()
    for name in (
        "revision",
        "bytes_used",
        "with_ttl",
        "written",
        "deleted",
        "expired",
        "evicted",
        "behind",
        "expiries_ms",
    ):
        assert getattr(one.contents, name) == getattr(other.contents, name)


KEYS = st.one_of(
    st.integers(0, 12).map("k{}".format),
    st.sampled_from(["", "ü", "\x015k", "\x01fk", "k" * 1026, "k" * 1027, b"k", 5, None]),
)
# What is equal to 0 and is not 0 must be refused as ever.
ZEROS = st.sampled_from([0] * 12 + [False, 0.0, -1, 1])
PLAIN = st.tuples(
    st.sampled_from([c.SET] * 12 + [True, 1.0]),
    KEYS,
    st.one_of(st.binary(max_size=60), st.sampled_from([bytes(950), bytes(961), "text", None])),
    st.sampled_from([0, 1, 2, 0, 1, 2, 3, -1, True, None]),
    st.sampled_from([None, None, None, 7, -1, 2**40, True, "text/plain", "x" * 1025, 0.5]),
    ZEROS,
    ZEROS,
    ZEROS,
).map(list)
DELETES = st.tuples(st.sampled_from([c.DELETE] * 9 + [3.0, True]), KEYS, ZEROS).map(list)
SMALL = st.integers(0, 12).map("k{}".format)
OTHERS = st.one_of(
    st.tuples(
        st.just(c.SET), SMALL, st.binary(max_size=9), st.just(1), st.none(), st.sampled_from([3, -1]), ZEROS, ZEROS
    ),
    st.tuples(st.just(c.GET), SMALL),
    st.tuples(st.just(c.TOUCH), SMALL, st.sampled_from([0, 2, 5])),
    st.tuples(st.just(c.APPEND), SMALL, st.binary(max_size=9), st.booleans(), st.booleans()),
    st.tuples(st.just(c.BATCH), st.booleans(), st.lists(PLAIN, max_size=6)),
    st.tuples(st.just(c.BATCH), st.booleans(), st.lists(DELETES, max_size=6)),
    st.tuples(st.just(c.DELETE_PREFIX), st.sampled_from(["", "k1"]), st.booleans(), st.booleans()),
    st.tuples(
        st.just(c.CONFIGURE),
        st.just(False),
        st.fixed_dictionaries(
            {
                "policy": st.sampled_from(["lru", "lfu"]),
                "max_items": st.sampled_from([None, 1, 4, 9]),
                "max_bytes": st.sampled_from([None, 1024]),
            }
        ),
    ),
    st.sampled_from([[c.SET], [c.SET, "k", b""], [], "eight898", None, 5, [1, 2, 3, 4, 5, 6, 7, 8]]),
)
COMMANDS = st.one_of(PLAIN, PLAIN, PLAIN, PLAIN, DELETES, OTHERS)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2), st.lists(COMMANDS, max_size=12)), max_size=12))
def test_any_log_leaves_the_same_by_both_ways(log: list[tuple[int, int, list[Any]]]) -> None:
    straight, general = Driver(), Driver()
    opening = c.encode_entry(
        1,
        [
            c.encode_block(
                0, 0, 0, [c.members("c", [["a", "1", "h:1", "", True, False]]), c.open_session("a", "1", 1, "x")]
            )
        ],
    )
    assert_equal_after(straight, general, opening)
    at_ms, number = 1, 1
    for later_ms, shifted, commands in log:
        at_ms += later_ms
        first = max(1, number + shifted)
        payload = c.encode_entry(at_ms, [c.encode_block(1, first, 1, commands), c.encode_block(0, 0, 0, commands[:2])])
        assert_equal_after(straight, general, payload)
        if first <= number:
            number = max(number, first + len(commands))
        assert_invariants(straight.machine)
    assert straight.machine.contents_digest() == general.machine.contents_digest()


@pytest.mark.parametrize("seed", range(4))
def test_a_mixed_log_leaves_the_same_by_both_ways(seed: int) -> None:
    straight, general = Driver(), Driver()
    for payload in mixed_log(seed, 80):
        assert_equal_after(straight, general, payload)
    assert straight.machine.contents_digest() == general.machine.contents_digest()


def test_above_a_lowered_limit_the_same_is_left_by_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "EVICTED_PER_ENTRY_MAX", 1)
    straight, general = Driver(), Driver()
    for cache in (straight, general):
        cache.put(*(f"large{number}" for number in range(9)), data=b"x" * 900)
        cache.put(*(f"small{number}" for number in range(9)))
        cache.one(c.configure({"max_bytes": 2000}))
    payload = c.encode_entry(1, [c.encode_block(0, 0, 0, sets((f"new{number}" for number in range(9)), b"y" * 90))])
    assert_equal_after(straight, general, payload)


def test_plain_sets_do_go_the_straight_way(cache: Driver) -> None:
    cache.one(c.configure({"max_items": 5}))
    results: list[c.Result] = []
    plain = [list(c.set_(f"k{number % 7}", b"x" * number, 1, None if number % 2 else number)) for number in range(40)]
    set_plainly(cache.machine.contents, plain, results)
    assert [result[0] for result in results] == [c.OK] * 40
    for other in (c.set_("k", b"", 1, ttl_ms=5), c.set_("k", b"", 1, when=c.IF_ABSENT), c.get("k1")):
        set_plainly(cache.machine.contents, [list(other), *plain], results)
    assert len(results) == 40


def test_plain_deletes_do_go_the_straight_way(cache: Driver) -> None:
    cache.put(*(f"k{number}" for number in range(9)))
    results: list[c.Result] = []
    plain = [list(c.delete(f"k{number}")) for number in range(12)]
    delete_plainly(cache.machine.contents, plain, results)
    assert [result[0] for result in results] == [c.OK] * 9 + [c.MISSING] * 3
    for other in (c.delete("k", 5), c.get("k1")):
        delete_plainly(cache.machine.contents, [list(other), *plain], results)
    assert len(results) == 12


def test_an_atomic_batch_of_plain_sets_is_not_decided_one_by_one(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches.Batches, "_decided", None)
    cache.one(c.configure({"max_items": 5}))
    cache.put("old")
    written = ["k1", "old", "k2", "k1", *(f"k{number}" for number in range(3, 9)), "old"]
    status, results = cache.one(c.batch(sets(written), True))
    assert status == c.OK
    # That it was evicted meanwhile does not count.
    assert [result[2] for result in results] == [True, False, True, False, *[True] * 6, False]


@pytest.mark.parametrize(
    "command",
    [
        b"\x01\x00kv\x00\x00\x00\x00",
        "SET\0kv\0\0",
        dict(zip([c.SET, "k", b"v", 2, None, 0, 8, 9], range(8), strict=True)),
        [c.SET, "k", b"v", 0, None, 0, 0],
        [c.SET, "k", b"v", 0, None, 0, 0, 0, 0],
        c.SET,
        None,
    ],
)
def test_what_is_no_list_of_eight_goes_the_general_way(cache: Driver, command: Any) -> None:
    results: list[c.Result] = []
    set_plainly(cache.machine.contents, [command], results)
    assert not results and not cache.machine.contents.raw
