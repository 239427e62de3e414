"""Hashes and sets in the machine: their fields come, change, count and go, and the key goes with the last of them."""

from __future__ import annotations

from typing import Any

import pytest
from machine.driver import Driver, assert_invariants

from cacheflow.errors import CacheFlowError
from cacheflow.machine import image
from cacheflow.machine.deciding import batches
from cacheflow.machine.deciding.field_decisions import FIELDS_TOGETHER_MAX
from cacheflow.machine.effects import DELETED, FIELDS_CHANGED, WRITTEN
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.fields import with_fields
from cacheflow.machine.machine import CacheMachine
from cacheflow.values import HASH, SET, TEXT, decode

ROOM = c.FIELDS_BYTES_MAX


def hset(key: str, *pairs: bytes, only_absent: bool = False) -> c.Command:
    return c.set_fields(key, HASH, list(pairs), ROOM, only_absent=only_absent)


def sadd(key: str, *members: bytes) -> c.Command:
    return c.set_fields(key, SET, [part for member in members for part in (member, b"")], ROOM)


def value(driver: Driver, key: str) -> Any:
    entry = driver.machine.lookup(key, driver.machine.now_ms)
    return None if entry is None else decode(entry[1], entry[0])


def test_fields_are_written_and_only_new_ones_are_counted(driver: Driver) -> None:
    assert driver.one(hset("h", b"a", b"1", b"b", b"2")) == [c.OK, 1, 2, 0]
    assert driver.told() == [(WRITTEN, "h")]
    assert driver.one(hset("h", b"b", b"3", b"c", b"4")) == [c.OK, 2, 1, 0]
    assert driver.machine.contents.effects == [(FIELDS_CHANGED, "h", 2, 0, [b"b", b"3", b"c", b"4"], False, HASH)]
    assert value(driver, "h") == {"a": "1", "b": "3", "c": "4"}
    assert_invariants(driver.machine)


def test_a_field_that_is_there_is_left_as_it_is_on_demand(driver: Driver) -> None:
    assert driver.one(hset("h", b"a", b"1", only_absent=True))[:3] == [c.OK, 1, 1]
    assert driver.one(hset("h", b"a", b"2", only_absent=True)) == [c.OK, 0, 0, 0]
    assert driver.told() == []
    assert value(driver, "h") == {"a": "1"}


def test_the_key_goes_with_the_last_field(driver: Driver) -> None:
    driver.one(hset("h", b"a", b"1", b"b", b"2", b"c", b"3"))
    assert driver.one(c.remove_fields("h", HASH, [b"a", b"x", b"a"])) == [c.OK, 2, 1, 0]
    assert driver.one(c.remove_fields("h", HASH, [b"x"])) == [c.OK, 0, 0, 0]
    assert driver.one(c.remove_fields("h", HASH, [b"b", b"c"])) == [c.OK, 3, 2, 0]
    assert driver.told() == [(DELETED, "h")]
    assert driver.one(c.remove_fields("h", HASH, [b"b"])) == [c.MISSING]
    assert driver.live() == []
    assert_invariants(driver.machine)


def test_a_field_counts(driver: Driver) -> None:
    assert driver.one(c.count_field("h", b"n", 5, ROOM)) == [c.OK, 1, 5, 0]
    assert driver.one(c.count_field("h", b"n", -7, ROOM)) == [c.OK, 2, -2, 0]
    driver.one(hset("h", b"t", b"01", b"big", b"9" * 18, b"most", b"%d" % c.INT64_MAX))
    for field, word in ((b"t", "decimal"), (b"most", "sum")):
        status, message = driver.one(c.count_field("h", field, 1, ROOM))
        assert status == c.NOT_AN_INTEGER and word in message
    assert driver.one(c.count_field("h", b"big", 1, ROOM))[:3] == [c.OK, 4, 10**18]


def test_a_set_holds_each_member_once_and_a_present_one_changes_nothing(driver: Driver) -> None:
    assert driver.one(sadd("s", b"a", b"b", b"a")) == [c.OK, 1, 2, 0]
    assert driver.one(sadd("s", b"a")) == [c.OK, 0, 0, 0]
    assert driver.told() == []
    assert driver.one(sadd("s", b"a", b"c")) == [c.OK, 2, 1, 0]
    assert driver.one(c.remove_fields("s", SET, [b"a"])) == [c.OK, 3, 1, 0]
    assert value(driver, "s") == {"b", "c"}


