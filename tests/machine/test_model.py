"""The machine against a plain model, over random histories: results, versions, order of eviction, time, sessions."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from machine.driver import Driver, assert_invariants
from machine.model import Model

from cacheflow.machine.language import commands as c

KEYS = st.sampled_from(["a", "b", "c", "d", "e", "aa", "ab", "ü", "\x01aa", "\x01fa"])
DATA = st.sampled_from([b"", b"1", b"-7", b"x" * 100, b"x" * 700, b"x" * 1500])
TTLS = st.sampled_from([-1, 0, 0, 1, 5, 30])
WHENS = {"always": c.ALWAYS, "absent": c.IF_ABSENT, "present": c.IF_PRESENT, "version": c.IF_VERSION}
STEPS = st.integers(-5, 5) | st.sampled_from([2**64 - 1, 1 - 2**64])
EXPIRE_WHENS = {
    "always": c.ALWAYS,
    "unset": c.IF_UNSET,
    "set": c.IF_SET,
    "later": c.IF_LATER,
    "earlier": c.IF_EARLIER,
    "set earlier": c.IF_SET | c.IF_EARLIER,
}
NAMES = {c.MISSING: "missing", c.NOT_AN_INTEGER: "not an integer", c.TOO_LARGE: "too large"}

SETS = st.tuples(st.just("set"), KEYS, DATA, TTLS, st.sampled_from(list(WHENS)), st.integers(0, 30))
COMMANDS = (
    SETS
    | SETS
    | st.tuples(st.just("get"), KEYS)
    | st.tuples(st.just("delete"), KEYS, st.just(0) | st.integers(0, 30))
    | st.tuples(st.just("touch"), KEYS, TTLS)
    | st.tuples(st.just("incr"), KEYS, st.integers(-5, 5), st.none() | st.integers(0, 3))
    | st.tuples(st.just("append"), KEYS, DATA, st.booleans(), st.booleans())
    | st.tuples(st.just("count"), KEYS, STEPS, st.none() | st.integers(0, 3), TTLS.filter(lambda ttl: ttl >= 0))
    | st.tuples(st.just("expire"), KEYS, TTLS.filter(lambda ttl: ttl >= 0), st.sampled_from(list(EXPIRE_WHENS)))
)
# Those that fail, and undo an atomic batch, when the key is absent.
NEED_THE_KEY = ("incr", "touch", "append", "count", "expire")


def to_machine(name: str, *fields: Any) -> c.Command:
    if name == "set":
        key, data, ttl_ms, when, version = fields
        return c.set_(key, data, 1, None, ttl_ms, WHENS[when], version)
    if name == "get":
        return c.get(*fields)
    if name == "delete":
        return c.delete(*fields)
    if name == "append":
        key, data, front, create = fields
        return c.append(key, data, front=front, create=create)
    if name == "count":
        return c.count(*fields)
    if name == "expire":
        key, ttl_ms, when = fields
        return c.expire(key, ttl_ms, EXPIRE_WHENS[when])
    return c.touch(*fields) if name == "touch" else c.incr(*fields)


def from_machine(name: str, result: c.Result) -> object:
    status, *rest = result
    if status == c.PRECONDITION:
        return "precondition", rest[0]
    if status != c.OK:
        return NAMES[status]
    if name == "delete":
        return rest[0]
    return (rest[0], rest[3], rest[4]) if name == "get" else tuple(rest)


class MachineAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.driver = Driver()
        self.session = self.driver.session()
        self.next_number = 1
        self.sent: tuple[int, list[c.Command], list[c.Result]] = (1, [], [])

    @initialize(lfu=st.booleans(), items_max=st.integers(1, 5))
    def start_with_limits(self, lfu: bool, items_max: int) -> None:
        self.configure(lfu, items_max, 1024)

    @rule(lfu=st.booleans(), items_max=st.integers(1, 6), bytes_max=st.sampled_from([1024, 2048, 10_000]))
    def configure(self, lfu: bool, items_max: int, bytes_max: int) -> None:
        self.model.begin_entry(self.driver.at_ms)
        self.model.configure(lfu, items_max, bytes_max)
        limits = {"policy": "lfu" if lfu else "lru", "max_items": items_max, "max_bytes": bytes_max}
        assert self.driver.one(c.configure(limits))[0] == c.OK
        # What is above them goes from the next entry on, before that does anything else.
        self.driver.work_off()

    @rule(commands=st.lists(COMMANDS, min_size=1, max_size=8), later_ms=st.sampled_from([0, 0, 1, 4, 40]))
    def send(self, commands: list[tuple[Any, ...]], later_ms: int) -> None:
        self.driver.at_ms += later_ms
        self.model.begin_entry(self.driver.at_ms)
        expected = [getattr(self.model, name)(*fields) for name, *fields in commands]
        packed = [to_machine(*command) for command in commands]
        results = self.driver.send(self.session, self.next_number, *packed)
        assert [from_machine(command[0], result) for command, result in zip(commands, results, strict=True)] == expected
        self.sent = (self.next_number, packed, results)
        self.next_number += len(commands)

    @rule(commands=st.lists(COMMANDS, min_size=1, max_size=6))
    def send_an_atomic_batch(self, commands: list[tuple[Any, ...]]) -> None:
        self.model.begin_entry(self.driver.at_ms)
        # Nobody knows the versions that the batch itself will give, so none of its conditions may name one.
        commands = [
            (*command[:-1], min(command[-1], self.model.revision)) if command[0] in ("set", "delete") else command
            for command in commands
        ]
        trial = copy.deepcopy(self.model)
        expected = [getattr(trial, name)(*fields) for name, *fields in commands]
        if trial.evicted > self.model.evicted:
            return  # decided before it evicts, a batch answers otherwise: see test_batch.py
        failed = [
            number
            for number, (answer, command) in enumerate(zip(expected, commands, strict=True))
            if answer in ("not an integer", "too large")
            or (isinstance(answer, tuple) and answer[0] == "precondition")
            or (answer == "missing" and command[0] in NEED_THE_KEY)
        ]
        result = self.driver.one(c.batch([to_machine(*command) for command in commands], atomic=True))
        if failed:
            assert result[:2] == [c.ABORTED, failed[0]]
            return
        assert [from_machine(command[0], one) for command, one in zip(commands, result[1], strict=True)] == expected
        self.model = trial

    @rule(
        conditions=st.lists(st.tuples(KEYS, st.sampled_from([True, True, True, False]), st.integers(0, 3)), max_size=3),
        late=st.sampled_from([0, 0, 0, 1]),
        commands=st.lists(COMMANDS, max_size=5),
    )
    def send_under_conditions(
        self, conditions: list[tuple[str, bool, int]], late: int, commands: list[tuple[Any, ...]]
    ) -> None:
        self.model.begin_entry(self.driver.at_ms)
        things = self.model.things
        # Mostly as it is now, or nothing would ever take place.
        wanted = [
            (key, things[key].version, things[key].expires_at_ms + late)
            if present and key in things
            else (key, version, 0)
            for key, present, version in conditions
        ]
        result = self.driver.one(c.guarded(wanted, [to_machine(*command) for command in commands]))
        failed = [number for number, pair in enumerate(wanted) if not self.model.holds(*pair)]
        if failed:
            assert result == [c.PRECONDITION, failed[0]]
            return
        expected = [getattr(self.model, name)(*fields) for name, *fields in commands]
        assert result[0] == c.OK
        assert [from_machine(command[0], one) for command, one in zip(commands, result[1], strict=True)] == expected

    @rule(later=st.integers(0, 3))
    def send_again(self, later: int) -> None:
        first, commands, results = self.sent
        if later < len(commands):
            self.model.begin_entry(self.driver.at_ms)
            again = commands[later:]
            assert self.driver.send(self.session, first + later, *again, lowest=first) == results[later:]

    @rule(gap=st.integers(1, 3), command=COMMANDS)
    def send_too_far_ahead(self, gap: int, command: tuple[Any, ...]) -> None:
        self.model.begin_entry(self.driver.at_ms)
        answer = self.driver.send(self.session, self.next_number + gap, to_machine(*command), lowest=1)
        assert answer == [[c.OUT_OF_ORDER, self.next_number]]

    @rule(uses=st.lists(st.tuples(KEYS, st.integers(1, 5)), max_size=6))
    def count_uses(self, uses: list[tuple[str, int]]) -> None:
        self.model.begin_entry(self.driver.at_ms)
        for key, count in uses:
            self.model.use(key, count)
        assert self.driver.one(c.recency(uses)) == [c.OK]

    @rule(prefix=st.sampled_from(["", "a", "ab", "zz", "\x01a", "\x01"]))
    def remove_prefix(self, prefix: str) -> None:
        self.model.begin_entry(self.driver.at_ms)
        assert self.driver.removed(prefix) == self.model.remove_prefix(prefix)

    @rule(database=st.sampled_from([None, 0, 3, 10]), counted=st.booleans())
    def clear(self, database: int | None, counted: bool) -> None:
        self.model.begin_entry(self.driver.at_ms)
        removed = self.model.clear(database)
        status, *revision = self.driver.one(c.clear_all() if database is None else c.clear_database(database, counted))
        assert self.driver.machine.contents.count_of(database) == 0
        if counted and database is not None:
            assert (status, self.driver.count(*revision)) == (c.SWEEPING, removed)
        else:
            assert (status, revision) == (c.OK, [])

    @rule()
    def restore(self) -> None:
        at_ms = self.driver.at_ms
        self.driver = self.driver.copy()
        self.driver.at_ms = at_ms

    @invariant()
    def both_hold_the_same(self) -> None:
        machine = self.driver.machine
        assert_invariants(machine)
        assert self.driver.order() == self.model.order()
        assert machine.contents.revision == self.model.revision
        held = {key: (entry[0], entry[3], entry[4]) for key, entry in machine.contents.raw.items()}
        assert held == {key: (one.data, one.version, one.expires_at_ms) for key, one in self.model.things.items()}


TestMachineAgainstModel = MachineAgainstModel.TestCase
TestMachineAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
