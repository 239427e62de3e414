"""Several commands in one: one after the other, or all or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from machine.driver import Driver

from cacheflow.machine.deciding import batches
from cacheflow.machine.effects import APPENDED, EVICTED, WRITTEN
from cacheflow.machine.language import commands as c
from cacheflow.machine.machine import CacheMachine


def test_a_plain_batch_goes_on_after_a_failure(driver: Driver) -> None:
    commands = [c.set_("a", b"1", 1), c.incr("b", 1), c.delete("a"), c.get("a")]
    assert driver.one(c.batch(commands)) == [c.OK, [[c.OK, 1, True, 0], [c.MISSING], [c.OK, 2], [c.MISSING]]]


def test_each_command_of_an_atomic_batch_sees_the_ones_before_it(driver: Driver) -> None:
    commands = [
        c.set_("n", b"1", 1, ttl_ms=50),
        c.incr("n", 4),
        c.get("n"),
        c.touch("n", 70),
        c.delete("n"),
        c.get("n"),
        c.delete("n"),
        c.set_("n", b"2", 1, when=c.IF_ABSENT),
        c.touch("n", c.TTL_KEEP),
        c.append("n", b"0"),
        c.count("n", -3),
        c.append("n", b"x", front=True),
        c.expire("n", 30, c.IF_UNSET),
        c.get("n"),
    ]
    driver.at_ms = 100
    for atomic in (True, False):
        revision = driver.machine.contents.revision
        assert driver.one(c.batch(commands, atomic=atomic)) == [
            c.OK,
            [
                [c.OK, revision + 1, True, 150],
                [c.OK, revision + 2, 5, 150],
                [c.OK, b"5", 1, None, revision + 2, 150],
                [c.OK, revision + 2, 170],
                [c.OK, revision + 3],
                [c.MISSING],
                [c.MISSING],
                [c.OK, revision + 4, True, 0],
                [c.OK, revision + 4, 0],
                [c.OK, revision + 5, 2, 0],
                [c.OK, revision + 6, 17, 0],
                [c.OK, revision + 7, 3, 0],
                [c.OK, revision + 7, 130],
                [c.OK, b"x17", 1, None, revision + 7, 130],
            ],
        ]
        driver.one(c.delete("n"))


FAILING = [
    (c.set_("there", b"", 1, when=c.IF_ABSENT), [c.PRECONDITION, 1]),
    (c.set_("a", b"", 1, when=c.IF_VERSION, version=7), [c.PRECONDITION, 0]),
    (c.delete("there", version=7), [c.PRECONDITION, 1]),
    (c.delete("absent", version=7), [c.PRECONDITION, 0]),
    (c.incr("there", 1), [c.NOT_AN_INTEGER, "the value is not a decimal 64-bit integer"]),
    (c.incr("absent", 1), [c.MISSING]),
    (c.touch("absent", 1), [c.MISSING]),
    (c.append("absent", b""), [c.MISSING]),
    (c.append("there", bytes(1000)), [c.TOO_LARGE, "the item is larger than the whole cache may be (1024 bytes)"]),
    (c.count("absent", 1), [c.MISSING]),
    (c.count("there", 1), [c.NOT_AN_INTEGER, "the value is not a decimal unsigned 64-bit integer"]),
    (c.expire("absent", 1), [c.MISSING]),
    (c.expire("there", 1, c.IF_SET), [c.PRECONDITION, 1]),
    (c.expire("a", 1, c.IF_SET), [c.PRECONDITION, 0]),
    (c.set_("large", bytes(2000), 1), [c.TOO_LARGE, "the item is larger than the whole cache may be (1024 bytes)"]),
    (c.set_("k", b"", 9), [c.MALFORMED, "the value's kind is unknown"]),
    (c.batch([]), [c.MALFORMED, "a batch holds commands on one key only"]),
    (c.guarded([], []), [c.MALFORMED, "a batch holds commands on one key only"]),
]


@pytest.mark.parametrize(("failing", "result"), FAILING)
def test_an_atomic_batch_with_a_failure_has_no_effect_at_all(driver: Driver, failing: Any, result: c.Result) -> None:
    driver.put("there")
    driver.one(c.configure({"max_bytes": 1024}))
    twin = driver.copy()
    commands = [c.get("there"), c.set_("a", b"1", 1), c.delete("there"), failing]
    if failing[1] == "there":
        del commands[2]
    assert driver.one(c.batch(commands, atomic=True)) == [c.ABORTED, len(commands) - 1, result]
    assert driver.machine.contents.effects == []
    twin.run()
    assert driver.machine.contents_digest() == twin.machine.contents_digest()


def test_an_addition_to_what_its_own_atomic_batch_has_evicted_is_a_write_like_any_other(driver: Driver) -> None:
    driver.one(c.configure({"max_items": 1}))
    driver.put("old", data=b"1")
    commands = [c.append("old", b"2"), c.set_("a", b"", 1), c.append("old", b"3")]
    assert driver.one(c.batch(commands, atomic=True))[1][2] == [c.OK, 6, 3, 0]
    assert driver.told() == [(APPENDED, "old"), (EVICTED, "old"), (WRITTEN, "a"), (EVICTED, "a"), (WRITTEN, "old")]
    assert driver.machine.contents.raw["old"][0] == b"123"


@pytest.mark.parametrize("wrap", [c.batch, lambda many: c.batch(many, atomic=True), lambda many: c.guarded([], many)])
def test_what_a_batch_copies_by_additions_is_bounded(driver: Driver, wrap: Callable[[Any], c.Command]) -> None:
    driver.one(c.set_("k", bytes(2**25), 1))
    result = driver.one(wrap([c.append("k", b"")] * 9))
    last = result[2] if result[0] == c.ABORTED else result[1][8]
    assert last[0] == c.TOO_LARGE
    assert driver.one(wrap([c.append("k", b"")] * 8))[0] == c.OK


def test_a_condition_cannot_name_a_version_that_its_own_atomic_batch_will_give(driver: Driver) -> None:
    commands = [c.set_("a", b"1", 1), c.set_("a", b"2", 1, when=c.IF_VERSION, version=1)]
    assert driver.one(c.batch(commands, atomic=True)) == [c.ABORTED, 1, [c.PRECONDITION, 0]]
    assert driver.one(c.batch(commands)) == [c.OK, [[c.OK, 1, True, 0], [c.OK, 2, False, 0]]]


def test_a_miss_of_get_or_delete_is_no_failure(driver: Driver) -> None:
    commands = [c.get("no"), c.delete("no"), c.set_("a", b"", 1)]
    assert driver.one(c.batch(commands, atomic=True)) == [c.OK, [[c.MISSING], [c.MISSING], [c.OK, 1, True, 0]]]


def test_what_an_atomic_batch_evicts_itself_is_answered_as_decided(driver: Driver) -> None:
    driver.one(c.configure({"max_items": 1}))
    driver.put("old", data=b"1")
    commands = [c.incr("old", 1), c.set_("a", b"", 1), c.get("old"), c.touch("old", 5), c.incr("old", 1), c.delete("a")]
    assert driver.one(c.batch(commands, atomic=True), at=1) == [
        c.OK,
        [
            [c.OK, 2, 2, 0],
            [c.OK, 4, True, 0],
            [c.OK, b"2", 1, None, 2, 0],
            [c.OK, 2, 6],
            [c.OK, 6, 3, 6],
            [c.OK, 6],
        ],
    ]
    assert driver.live() == ["old"]


@pytest.mark.parametrize(
    "command",
    [
        (c.BATCH, False, [[c.NOOP]]),
        (c.BATCH, False, [[c.BATCH, False, []]]),
        (c.BATCH, False, [[c.IDEMPOTENT, "k", [c.GET, "k"]]]),
        (c.BATCH, False, [None]),
        (c.BATCH, False, [[c.GET, []]]),
        (c.BATCH, False, [[c.GET, {}]]),
        (c.BATCH, True, [[c.GET, []]]),
        (c.BATCH, True, [[[]]]),
    ],
)
def test_what_a_batch_may_not_hold_is_malformed(driver: Driver, command: c.Command) -> None:
    status, *rest = driver.one(command)
    assert (rest[0][0] if status == c.OK else rest[1])[0] == c.MALFORMED


@pytest.mark.parametrize(
    "command", [(c.BATCH, 1, []), (c.BATCH, False, {}), (c.BATCH, False), (c.BATCH, False, [[c.GET, "k"]] * 10_001)]
)
def test_a_batch_of_the_wrong_shape_or_size_is_malformed(driver: Driver, command: c.Command) -> None:
    assert driver.one(command)[0] == c.MALFORMED


def test_what_the_reads_of_a_batch_answer_is_bounded_and_the_rest_is_too_large(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "READ_PER_BATCH_BYTES_MAX", 2 * (64 + 101))
    driver.run(c.set_("k", bytes(100), 0), c.set_("l", b"", 0))
    reads = [c.get("k"), c.get("absent"), c.get("k"), c.get("l"), c.delete("l"), c.get("k")]
    refused = [c.TOO_LARGE, "a batch reads at most 330 bytes; read this key by itself"]
    answered = [c.OK, bytes(100), 0, None, 1, 0]
    for command in (c.batch(reads), c.guarded([], reads)):
        driver.run(c.set_("l", b"", 0))
        status, results = driver.one(command)
        assert status == c.OK
        deleted = [c.OK, driver.machine.contents.revision]
        assert results == [answered, [c.MISSING], answered, refused, deleted, refused]
    # All or none; and each batch has the whole bound for itself.
    assert driver.run(c.batch(reads, atomic=True), c.batch([c.get("k")] * 2, atomic=True)) == [
        [c.ABORTED, 5, refused],
        [c.OK, [answered, answered]],
    ]


def test_a_value_of_the_largest_size_is_read_in_a_batch(driver: Driver) -> None:
    key = "k" * 1024
    driver.run(c.set_(key, bytes(64 * 1024 * 1024), 0, "m" * 1024))
    assert driver.one(c.batch([c.get(key)]))[1][0][0] == c.OK


def test_a_batch_of_two_thousand_large_reads_leaves_a_snapshot_that_can_be_loaded(driver: Driver) -> None:
    session = driver.session()
    driver.send(session, 1, c.set_("k", bytes(1024 * 1024), 0))
    driver.send(session, 2, c.batch([c.get("k")] * 2100))
    chunks = list(driver.machine.snapshot())
    assert sum(map(len, chunks)) < 70 * 1024 * 1024
    assert CacheMachine.restore(chunks).contents_digest() == driver.machine.contents_digest()
