"""Removing by prefix and clearing: at once for everybody, swept in bounded steps, counted when that is over."""

from __future__ import annotations

import sys
from itertools import pairwise
from time import process_time
from types import FrameType
from typing import Any

import pytest
from machine.driver import Driver, assert_invariants, sets

from cacheflow.machine.effects import CONDEMNED, EVICTED, WRITTEN
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.databases import PREFIXES
from cacheflow.machine.state import condemnations, contents
from cacheflow.machine.state.census import Tally
from cacheflow.machine.state.condemnations import Condemnation, Condemnations
from cacheflow.machine.state.contents import BURIED_PER_ENTRY_MAX, EVICTED_PER_ENTRY_MAX, SWEPT_PER_ENTRY_MAX
from cacheflow.machine.state.entries import KEY_BYTES_MAX, Entry


def test_a_prefix_removes_what_starts_with_it_and_tells_how_many(cache: Driver) -> None:
    cache.put("a1", "b1", "a2", "b2")
    assert cache.one(c.delete_prefix("a")) == [c.SWEEPING, 5]
    assert cache.told() == [(CONDEMNED, "a")]
    assert cache.live() == ["b1", "b2"]
    assert cache.count(5) == 2
    assert cache.machine.contents.revision == 5
    assert cache.removed("zz") == 0


def test_many_keys_are_absent_at_once_and_swept_a_bounded_number_an_entry(cache: Driver) -> None:
    count = 5 * BURIED_PER_ENTRY_MAX
    cache.put("stays", *(f"k{number:05}" for number in range(count)))
    status, revision = cache.one(c.delete_prefix("k"))
    machine = cache.machine
    assert (status, machine.contents.condemned.is_counting(revision)) == (c.SWEEPING, True)
    assert cache.live() == ["stays"]
    assert (machine.lookup("k00000", 0), cache.one(c.get("k00000"))) == (None, [c.MISSING])
    assert machine.next_due_ms() == 0
    before = len(machine.contents.raw)
    cache.run()
    assert 0 < before - len(machine.contents.raw) < BURIED_PER_ENTRY_MAX + contents.SWEPT_AT_ONCE
    assert cache.count(revision) == count
    assert (len(machine.contents.raw), machine.contents.bytes_used, machine.next_due_ms()) == (1, 70, None)


def test_what_is_dead_is_absent_to_every_command(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 0)
    cache.put(*"abcdefghij", data=b"1")
    cache.one(c.delete_prefix(""))
    commands = [
        (c.delete("a"), [c.MISSING]),
        (c.incr("a", 1), [c.MISSING]),
        (c.touch("a", 50), [c.MISSING]),
        (c.get("a"), [c.MISSING]),
        (c.expire("a", 5), [c.MISSING]),
        (c.append("a", b"x"), [c.MISSING]),
        (c.count("a", 1), [c.MISSING]),
        (c.set_("a", b"", 1, when=c.IF_PRESENT), [c.PRECONDITION, 0]),
        (c.set_("a", b"", 1, when=c.IF_VERSION, version=1), [c.PRECONDITION, 0]),
        (c.guarded([("a", 1, 0)], []), [c.PRECONDITION, 0]),
        (c.recency([("a", 1)]), [c.OK]),
        (c.set_("a", b"", 1, when=c.IF_ABSENT), [c.OK, 12, True, 0]),
        (c.append("b", b"x", create=True), [c.OK, 13, 1, 0]),
        (c.incr("c", 1, 5), [c.OK, 14, 6, 0]),
        (c.set_("d", b"", 1), [c.OK, 15, True, 0]),
    ]
    results = cache.run(*(command for command, _ in commands))
    assert results == [result for _, result in commands]
    assert cache.live() == ["a", "b", "c", "d"]
    assert_invariants(cache.machine)


def test_what_is_written_again_stays_and_counts_as_removed_before(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 2)
    cache.put(*"abcdefghij", ttl_ms=50)
    _, revision = cache.one(c.delete_prefix(""))
    cache.run(*sets("ajx"))
    assert cache.told() == [(WRITTEN, "a"), (WRITTEN, "j"), (WRITTEN, "x")]
    assert cache.count(revision) == 10
    assert cache.live() == ["a", "j", "x"]
    assert (cache.machine.contents.expired, cache.machine.contents.swept) == (0, 10)


