"""Snapshots: a restored machine is the same machine, now and after any further log; damage is refused."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
import pytest
from machine.driver import Driver, assert_invariants
from machine.mixed_log import mixed_log

from cacheflow.machine import image
from cacheflow.machine.language.commands import CodecError
from cacheflow.machine.machine import CacheMachine


@pytest.mark.parametrize("seed", [1, 2])
def test_a_machine_restored_at_any_position_has_the_same_future(seed: int) -> None:
    log = mixed_log(seed, 60)
    original = Driver()
    twins: list[CacheMachine] = []
    for payload in log:
        twins.append(CacheMachine.restore(list(original.machine.snapshot())))
        original.apply(payload)
        for twin in twins[-8:]:
            twin.apply(twin.applied_index + 1, payload)
            assert twin.contents.effects == original.machine.contents.effects
    whole = original.machine.contents_digest()
    for start, twin in enumerate(twins):
        for payload in log[twin.applied_index - 1 :]:
            twin.apply(twin.applied_index + 1, payload)
        assert twin.digest == original.machine.digest, start
        assert twin.contents_digest() == whole, start
        assert_invariants(twin)


def test_settled_results_are_those_of_the_original_too() -> None:
    log = mixed_log(3, 60)
    original = Driver()
    for payload in log[:30]:
        original.apply(payload)
    twin = original.copy()
    for payload in log[30:]:
        assert original.apply(payload) == twin.apply(payload)


def test_chunks_have_about_the_same_size_and_may_be_cut_anywhere(driver: Driver) -> None:
    random = Random(1)
    driver.put(*(f"k{number}" for number in range(300)), data=random.randbytes(4000))
    chunks = list(driver.machine.snapshot())
    assert len(chunks) == 5
    assert max(map(len, chunks)) < image.CHUNK_BYTES + 5000
    whole = b"".join(chunks)
    cut = [whole[start : start + 777] for start in range(0, len(whole), 777)]
    digest = driver.machine.contents_digest()
    assert CacheMachine.restore(cut).contents_digest() == CacheMachine.restore([whole]).contents_digest() == digest


def test_a_cut_or_prolonged_snapshot_is_refused() -> None:
    machine = filled_machine()
    whole = b"".join(machine.snapshot())
    for length in range(0, len(whole), 97):
        with pytest.raises(CodecError):
            CacheMachine.restore([whole[:length]])
    for surplus in (b"\x00", b"\x92\x08\x01", whole):
        with pytest.raises(CodecError):
            CacheMachine.restore([whole + surplus])


def test_random_damage_is_refused_or_harmless() -> None:
    whole = b"".join(filled_machine().snapshot())
    random = Random(4)
    for _ in range(700):
        damaged = bytearray(whole)
        for _ in range(random.randrange(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            machine = CacheMachine.restore([bytes(damaged)])
        except CodecError:
            continue
        twin = Driver(machine)
        for payload in mixed_log(5, 3):
            twin.apply(payload)


def filled_machine() -> CacheMachine:
    driver = Driver()
    for payload in mixed_log(9, 40):
        driver.apply(payload)
    return driver.machine


def rewritten(change: Callable[[list[list[Any]]], None]) -> bytes:
    records = [msgpack.unpackb(msgpack.packb(record)) for record in image.records(filled_machine())]
    change(records)
    return b"".join(image.pack(records))


def first(records: list[list[Any]], kind: int) -> list[Any]:
    return next(record for record in records[1:] if record[0] == kind)


DAMAGES: dict[str, Callable[[list[list[Any]]], None]] = {
    "another name": lambda r: r[0].__setitem__(0, "x"),
    "another format": lambda r: r[0].__setitem__(1, 0),
    "no level": lambda r: r[0][2].__setitem__("level", 0),
    "no fields": lambda r: r[0].__setitem__(2, {}),
    "no header": lambda r: r.__delitem__(0),
    "a short digest": lambda r: r[0][2].__setitem__("digest", b"x"),
    "a negative clock": lambda r: r[0][2].__setitem__("now_ms", -1),
    "a bad policy": lambda r: r[0][2]["settings"].__setitem__("policy", "x"),
    "a pass without a condemnation": lambda r: r[0][2].__setitem__("passing", 99),
    "a place of a pass behind the last item": lambda r: r[0][2].__setitem__("passed", 10**6),
    "a condemnation of the future": lambda r: r.insert(1, [image.CONDEMNATION, "k", False, True, 10**9, 1, 0]),
    "a condemnation twice": lambda r: r.__setitem__(slice(1, 1), [[image.CONDEMNATION, "k", False, True, 5, 1, 0]] * 2),
    "a condemnation of two targets": lambda r: r.insert(1, [image.CONDEMNATION, "k", True, True, 5, 1, 0]),
    "a condemnation of nothing": lambda r: r.insert(1, [image.CONDEMNATION, None, False, True, 5, 1, 0]),
    "a condemnation that found less than nothing": lambda r: r.insert(
        1, [image.CONDEMNATION, "k", False, True, 5, 1, -1]
    ),
    "a count that is none": lambda r: r.insert(1, [image.COUNTED, 5, None]),
    "a version of the future": lambda r: r[0][2].__setitem__("revision", 1),
    "a session of the future": lambda r: r[0][2].__setitem__("latest_session", 0),
    "more results than commands": lambda r: first(r, image.SESSION).__setitem__(6, 0),
    "a nonce that is none": lambda r: first(r, image.SESSION).__setitem__(4, 5),
    "a start that is none": lambda r: first(r, image.SESSION).__setitem__(3, "1"),
    "a level that is none": lambda r: first(r, image.SESSION).__setitem__(5, None),
    "a session of nobody": lambda r: first(r, image.SESSION).__setitem__(2, "nobody"),
    "a result that is none": lambda r: first(r, image.RESULT).__setitem__(1, 5),
    "a member twice": lambda r: r.__setitem__(slice(1, 1), [[image.MEMBER, "a", "", "", "", True, False]] * 2),
    "an item twice": lambda r: r.append(r[-1]),
    "a key that is none": lambda r: r[-1].__setitem__(1, ""),
    "a value that is none": lambda r: r[-1].__setitem__(2, "x"),
    "metadata that is none": lambda r: r[-1].__setitem__(4, b"x"),
    "an unknown kind": lambda r: r[-1].__setitem__(3, 3),
    "no use": lambda r: r[-1].__setitem__(7, 0),
    "an order that falls": lambda r: r[-2].__setitem__(7, 1000),
    "a kept result that is none": lambda r: r.insert(1, [image.KEPT, "k", 1, b"x", b"\xc1"]),
    "a scope of the future": lambda r: first(r, image.SCOPE).__setitem__(1, 99),
    "a scope twice": lambda r: r.append(first(r, image.SCOPE)),
    "a floor that is none": lambda r: first(r, image.SCOPE).__setitem__(3, -1),
    "a number below the floor": lambda r: first(r, image.SCOPE).__setitem__(3, 999),
    "a number twice": lambda r: r.insert(r.index(first(r, image.NUMBER)), first(r, image.NUMBER)),
    "a number's result that is none": lambda r: first(r, image.NUMBER).__setitem__(3, b"\xc1"),
    "an answer that is empty": lambda r: r.append([image.ANSWER, 0, "k", b""]),
    "an answer of nobody": lambda r: r.append([image.ANSWER, 0, 5, b"\x90"]),
    "a read that is none": lambda r: r.insert(r.index(first(r, image.RESULT)), [image.READ, 1, -1]),
    "an unknown record": lambda r: r.insert(1, [99]),
    "a record that is none": lambda r: r.insert(1, []),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_nonsense_in_the_right_shape_is_refused(damage: str) -> None:
    CacheMachine.restore([rewritten(lambda records: None)])
    with pytest.raises(CodecError):
        CacheMachine.restore([rewritten(DAMAGES[damage])])


def test_a_record_that_nobody_would_read_is_not_written(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "RECORD_BYTES_MAX", 1000)
    driver.put("k", data=bytes(900))
    assert list(driver.machine.snapshot())
    driver.put("k", data=bytes(1000))
    with pytest.raises(CodecError, match=r"a record of kind 7 has 10\d\d bytes; at most 1000 are read"):
        list(driver.machine.snapshot())


def test_what_is_written_is_less_than_what_is_read_at_once() -> None:
    assert image.CHUNK_BYTES + image.RECORD_BYTES_MAX < image._READ_BYTES_MAX
