"""Threads read without a lock while the machine applies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from machine.driver import Driver, sets

from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine
from cacheflow.machine.state.contents import Contents

KEYS = [f"k{number}" for number in range(200)]


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_several_keys_are_read_between_two_entries_only(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Contents.write
    seen = []

    def write_and_look(self: Contents, *args: Any) -> int:
        seen.append(driver.machine.lookup_all(["a", "b"], 0))
        return write(self, *args)

    monkeypatch.setattr(Contents, "write", write_and_look)
    driver.run(c.incr("a", 1, 0), c.incr("b", -1, 0), at=100)
    driver.run(c.batch([c.incr("a", 1), c.incr("b", -1, 0, 50)], atomic=True), at=100)
    assert seen == [None] * 4
    assert [entry and entry[0] for entry in driver.machine.lookup_all(["b", "x", "a"], 0) or ()] == [b"-2", None, b"2"]
    driver.run(c.set_("b", b"", 1, ttl_ms=50), at=100)
    for now_ms, is_there in ((149, True), (150, False)):
        found = driver.machine.lookup_all(["b"], now_ms)
        assert found is not None and (found[0] is not None) == is_there
    # A machine that was restored has applied its last entry to the end.
    restored = CacheMachine.restore(driver.machine.snapshot())
    assert restored.lookup_all(["a"], 0) == driver.machine.lookup_all(["a"], 0) != [None]
    # What a reader looks at may be replaced while it looks.
    get = driver.machine.contents.get

    def get_meanwhile(key: str) -> Any:
        driver.machine.contents.get = get
        driver.run(c.set_("a", b"new", 1))
        return get(key)

    driver.machine.contents.get = get_meanwhile
    assert driver.machine.lookup_all(["a"], 0) is None


@pytest.mark.usefixtures("quick_switches")
def test_readers_see_whole_entries_and_never_an_error(driver: Driver) -> None:
    driver.put("always", data=b"0")
    stop = threading.Event()
    faults: list[BaseException] = []
    reads = [0, 0, 0]

    def look() -> None:
        machine = driver.machine
        for key in KEYS:
            entry = machine.lookup(key, 10**9)
            assert entry is None or (entry[0] == b"%d" % len(key) and entry[3] <= machine.contents.revision)
        versions = [entry[3] for _ in range(20) if (entry := machine.lookup("always", 0)) is not None]
        assert versions == sorted(versions)
        pair = machine.lookup_all(["one", "other"], 0)
        if pair is not None and None not in pair:
            assert sum(int(entry[0]) for entry in pair if entry is not None) == 0
            reads[2] += 1
        reads[0] += 1

    def list_keys() -> None:
        keys, cursor = driver.machine.keys("k", 50, now_ms=10**9)
        assert keys == sorted(set(keys))
        assert cursor is None or cursor == keys[-1]
        reads[1] += 1

    def until_stopped(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=until_stopped, args=(work,)) for work in (look, look, list_keys)]
    for thread in threads:
        thread.start()
    rounds = 0
    while not faults and rounds < 10_000 and (rounds < 60 or min(reads) < 20):
        rounds += 1
        policy = ("lru", "lfu")[rounds % 2]
        driver.run(c.configure({"policy": policy, "max_items": 150 if rounds % 3 else 300}))
        for start in range(0, 200, 20):
            part = KEYS[start : start + 20]
            driver.run(*(c.set_(key, b"%d" % len(key), 1, ttl_ms=start) for key in part), *sets(["always"]))
            driver.run(*(c.get(key) for key in part), c.delete(part[0]), at=driver.at_ms + 1)
            driver.run(c.incr("one", 1, 0), *(c.get(key) for key in part), c.incr("other", -1, 0))
            if None in (driver.machine.lookup("one", 0), driver.machine.lookup("other", 0)):
                driver.run(c.delete("one"), c.delete("other"))
        driver.run(c.delete_prefix("k1" if rounds % 4 else ""), at=driver.at_ms + 50)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert faults == []
    assert min(reads) >= 20