@pytest.mark.parametrize("database", [None, 0, 1])
def test_a_database_is_cleared_alone_and_counted_at_once(
    cache: Driver, database: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 2)
    cache.put(*"abcd", "\x011a", "\x011b", "\x012a", "\x01", "\x00", ttl_ms=50)
    wanted = {0: 6, 1: 2, 2: 1}
    assert {number: cache.machine.contents.count_of(number) for number in wanted} == wanted
    cache.one(c.clear_all() if database is None else c.clear_database(database))
    if database is None:
        wanted = dict.fromkeys(wanted, 0)
    else:
        wanted[database] = 0
    assert {number: cache.machine.contents.count_of(number) for number in wanted} == wanted
    cache.run(c.delete("d"), c.delete("\x012a"), c.delete("\x011a"))
    cache.run(at=100)
    assert_invariants(cache.machine)
    cache.work_off()
    assert cache.machine.contents.count_of(None) == len(cache.live())


def test_a_counted_clear_of_database_0_counts_its_keys(cache: Driver) -> None:
    cache.put(*"abcd", "\x011a")
    status, revision = cache.one(c.clear_database(0, counted=True))
    assert (status, cache.count(revision), cache.live()) == (c.SWEEPING, 4, ["\x011a"])


def test_a_key_counts_for_the_first_condemnation_that_met_it(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 1)
    cache.put("a", "ab", "abc", "b")
    revisions = [cache.one(c.delete_prefix(prefix))[1] for prefix in ("ab", "", "a", "ab", "b")]
    cache.put("ab")
    revisions.append(cache.one(c.delete_prefix("a"))[1])
    assert [cache.count(revision) for revision in revisions] == [2, 2, 0, 0, 0, 1]
    assert cache.live() == []


def test_the_dead_go_before_the_living(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 0)
    cache.one(c.configure({"max_items": 40}))
    cache.put("first", *(f"k{number}" for number in range(10)), *(f"x{number}" for number in range(29)))
    cache.one(c.delete_prefix("k"))
    cache.put(*(f"new{number}" for number in range(10)))
    assert cache.machine.contents.evicted == 0
    assert len(cache.live()) == len(cache.machine.contents.raw) == 40
    cache.put("one more")
    assert cache.machine.contents.evicted == 1


def test_the_dead_go_before_the_living_in_the_entry_in_which_they_died(cache: Driver) -> None:
    cache.one(c.configure({"max_items": 20}))
    cache.put("first", *(f"x{number}" for number in range(9)), *(f"k{number}" for number in range(10)))
    cache.run(c.delete_prefix("k"), *sets(f"new{number}" for number in range(10)))
    assert (cache.machine.contents.evicted, len(cache.live())) == (0, 20)


def test_expired_keys_go_before_the_living(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "EXPIRED_PER_ENTRY_MAX", 2)
    cache.one(c.configure({"max_items": 20}))
    cache.put("first", *(f"x{number}" for number in range(9)))
    cache.put(*(f"k{number}" for number in range(10)), ttl_ms=5)
    cache.run(*sets(f"new{number}" for number in range(8)), at=100)
    assert (cache.machine.contents.evicted, cache.machine.contents.expired) == (0, 8 + 2 - 2)
    cache.run(*sets(["one", "two", "three"]))
    assert (cache.machine.contents.evicted, cache.machine.contents.expired) == (1, 10)


def test_what_is_condemned_goes_before_the_living_once_nothing_more_has_expired(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "EXPIRED_PER_ENTRY_MAX", 2)
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 0)
    cache.one(c.configure({"max_items": 30}))
    cache.put(*(f"x{number}" for number in range(10)), *(f"k{number}" for number in range(10)))
    cache.put(*(f"late{number}" for number in range(10)), ttl_ms=5)
    cache.one(c.delete_prefix("k"))
    cache.run(*sets(f"new{number}" for number in range(20)), at=100)
    assert (cache.machine.contents.evicted, cache.machine.contents.expired) == (0, 10)
    assert len(cache.live()) == 30


def test_a_pass_ends_also_while_everything_is_read(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 10)
    keys = [f"k{number:02}" for number in range(100)]
    cache.put("gone", *keys)
    _, revision = cache.one(c.delete_prefix("gone"))
    for number in range(20):
        # Through the log, and on a node by itself.
        uses = [keys[(number * 30 + place) % 100] for place in range(30)]
        cache.run(c.recency([(key, 1) for key in uses]) if number % 2 else c.batch([c.get(key) for key in uses]))
        if number % 5 == 0:
            cache = cache.copy()
    assert not cache.machine.contents.condemned.is_counting(revision)
    assert cache.machine.next_due_ms() is None