def test_a_change_keeps_the_expiry(driver: Driver) -> None:
    driver.run(hset("h", b"a", b"1"), c.expire("h", 50), at=100)
    assert driver.one(hset("h", b"b", b"2")) == [c.OK, 2, 1, 150]
    assert driver.one(c.count_field("h", b"n", 1, ROOM)) == [c.OK, 3, 1, 150]
    assert driver.one(c.remove_fields("h", HASH, [b"a"])) == [c.OK, 4, 1, 150]
    assert driver.one(hset("h", b"a", b"2"), at=150) == [c.OK, 6, 1, 0]
    assert value(driver, "h") == {"a": "2"}


@pytest.mark.parametrize(
    ("key", "command"),
    [
        *(
            (key, command)
            for key in ("h", "s")
            for command in (c.incr(key, 1, 0), c.count(key, 1, 0), c.append(key, b"x", create=True))
        ),
        ("s", hset("s", b"a", b"1")),
        ("s", c.count_field("s", b"a", 1, ROOM)),
        ("s", c.remove_fields("s", HASH, [b"a"])),
        ("t", c.remove_fields("t", HASH, [b"a"])),
        ("t", hset("t", b"a", b"1")),
        ("t", sadd("t", b"a")),
        ("h", sadd("h", b"a")),
        ("h", c.remove_fields("h", SET, [b"a"])),
    ],
)
def test_a_command_of_another_kind_changes_nothing(driver: Driver, key: str, command: c.Command) -> None:
    driver.run(hset("h", b"a", b"1"), sadd("s", b"a"), c.set_("t", b"1", TEXT))
    before = driver.machine.contents.raw[key]
    status, message = driver.one(command)
    assert status == c.WRONG_KIND and message.startswith("the key holds a ")
    assert driver.machine.contents.raw[key] == before and driver.told() == []
    assert driver.one(c.batch([c.set_("other", b"1", TEXT), command], atomic=True))[:2] == [c.ABORTED, 1]


def test_a_value_takes_the_place_of_a_hash_and_the_other_way_round_only_when_it_is_gone(driver: Driver) -> None:
    driver.one(hset("h", b"a", b"1"))
    assert driver.one(c.set_("h", b"v", TEXT))[:3] == [c.OK, 2, False]
    assert value(driver, "h") == "v"
    driver.run(c.delete("h"), hset("h", b"a", b"1"))
    assert value(driver, "h") == {"a": "1"}


@pytest.mark.parametrize(("when", "absent"), [(c.IF_VALUE, c.PRECONDITION), (c.IF_VALUE_OR_ABSENT, c.OK)])
def test_a_set_on_the_condition_of_one_value_leaves_hashes(driver: Driver, when: int, absent: int) -> None:
    driver.run(hset("h", b"a", b"1"), c.set_("t", b"1", TEXT))
    results = driver.run(*(c.set_(key, b"2", TEXT, None, 0, when) for key in ("h", "t", "new")))
    assert [result[0] for result in results] == [c.PRECONDITION, c.OK, absent]
    results = driver.run(*(c.expire(key, ttl_ms, c.IF_ONE_VALUE) for key in ("h", "t") for ttl_ms in (9, c.TTL_ENDED)))
    assert [result[0] for result in results] == [c.PRECONDITION, c.PRECONDITION, c.OK, c.OK]
    assert value(driver, "h") == {"a": "1"} and value(driver, "t") is None


def test_a_hash_is_written_whole_where_its_bytes_are_those_of_one(driver: Driver) -> None:
    driver.one(hset("h", b"a", b"1"))
    data = driver.machine.contents.raw["h"][0]
    assert driver.one(c.set_("copy", data, HASH))[0] == c.OK
    assert value(driver, "copy") == {"a": "1"}
    for kind, wrong in ((SET, data), (HASH, b""), (HASH, b"x"), (HASH, data[:-1] + b"\xfe"), (SET + 1, data)):
        assert driver.one(c.set_("wrong", wrong, kind))[0] == c.MALFORMED
    large, _ = with_fields(b"", [b"a", bytes(ROOM)])
    assert driver.one(c.set_("wrong", large, HASH))[0] == c.MALFORMED


