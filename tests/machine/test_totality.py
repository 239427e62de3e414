"""apply is total: whatever the bytes are, it returns, and the machine is sound afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine.driver import Driver, assert_invariants

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine.eviction.lru import LruItems
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine

KEYS = st.sampled_from(["a", "b", "ab", "k" * 1026, "k" * 1027, "", "ü", "\x00", "\x01", "\x01z", "\x01fa"])
NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 7, 50, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 10**14, 10**15])
ATOMS = (
    st.none() | st.booleans() | NUMBERS | KEYS | st.floats() | st.binary(max_size=9) | st.just(b"12")
    | st.just(msgpack.ExtType(5, b"x")) | st.just(msgpack.Timestamp(7, 8))
)  # fmt: skip
ANYTHING = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=25
)
OPS = st.integers(0, 28)
PARTS = st.lists(st.sampled_from([b"", b"f", b"g", b"\xfe\x01", b"1", b"9" * 18]), max_size=5)


def command_of(fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda op, rest: [op, *rest], OPS, st.lists(fields, max_size=8))


RESTORED = st.tuples(KEYS, st.binary(max_size=9) | ATOMS, NUMBERS, ATOMS, NUMBERS) | st.tuples(
    KEYS, st.binary(max_size=900), st.just(1), st.none(), st.just(0)
)
NEARLY = (
    st.tuples(st.just(c.SET), KEYS, st.binary(max_size=900), NUMBERS, ATOMS, NUMBERS, NUMBERS, NUMBERS)
    | st.tuples(st.just(c.SET), KEYS, st.binary(max_size=900), st.just(1), st.none(), NUMBERS, st.just(0), st.just(0))
    | st.tuples(st.just(c.INCR), KEYS, NUMBERS, st.none() | NUMBERS, NUMBERS)
    | st.tuples(st.just(c.DELETE), KEYS, NUMBERS)
    | st.tuples(st.just(c.TOUCH), KEYS, NUMBERS)
    | st.tuples(st.just(c.GET), KEYS)
    | st.tuples(st.just(c.APPEND), KEYS, st.binary(max_size=900), st.booleans(), st.booleans())
    | st.tuples(st.just(c.COUNT), KEYS, NUMBERS, st.booleans(), st.none() | NUMBERS, NUMBERS)
    | st.tuples(st.just(c.SET_FIELDS), KEYS, st.integers(2, 5), PARTS, st.booleans(), NUMBERS)
    | st.tuples(st.just(c.REMOVE_FIELDS), KEYS, st.integers(2, 5), PARTS)
    | st.tuples(st.just(c.COUNT_FIELD), KEYS, st.sampled_from([b"", b"f"]), NUMBERS, NUMBERS)
    | st.tuples(st.just(c.EXPIRE), KEYS, NUMBERS, st.integers(0, 17))
    | st.tuples(st.just(c.DELETE_PREFIX), KEYS, st.booleans(), st.booleans())
    | st.tuples(st.just(c.RECENCY), st.lists(st.tuples(KEYS, NUMBERS) | ATOMS, max_size=5))
    | st.tuples(
        st.just(c.CONFIGURE),
        st.booleans(),
        st.dictionaries(
            st.sampled_from(["policy", "max_items", "max_bytes", "replicas"]),
            st.sampled_from([None, 1, 2, 3, 1024, 2048, "lru", "lfu"]),
        ),
    )
    | st.tuples(st.just(c.OPEN_SESSION), KEYS, KEYS, NUMBERS, KEYS, NUMBERS)
    | st.tuples(st.just(c.OPEN_SCOPE), KEYS)
    | st.tuples(st.just(c.RAISE_LEVEL), NUMBERS)
    | st.tuples(st.just(c.RESTORE_BEGIN), KEYS, KEYS, NUMBERS, NUMBERS, st.booleans())
    | st.tuples(st.just(c.RESTORE_ITEMS), KEYS, NUMBERS, st.lists(RESTORED, max_size=4))
    | st.tuples(st.just(c.RESTORE_END), KEYS, st.booleans())
    | st.tuples(
        st.just(c.MEMBERS), KEYS, st.lists(st.tuples(KEYS, KEYS, KEYS, KEYS, st.booleans(), st.booleans()), max_size=3)
    )
    | st.tuples(
        st.just(c.RECOVER),
        KEYS,
        st.lists(st.tuples(KEYS, KEYS, KEYS, KEYS, st.booleans(), st.booleans()), max_size=3),
        st.lists(KEYS | ATOMS, max_size=3),
    )
)
COMMANDS = st.recursive(
    command_of(ANYTHING) | ANYTHING | NEARLY,
    lambda inner: (
        st.tuples(st.just(c.BATCH), st.booleans(), st.lists(inner, max_size=5))
        | st.tuples(
            st.just(c.GUARDED),
            st.lists(st.tuples(KEYS, NUMBERS, NUMBERS), max_size=2),
            st.lists(inner, max_size=5),
            st.booleans(),
        )
        | st.tuples(st.just(c.IDEMPOTENT), KEYS, NUMBERS, inner)
        | st.tuples(st.just(c.SCOPED), st.integers(0, 3), KEYS, NUMBERS, NUMBERS, inner)
    ),
    max_leaves=8,
)
BLOCKS = (
    st.tuples(st.integers(0, 2), st.integers(0, 4), NUMBERS, NUMBERS, st.lists(COMMANDS, max_size=6)).map(msgpack.packb)
    | ANYTHING.map(msgpack.packb)
    | st.binary(max_size=20)
)
ENTRIES = (
    st.tuples(st.integers(-1, 3), NUMBERS | st.integers(0, 200), st.lists(BLOCKS, max_size=3)).map(msgpack.packb)
    | st.tuples(st.just(1), st.integers(0, 200), st.lists(BLOCKS, max_size=3)).map(msgpack.packb)
    | ANYTHING.map(msgpack.packb)
    | st.binary(max_size=30)
)


@given(st.lists(ENTRIES, max_size=12))
@settings(max_examples=120, deadline=None)
def test_nothing_that_is_applied_raises_or_breaks_an_invariant(payloads: list[bytes]) -> None:
    driver = Driver()
    driver.session()
    for payload in payloads:
        before = driver.machine.applied_index
        try:
            driver.apply(payload)
        except NewerCacheFlow:
            # The one kind of entry that is not applied: what begins as one of a later level does. Nothing was done.
            assert c.level_of(payload) > CacheMachine.build_level and driver.machine.applied_index == before
        assert_invariants(driver.machine)
    twin = driver.copy()
    assert twin.machine.contents_digest() == driver.machine.contents_digest()
    for one in (driver, twin):
        one.put(*"xyz")
        one.run(c.delete_prefix(""), at=10**15)
    assert twin.machine.contents_digest() == driver.machine.contents_digest()


def test_absurd_nesting_is_an_error_value() -> None:
    driver = Driver()
    for depth in (100, 500, 520, 1000, 5000):
        nested = b"\x91" * depth + b"\xc0"
        inner = b"\x98\x01\xa1k\xc4\x01x\x01" + nested + b"\x00\x00\x00"
        block = b"\x95\x00\x00\x00\x00\x92" + (b"\x93\x0d\xa1k" + inner) + inner
        for settled in driver.apply(msgpack.packb([1, 1, [block]])):
            assert [result[0] for result in settled[2]] == [c.MALFORMED, c.MALFORMED]
    assert driver.machine.contents.revision == 0


def test_a_length_that_lies_is_refused_before_memory_is_reserved() -> None:
    driver = Driver()
    for payload in (b"\xdd\xff\xff\xff\xff", b"\x92\x00\xdd\xff\xff\xff\xff", b"\x92\x01\x91\xc6\xff\xff\xff\xff"):
        assert driver.apply(payload) == []


def test_a_fault_inside_a_command_is_an_error_value(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(machine: CacheMachine, command: list[Any]) -> c.Result:
        raise RuntimeError("a fault")

    monkeypatch.setitem(driver.machine._others, c.NOOP, fault)
    assert driver.run(c.noop(), c.set_("k", b"", 1)) == [[c.MALFORMED, "not a well-formed command"], [c.OK, 1, True, 0]]


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: c.batch([one]), lambda one: c.idempotent("i", one)])
def test_a_fault_behind_the_checks_is_never_told_as_the_commands(
    wrap: Callable[[c.Command], c.Command],
) -> None:
    for command in (c.set_("k", b"", 1), c.set_("k", b"", 1, ttl_ms=5), c.append("k", b"x")):
        driver = Driver()
        driver.put("k")
        items = driver.machine.contents.items
        assert isinstance(items, LruItems)
        # A defect: the order has lost a key.
        items._order.remove("k", items.raw["k"][3])
        with pytest.raises(KeyError):
            driver.run(wrap(command))
