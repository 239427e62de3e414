"""The order of use in its pieces, against one OrderedDict."""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheflow.machine.eviction import use_order
from cacheflow.machine.eviction.use_order import UseOrder


class Twins:
    """The order and what it must be."""

    def __init__(self) -> None:
        self.order = UseOrder()
        self.plain: OrderedDict[str, int] = OrderedDict()
        self.version = 0

    def write(self, key: str) -> None:
        self.version += 1
        if key in self.plain:
            self.order.rewrite(key, self.plain[key], self.version)
        else:
            self.order.add(key, self.version)
        self.plain[key] = self.version
        self.plain.move_to_end(key)

    def use(self, key: str) -> None:
        if key in self.plain:
            self.order.use(key, self.plain[key])
            self.plain.move_to_end(key)

    def remove(self, key: str) -> None:
        if key in self.plain:
            assert self.order.remove(key, self.plain.pop(key)) == key

    def evict(self, protected: str) -> None:
        wanted = next((key for key in self.plain if key != protected), None)
        assert self.order.pop_first(protected) == wanted
        if wanted is not None:
            del self.plain[wanted]

    def scan(self, count: str) -> None:
        """A scan gives what comes behind its place, and its place is where the order can be cut."""
        behind = list(self.plain)[self.order.passed() :]
        assert self.order.next_scanned() == next(iter(behind), None)
        assert self.order.scan(int(count)) == behind[: int(count)]
        if behind and int(count):
            assert list(self.plain)[self.order.passed() - 1] == behind[: int(count)][-1]

    def scan_again(self, passed: str) -> None:
        self.order.start_scan(int(passed))
        assert self.order.passed() == min(int(passed), len(self.plain))

    def take_over(self, most: str) -> None:
        """New keys come as an LFU container hands them over: in its own dictionaries, and in a table that knows these."""
        self.version += 3
        new = [key for key in map(str, range(0, 2 * int(most), 2)) if key not in self.plain]
        # They may have been written while the other container kept the order.
        self.plain.update((key, Random(key).randrange(1, self.version + 1)) for key in new)
        holders = [SimpleNamespace(keys=OrderedDict((key, key) for key in some)) for some in threes(new)]
        table: Any = {key: holder for holder in holders for key in holder.keys}
        self.order.take_over([holder.keys for holder in holders], table, self.version)

    def restore(self) -> None:
        self.order = UseOrder.of(list(self.plain), list(self.plain.values()))

    def check(self) -> None:
        assert list(self.order) == list(self.plain)
        assert len(self.order) == len(self.plain)
        # Nothing is remembered of keys that are gone, and segments do not pile up.
        taken = [key for table in self.order._taken for key in table]
        assert {*self.order._used, *taken} <= set(self.plain)
        assert len(set(taken)) == len(taken) and not {*taken} & {*self.order._used}
        assert len(self.order._taken) <= use_order.TABLES_MAX


def threes(keys: list[str]) -> list[list[str]]:
    return [keys[start : start + 3] for start in range(0, len(keys), 3)]


KEYS = st.integers(0, 40).map(str)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "write", "use", "remove", "evict", "scan", "scan_again", "take_over"]), KEYS),
    st.just(("restore",)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=200))
def test_it_is_one_order_whatever_happens(steps: list[tuple[str, ...]]) -> None:
    twins = Twins()
    for name, *arguments in steps:
        getattr(twins, name)(*arguments)
        twins.check()


@pytest.mark.parametrize("uses", [0.0, 0.3, 0.9])
def test_it_stays_one_order_in_a_long_run(uses: float) -> None:
    random, twins = Random(4), Twins()
    for step in range(8000):
        key = str(int(200 * random.random() ** 3))
        if random.random() < uses:
            twins.use(key)
        else:
            twins.write(key)
        if random.random() < 0.1:
            twins.evict(key)
        if step % 50 == 0:
            twins.check()
    assert len(twins.order._segments) < 8 + len(twins.plain) // 2
    while twins.plain:
        twins.evict("")
    assert twins.order.pop_first() is None


def test_the_protected_key_stays_wherever_it_is() -> None:
    for number in range(20):
        twins = Twins()
        for key in range(20):
            twins.write(str(key))
        for _ in range(20):
            twins.evict(str(number))
        assert list(twins.order) == [str(number)]


def test_a_key_that_moved_is_still_the_text_it_was() -> None:
    keys = [f"key {number}" for number in range(30)]
    order = UseOrder.of(keys, range(1, 31))
    order.use("key " + str(3), 4)
    order.rewrite("key " + str(4), 5, 31)
    order.rewrite("key " + str(3), 4, 32)
    held = {key: key for key in keys}
    assert all(key is held[key] for key in order)
    assert list(order)[-2:] == ["key 4", "key 3"]