def test_a_hash_has_an_end(driver: Driver) -> None:
    assert driver.one(c.set_fields("h", HASH, [b"a", b"x" * 95], 100)) == [c.OK, 1, 1, 0]
    assert driver.one(c.set_fields("h", HASH, [b"a", b"x" * 96], 100))[0] == c.TOO_LARGE
    assert driver.one(c.set_fields("h", HASH, [b"a", bytes(ROOM)], 2**40))[0] == c.TOO_LARGE
    assert driver.one(c.count_field("h", b"b", 1, 100))[0] == c.TOO_LARGE
    driver.one(c.configure({"max_bytes": 1024}))
    assert driver.one(hset("h", b"a", bytes(1000)))[0] == c.TOO_LARGE
    assert len(driver.machine.contents.raw["h"][0]) == 100


def test_one_field_of_many_is_changed_by_itself(driver: Driver) -> None:
    for start in range(0, FIELDS_TOGETHER_MAX + 1, c.FIELDS_AT_ONCE_MAX):
        assert driver.one(sadd("s", *(b"%d" % (start + number) for number in range(c.FIELDS_AT_ONCE_MAX))))[0] == c.OK
    assert driver.one(sadd("s", b"x", b"y"))[0] == c.TOO_LARGE
    assert driver.one(c.remove_fields("s", SET, [b"1", b"2"]))[0] == c.TOO_LARGE
    assert driver.one(sadd("s", b"x"))[2] == driver.one(c.remove_fields("s", SET, [b"1"]))[2] == 1
    assert driver.one(sadd("t", *(b"%d" % number for number in range(c.FIELDS_AT_ONCE_MAX + 1))))[0] == c.MALFORMED


def test_a_batch_searches_only_so_much(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "SEARCHED_PER_BATCH_BYTES_MAX", 2200)
    driver.one(hset("h", b"a", bytes(500)))
    batch = [hset("h", b"a", bytes(500)) for _ in range(3)]
    assert [result[0] for result in driver.one(c.batch(batch))[1]] == [c.OK, c.OK, c.TOO_LARGE]
    # To look at the bytes of a whole hash takes longer than to search them.
    data, _ = with_fields(b"", [b"a", bytes(100)])
    copies = [c.set_("copy", data, HASH) for _ in range(3)]
    assert [result[0] for result in driver.one(c.batch(copies))[1]] == [c.OK, c.OK, c.TOO_LARGE]
    assert driver.one(c.batch(batch, atomic=True))[:2] == [c.ABORTED, 2]
    assert driver.one(c.batch([hset("h", *(b"%d" % n for n in range(18)))]))[1][0][0] == c.TOO_LARGE


def test_commands_in_an_atomic_batch_see_each_other(driver: Driver) -> None:
    batch = [hset("h", b"a", b"1"), c.count_field("h", b"a", 4, ROOM), c.remove_fields("h", HASH, [b"a"]), c.get("h")]
    status, results = driver.one(c.batch(batch, atomic=True))
    assert (status, results) == (c.OK, [[c.OK, 1, 1, 0], [c.OK, 2, 5, 0], [c.OK, 3, 1, 0], [c.MISSING]])
    assert driver.live() == []


def test_a_snapshot_holds_hashes_and_takes_none_that_is_damaged(driver: Driver) -> None:
    driver.run(hset("h", b"a", b"1"), sadd("s", b"a", b"\xfe"), c.expire("s", 1000))
    copy = driver.copy()
    assert copy.machine.contents_digest() == driver.machine.contents_digest()
    assert value(copy, "h") == {"a": "1"} and value(copy, "s") == {"a", b"\xfe"}
    records = [list(record) for record in image.records(driver.machine)]
    [item] = [record for record in records if record[1:2] == ["h"]]
    item[2] += b"\xfe"
    with pytest.raises(CacheFlowError, match="a hash or set is none"):
        CacheMachine.restore(list(image.pack(map(tuple, records))))