def test_a_lowered_limit_evicts_a_bounded_number_an_entry(cache: Driver) -> None:
    count = 4 * EVICTED_PER_ENTRY_MAX
    cache.put(*(f"k{number:05}" for number in range(count + 10)))
    cache.one(c.configure({"max_items": 10}))
    cache.run()
    assert (len(cache.machine.contents.raw), cache.machine.next_due_ms()) == (count + 10 - EVICTED_PER_ENTRY_MAX, 0)
    # A write in the meantime adds to nothing.
    cache.put("new", "newer")
    assert cache.told()[-4:] == [
        (EVICTED, f"k{2 * EVICTED_PER_ENTRY_MAX:05}"),
        (WRITTEN, "new"),
        (EVICTED, f"k{2 * EVICTED_PER_ENTRY_MAX + 1:05}"),
        (WRITTEN, "newer"),
    ]
    assert len(cache.told()) == EVICTED_PER_ENTRY_MAX + 4
    cache.run(*(c.set_(f"large{number}", b"x" * 100, 1, None, 50) for number in range(3)))
    assert len(cache.told()) == EVICTED_PER_ENTRY_MAX + 6
    cache.work_off()
    assert (len(cache.machine.contents.raw), cache.machine.contents.evicted) == (10, count + 5)


def test_one_pass_serves_all_that_exist_when_it_begins(cache: Driver) -> None:
    keys = [f"{number % 500}:{number}" for number in range(20_000)]
    for start in range(0, len(keys), 5000):
        cache.put(*keys[start : start + 5000])
    first = cache.one(c.delete_prefix("0:"))[1]
    revisions = [answer[1] for answer in cache.run(*(c.delete_prefix(f"{number}:") for number in range(1, 400)))]
    entries = cache.work_off()
    assert entries <= 400 * 40 // BURIED_PER_ENTRY_MAX + 20_000 // SWEPT_PER_ENTRY_MAX + 3
    found = cache.machine.contents.condemned.counts
    assert {found[revision] for revision in [first, *revisions]} == {40}
    assert len(cache.machine.contents.raw) == 100 * 40


def test_a_pass_that_is_under_way_goes_on_in_a_restored_machine(cache: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 7)
    monkeypatch.setattr(contents, "SWEPT_AT_ONCE", 2)
    cache.put(*(f"{number % 9}:{number}" for number in range(200)))
    cache.run(*(c.get(f"{number % 9}:{number}") for number in range(0, 200, 3)))
    cache.one(c.delete_prefix("1"))
    for step in range(60):
        twin = cache.copy()
        for one in (cache, twin):
            one.run(*sets([f"{step % 9}:{step}", f"new {step}"]), c.get(f"2:{step}"), c.delete_prefix(f"{step}:"))
        assert cache.machine.digest == twin.machine.digest
        assert cache.machine.contents_digest() == twin.machine.contents_digest()
        assert_invariants(twin.machine)


def test_a_change_of_policy_begins_the_pass_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 3)
    driver.put(*(f"k{number}" for number in range(50)))
    revision = driver.one(c.delete_prefix("k"))[1]
    for policy in ("lfu", "lru", "lfu"):
        driver.one(c.configure({"policy": policy}))
        assert_invariants(driver.machine)
    assert driver.count(revision) == 50


def test_too_many_are_refused_and_done_when_they_come_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BURIED_PER_ENTRY_MAX", 0)
    monkeypatch.setattr(condemnations, "CONDEMNATIONS_MAX", 3)
    driver.put(*"abcdef")
    driver.run(*map(c.delete_prefix, "abc"))
    refused = c.idempotent("mine", c.delete_prefix("d"))
    revision = driver.machine.contents.revision
    assert driver.one(refused) == [c.TOO_MANY]
    assert driver.machine.contents.revision == revision
    assert driver.live() == ["d", "e", "f"]
    # Clearing is never refused, and however often it comes it is one condemnation.
    for _ in range(5):
        assert driver.run(c.clear_all(), c.clear_database(0), c.clear_database(3)) == [[c.OK]] * 3
    assert len(driver.machine.contents.condemned.present) == 6
    monkeypatch.setattr(contents, "BURIED_PER_ENTRY_MAX", 100)
    driver.run()
    driver.put("d")
    assert driver.one(refused)[0] == c.SWEEPING
    assert driver.live() == []


def test_prefixes_of_too_many_lengths_are_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BURIED_PER_ENTRY_MAX", 0)
    answers = driver.run(*(c.delete_prefix("a" * length) for length in range(1, condemnations.LENGTHS_MAX + 3)))
    assert [answer[0] for answer in answers].count(c.TOO_MANY) == 2
    assert driver.one(c.delete_prefix("b"))[0] == c.SWEEPING


def test_only_the_latest_counts_are_kept(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condemnations, "COUNTS_KEPT", 3)
    driver.put("a")
    for _ in range(5):
        driver.one(c.delete_prefix("a"))
    assert list(driver.machine.contents.condemned.counts.items()) == [(4, 0), (5, 0), (6, 0)]
    assert driver.copy().machine.contents.condemned.counts == driver.machine.contents.condemned.counts


