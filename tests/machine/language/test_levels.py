"""Feature levels: two builds never read one entry differently, and the level rises when all members know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from fakes.newer_build import LABEL, LABELLED, NewerMachine
from machine.driver import Driver, sets

from cacheflow.errors import NewerCacheFlow
from cacheflow.machine.deciding.decisions import DECIDE
from cacheflow.machine.language import commands as c
from cacheflow.machine.language.commands import CodecError
from cacheflow.machine.language.levels import BUILD_LEVEL, FIRST_LEVEL
from cacheflow.machine.machine import CacheMachine

WRAPPED: list[Callable[[Any], Any]] = [
    lambda one: one,
    lambda one: c.batch([one]),
    lambda one: c.batch([one], atomic=True),
    lambda one: c.guarded([], [one]),
    lambda one: c.idempotent("i", one),
]


def members(driver: Driver, *ids: str) -> None:
    driver.one(c.members("cluster", [[name, f"disk of {name}", f"{name}:1", f"{name}:2", True, False] for name in ids]))


def starts(driver: Driver, name: str, level: int, number: int = 1) -> c.Result:
    return driver.one(c.open_session(name, f"disk of {name}", number, f"{name} {number}", level))


def at_level(level: int, *commands: Any) -> bytes:
    return c.encode_entry(1, [c.encode_block(0, 0, 0, commands)], level)


def test_every_command_of_this_build_has_a_level() -> None:
    assert {*DECIDE, *CacheMachine.other_commands} == set(c.LEVELS)
    assert max(c.LEVELS.values()) <= BUILD_LEVEL


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_command_above_its_entrys_level_is_malformed_on_every_build_alike(wrap: Callable[[Any], Any]) -> None:
    older, newer = Driver(), Driver(NewerMachine())
    for driver in (older, newer):
        members(driver, "a")
        session = starts(driver, "a", 1)[1]
        driver.send(session, 1, *sets("xy"))
    session, payload = 1, c.encode_entry(2, [c.encode_block(1, 3, 1, [wrap((LABEL, "k")), *sets("z")])])
    assert session and older.apply(payload) == newer.apply(payload)
    assert newer.live() == ["x", "y", "z"]
    # Results are kept, and go into snapshots: also these are equal.
    assert older.machine.contents_digest() == newer.machine.contents_digest()


def test_a_command_is_carried_out_at_the_level_that_brought_it() -> None:
    newer = Driver(NewerMachine())
    assert newer.apply(at_level(2, (LABEL, "k")))[0][2] == [[c.OK, 1, True, 0]]
    assert newer.machine.contents.raw["k"][0] == LABELLED
    # And the level of the next entry counts for that one.
    assert newer.apply(at_level(1, (LABEL, "j")))[0][2][0][0] == c.MALFORMED
    assert newer.apply(at_level(2, (LABEL, "j")))[0][2][0][0] == c.OK


@pytest.mark.parametrize("level", [2, 3, 127, 128, 256, 2**40])
def test_an_entry_above_the_builds_level_is_refused_before_anything_is_done(level: int) -> None:
    older = Driver()
    older.put("k")
    before = older.machine.contents_digest()
    newer_shape: bytes = msgpack.packb((level, 7, [], "what a later level adds"))
    for payload in (at_level(level, *sets("x")), newer_shape):
        with pytest.raises(NewerCacheFlow, match="was written by a newer CacheFlow"):
            older.apply(payload)
        assert c.level_of(payload) == min(level, 128)
    assert older.machine.contents_digest() == before
    older.put("k")


def test_an_entry_of_no_level_has_no_effect() -> None:
    driver = Driver()
    for level in (0, -1, True, None, "2"):
        payload: bytes = msgpack.packb((level, 1, [c.encode_block(0, 0, 0, sets("x"))]))
        assert driver.apply(payload) == [] and driver.live() == []


def test_the_level_rises_once_every_member_has_told_that_it_knows_it() -> None:
    driver = Driver(NewerMachine())
    machine = driver.machine
    assert driver.one(c.raise_level(2)) == [c.PRECONDITION, 1, ""]
    members(driver, "a", "b", "c")
    starts(driver, "a", 2)
    starts(driver, "c", 3)
    assert driver.one(c.raise_level(2)) == [c.PRECONDITION, 1, "b"]
    starts(driver, "b", 1)
    assert machine.level_told("b") == 1
    assert driver.one(c.raise_level(2)) == [c.PRECONDITION, 1, "b"]
    digest = machine.digest
    starts(driver, "b", 2, number=2)
    assert machine.digest == digest
    assert driver.one(c.raise_level(3)) == [c.PRECONDITION, 1, "a"]
    assert driver.one(c.raise_level(2)) == [c.OK, 2]
    assert machine.level == 2 and machine.digest != digest
    # Once more is no mistake, back is impossible.
    assert driver.one(c.raise_level(2)) == [c.OK, 2]
    assert driver.one(c.raise_level(1)) == [c.PRECONDITION, 2, ""]
    for nonsense in (0, -1, True, "2", None):
        assert driver.one((c.RAISE_LEVEL, nonsense))[0] == c.MALFORMED


def test_a_member_that_goes_back_in_time_prevents_the_raise() -> None:
    driver = Driver(NewerMachine())
    members(driver, "a", "b")
    starts(driver, "a", 2)
    starts(driver, "b", 2)
    starts(driver, "b", 1, number=2)
    assert driver.one(c.raise_level(2)) == [c.PRECONDITION, 1, "b"]


def test_a_newcomer_and_an_emptied_disk_count_as_unknown_until_they_have_told() -> None:
    driver = Driver(NewerMachine())
    members(driver, "a")
    starts(driver, "a", 2)
    members(driver, "a", "b")
    assert driver.one(c.raise_level(2)) == [c.PRECONDITION, 1, "b"]
    driver.one(c.members("cluster", [["a", "another disk", "a:1", "a:2", True, False]]))
    assert driver.one(c.raise_level(2)) == [c.PRECONDITION, 1, "a"]


def test_the_level_and_what_members_have_told_are_in_a_snapshot() -> None:
    driver = Driver(NewerMachine())
    members(driver, "a", "b")
    for name in "ab":
        starts(driver, name, 2)
    assert driver.one(c.raise_level(2)) == [c.OK, 2]
    chunks = list(driver.machine.snapshot())
    twin = NewerMachine.restore(chunks)
    assert (twin.level, twin.level_told("b")) == (2, 2)
    assert twin.contents_digest() == driver.machine.contents_digest()
    with pytest.raises(
        NewerCacheFlow, match=r"the snapshot was written by a newer CacheFlow \(level 2; this build knows 1\)"
    ):
        CacheMachine.restore(chunks)


def test_an_older_build_applies_the_raise_itself_as_every_other_does() -> None:
    # It had told level 2 before it went back: the raise is in an entry of level 1, and the state stays equal.
    older, newer = Driver(), Driver(NewerMachine())
    for driver in (older, newer):
        members(driver, "a")
        starts(driver, "a", 2)
        assert driver.one(c.raise_level(2)) == [c.OK, 2]
    assert older.machine.contents_digest() == newer.machine.contents_digest()
    assert older.machine.level > older.machine.build_level


def test_a_new_machine_is_at_the_first_level() -> None:
    assert CacheMachine().level == FIRST_LEVEL == NewerMachine().level
    with pytest.raises(CodecError):
        CacheMachine.restore([b""])
