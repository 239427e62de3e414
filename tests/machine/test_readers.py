"""Threads read without a lock while the machine applies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from machine.driver import Driver, sets

from cacheflow.machine.language import commands as c

KEYS = [f"k{number}" for number in range(200)]


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_readers_see_whole_entries_and_never_an_error(driver: Driver) -> None:
    driver.put("always", data=b"0")
    stop = threading.Event()
    faults: list[BaseException] = []
    reads = [0, 0]

    def look() -> None:
        machine = driver.machine
        for key in KEYS:
            entry = machine.lookup(key, 10**9)
            assert entry is None or (entry[0] == b"%d" % len(key) and entry[3] <= machine.contents.revision)
        versions = [entry[3] for _ in range(20) if (entry := machine.lookup("always", 0)) is not None]
        assert versions == sorted(versions)
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
        driver.run(c.delete_prefix("k1" if rounds % 4 else ""), at=driver.at_ms + 50)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert faults == []
    assert min(reads) >= 20