@pytest.mark.parametrize(
    "fields", [("a", True, True), ("a",), (5, False, True), ("a" * (KEY_BYTES_MAX + 1), False, True), ("a", 0, 1)]
)
def test_a_malformed_one_does_nothing(driver: Driver, fields: tuple[object, ...]) -> None:
    driver.put("a")
    assert driver.one([c.DELETE_PREFIX, *fields])[0] == c.MALFORMED
    assert driver.live() == ["a"]


def test_a_reader_that_stands_still_until_the_sweep_is_over_finds_nothing(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "BURIED_PER_ENTRY_MAX", 0)
    cache.put("a", "\x011a")
    cache.run(c.clear_database(0), c.delete_prefix("\x011a"))
    monkeypatch.setattr(contents, "BURIED_PER_ENTRY_MAX", 10)
    raw = cache.machine.contents.raw

    class Slow(dict[str, Entry]):
        """Finds an entry, and then lets the machine sweep it away."""

        def get(self, key: str, default: object = None) -> Any:
            entry = raw.get(key)
            cache.work_off()
            return entry

    readers = [cache.machine.contents.condemned.reader(Slow()) for _ in range(2)]
    assert [reader(key) for reader, key in zip(readers, ["a", "\x011a"], strict=True)] == [None, None]
    assert raw == {}


def test_a_reader_in_the_middle_of_a_sweep_counts_nothing_below_zero(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, counts = cache.machine.contents, []
    cache.put("a", "b", ttl_ms=50)
    bury = Condemnations.bury

    def seen(condemned: Condemnations, *item: Any) -> bool:
        counts.append((items.count_of(0), items.count_of(None), items.expiring_of(0)))
        return bury(condemned, *item)

    monkeypatch.setattr(Condemnations, "bury", seen)
    cache.one(c.clear_all())
    assert counts == [(0, 0, (0, 0))] * 2


def test_a_reader_during_whose_look_something_is_cleared_looks_again(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = cache.machine.contents
    cache.put("a", "b")
    in_memory, others = items._in_memory, [c.clear_all(), *sets(["c"])]

    def looked_at() -> Tally:
        tally = in_memory()
        if others:
            cache.one(others.pop(0))
        return tally

    monkeypatch.setattr(items, "_in_memory", looked_at)
    assert items.count_of(0) == 1


def test_clearing_again_and_again_takes_no_longer_while_much_is_condemned(driver: Driver) -> None:
    driver.put("k")
    prefixes = [c.delete_prefix(f"p{number:04}") for number in range(4000)]
    clears = [c.clear_all(), c.clear_database(0), c.clear_database(3)] * 500
    before = process_time()
    results = driver.run(*prefixes, *clears)
    # Each looked at all that was condemned before: that took more than a second.
    assert process_time() - before < 0.4
    assert {result[0] for result in results} == {c.OK, c.SWEEPING}
    assert driver.live() == []


def test_a_reader_during_the_making_of_a_condemnation_finds_what_is_there(
    cache: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SWEPT_PER_ENTRY_MAX", 0)
    cache.put(*"abcdefghij")
    cache.run(c.delete_prefix("j"))
    condemned = cache.machine.contents.condemned
    assert condemned.present
    assert condemned._list_of(Condemnation("a", False, False, 99, 0)) == []
    assert cache.live() == [*"abcdefghi"]


@pytest.mark.parametrize("number", [None, 0, 3])
def test_a_reader_in_the_middle_of_a_clear_counts_what_was_before_or_what_is_after(
    cache: Driver, number: int | None
) -> None:
    cache.put("a", "b", ttl_ms=50)
    cache.put(*(PREFIXES[3] + key for key in "cde"), ttl_ms=50)
    cache.put(PREFIXES[7] + "f")
    machine = cache.machine.contents

    def counts() -> list[int]:
        return [machine.count_of(database) for database in (None, 0, 3, 7)] + [*machine.expiring_of(0)]

    seen = [counts()]

    def look(frame: FrameType, event: str, argument: object) -> Any:
        # Another thread may read between any two instructions.
        frame.f_trace_opcodes = True
        sys.settrace(None)
        seen.append(counts())
        sys.settrace(look)
        return look

    sys.settrace(look)
    try:
        machine.condemn("" if number is None else PREFIXES[number], number == 0, False)
    finally:
        sys.settrace(None)
    changes = [after for before, after in pairwise([*seen, counts()]) if before != after]
    assert len(seen) > 100 and seen[0][:5] == [6, 2, 3, 1, 2] and changes == [counts()] != seen[:1]
