"""The feed of one node: who follows it is told each change once and in order, or that some are missing."""

from __future__ import annotations

from typing import Any

import pytest
from wire.fake_store import NextTurn

from cacheflow.contract import Told
from cacheflow.errors import InvalidRequest, PositionGone
from cacheflow.machine import effects
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.machine.machine import CacheMachine
from cacheflow.node import feed as module
from cacheflow.node.feed import Feed
from cacheflow.node.positions import ALL, parse, text_of


class Reader:
    """One who notes what it is told; takes nothing more once it was told ``room`` changes."""

    def __init__(self, prefix: str | None = "", room: int = 1000) -> None:
        self.prefix = prefix
        self.room = room
        self.came: list[Any] = []
        self.has_missed = False

    def take(self, changes: list[Told]) -> bool:
        self.came += [told.change for told in changes]
        return len(self.came) < self.room

    def missed(self) -> None:
        self.has_missed = True

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(change.what, change.prefix if change.key is None else change.key) for change in self.came]


class Log:
    """A machine with a feed, as a node has them."""

    def __init__(self, turns: NextTurn) -> None:
        self.turns = turns
        self.machine = CacheMachine()
        self.breaks = 0
        self.stamp_ms = 1000
        self.feed = Feed(turns.slices, lambda: self.stamp_ms, self.machine.applied_index, self.machine.digest)

    def use_up_every_turn(self) -> None:
        """Let each slice be over as soon as it has begun."""
        times = iter(range(10**9))
        self.turns.time = lambda: float(next(times))

    def apply(self, *commands_: Command) -> None:
        machine = self.machine
        block = commands.encode_block(0, 0, 0, list(commands_))
        machine.apply(machine.applied_index + 1, commands.encode_entry(self.stamp_ms, [block]))
        contents = machine.contents
        if contents.effects:
            if contents.breaks == self.breaks:
                effects = len(contents.effects)
                self.feed.add(machine.applied_index, machine.packed_effects, machine.digest, effects)
            else:
                self.breaks = contents.breaks
                self.feed.begin_at(machine.applied_index, machine.digest)

    def set(self, *keys: str) -> None:
        self.apply(*(commands.set_(key, b"v", 0) for key in keys))

    def follow(self, reader: Reader, since: str | None = None) -> Reader:
        self.feed.follow(reader, since)
        self.turns.run()
        return reader


@pytest.fixture
def log() -> Log:
    return Log(NextTurn())


def test_who_follows_is_told_what_happens_to_keys_under_its_prefix(log: Log) -> None:
    log.set("a1")
    reader, everything = log.follow(Reader("a")), log.follow(Reader())
    log.set("a2", "b1")
    log.apply(commands.delete("a1", 0), commands.delete("missing", 0))
    log.turns.run()
    assert reader.told == [("set", "a2"), ("delete", "a1")]
    assert everything.told == [("set", "a2"), ("set", "b1"), ("delete", "a1")]
    assert [change.version for change in everything.came] == [2, 3, 4]


def test_a_change_is_told_with_the_seconds_left(log: Log) -> None:
    reader = log.follow(Reader())
    log.apply(commands.set_("a", b"v", 0, ttl_ms=2500))
    log.apply(commands.touch("a", 1500))
    log.turns.run()
    log.stamp_ms += 5000
    log.apply((commands.NOOP,))
    log.turns.run()
    assert [(change.what, change.ttl_s) for change in reader.came] == [("set", 2.5), ("touch", 1.5), ("expire", None)]


def test_a_removed_prefix_is_one_change_for_all_whom_it_concerns(log: Log) -> None:
    log.set("ab1", "ab2", "c")
    readers = [log.follow(Reader(prefix)) for prefix in ("", "a", "ab", "ab1", "c")]
    log.apply(commands.delete_prefix("ab"))
    log.turns.run()
    assert [reader.told for reader in readers] == [[("delete", "ab")]] * 4 + [[]]


def test_nothing_of_another_database_is_told(log: Log) -> None:
    reader = log.follow(Reader())
    log.set("\x011a", "b")
    log.apply(commands.delete_prefix("\x011"))
    log.turns.run()
    assert reader.told == [("set", "b")]


def test_who_follows_everything_is_told_of_all_databases(log: Log) -> None:
    everything, some = log.follow(Reader(None)), log.follow(Reader("b"))
    log.set("\x011a", "b", "c")
    log.apply(commands.delete_prefix("\x011"))
    log.apply(commands.delete_prefix(""))
    log.turns.run()
    assert everything.told == [("set", "\x011a"), ("set", "b"), ("set", "c"), ("delete", "\x011"), ("delete", "")]
    assert some.told == [("set", "b"), ("delete", "")]
    # Also who was behind; and who has left is told nothing more.
    late = log.follow(Reader(None), text_of(0, ALL, bytes(16)))
    assert late.told == everything.told
    log.feed.unfollow(everything)
    log.set("d")
    log.turns.run()
    assert late.told == [*everything.told, ("set", "d")]


def test_a_follower_goes_on_behind_the_position_that_it_has(log: Log) -> None:
    log.set("a", "b", "c")
    first = log.follow(Reader(), text_of(1, ALL, bytes(16)))
    assert first.told == [("set", "a"), ("set", "b"), ("set", "c")]
    # In the middle of the entry, at its end, and from a heartbeat.
    assert log.follow(Reader(), first.came[0].position).told == [("set", "b"), ("set", "c")]
    assert log.follow(Reader(), first.came[2].position).told == []
    told = log.feed.told_position(first)
    assert told == first.came[2].position == log.feed.position()


def test_what_is_told_in_several_slices_is_told_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    times = iter(range(10**9))
    log.turns.time = lambda: float(next(times))
    live = log.follow(Reader("k"))
    keys = [f"k{number}" for number in range(7)]
    log.set(*keys)
    late = Reader("k")
    log.feed.follow(late, text_of(1, ALL, bytes(16)))
    log.set("k7")
    log.turns.run()
    assert live.told == late.told == [("set", key) for key in [*keys, "k7"]]


def test_many_are_told_in_several_slices_and_know_no_position_before(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.use_up_every_turn()
    readers = [log.follow(Reader("k")) for _ in range(5)]
    began = log.feed.position()
    monkeypatch.setattr(module, "HANDED_AT_ONCE", 1)
    log.set("k1", "k2")
    for turn in range(20):
        log.turns.run(1)
        for reader in readers:
            assert log.feed.told_position(reader) in (None, reader.came[-1].position if reader.came else began)
        if turn == 1:
            # One who leaves before its turn is told nothing.
            log.feed.unfollow(readers[4])
    assert [reader.told for reader in readers] == [[("set", "k1"), ("set", "k2")]] * 4 + [[]]


@pytest.mark.parametrize("count", [1, 30, 100])
def test_who_comes_while_others_are_told_all_the_time_is_told_as_well(log: Log, count: int) -> None:
    log.use_up_every_turn()
    readers = [log.follow(Reader(None, room=10**6)) for _ in range(count)]
    log.set("first")
    late = Reader(None, room=10**6)
    for number in range(200):
        log.set(f"k{number}")
        if number == 50:
            log.feed.follow(late, None)
        log.turns.run(1)
    # They lag by what comes while all of them are told, and not by more and more.
    rounds = 2 + count // module.HANDED_AT_ONCE
    for reader in (*readers, late):
        assert int(reader.told[-1][1][1:]) >= 200 - 3 * rounds
    assert len(late.came) > 140
    log.turns.run()
    assert [key for _, key in readers[0].told] == ["first", *(f"k{number}" for number in range(200))]
    assert [key for _, key in late.told] == [f"k{number}" for number in range(51, 200)]
    assert log.feed.told_position(late) == log.feed.position()


def test_one_look_finds_no_more_than_is_done_in_a_slice(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOUND_AT_ONCE", 10)
    log.use_up_every_turn()
    readers = [log.follow(Reader(None)) for _ in range(4)]
    log.set(*(f"k{number}" for number in range(9)))
    # The first to ask in a turn may go on, so there are two steps.
    log.turns.run(1)
    assert sum(map(len, log.feed._handing.values())) == 2 * 12
    log.turns.run()
    assert all([key for _, key in reader.told] == [f"k{number}" for number in range(9)] for reader in readers)


def test_who_lags_does_not_look_at_entries_that_do_not_concern_it(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []

    def look(packed: bytes) -> list[Any]:
        looked.append(packed)
        return effects.unpacked(packed)

    monkeypatch.setattr(module, "unpacked", look)
    for number in range(100):
        log.set(f"other{number}")
    log.set("mine")
    # Long values take longer to be searched than to be unpacked.
    log.apply(commands.set_("other", bytes(10_000), 0))
    assert log.follow(Reader("mine"), text_of(1, ALL, bytes(16))).told == [("set", "mine")]
    assert len(looked) == 2


def test_what_is_still_to_be_handed_over_is_dropped_when_contents_are_replaced(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDED_AT_ONCE", 1)
    log.use_up_every_turn()
    readers = [log.follow(Reader("k")) for _ in range(3)]
    log.set("k1")
    log.turns.run(1)
    log.feed.begin_at(log.machine.applied_index, log.machine.digest)
    log.turns.run()
    assert [len(reader.came) for reader in readers] == [1, 0, 0] and all(reader.has_missed for reader in readers)


def test_who_lags_is_told_of_a_prefix_that_is_removed(log: Log) -> None:
    log.set("k1", "other")
    log.apply(commands.delete_prefix("k"))
    log.set("another", "k2")
    assert log.follow(Reader("k1"), text_of(1, ALL, bytes(16))).told == [("set", "k1"), ("delete", "k")]
    assert log.follow(Reader("k"), text_of(1, ALL, bytes(16))).told == [("set", "k1"), ("delete", "k"), ("set", "k2")]


def test_who_takes_no_more_goes_on_where_it_was(log: Log) -> None:
    reader = log.follow(Reader("a", room=1))
    log.set("a1")
    log.turns.run()
    log.set("a2")
    log.set("a3")
    log.turns.run()
    assert reader.told == [("set", "a1")]
    assert log.feed.told_position(reader) is None
    reader.room = 1000
    log.feed.go_on(reader)
    log.turns.run()
    log.set("a4")
    log.turns.run()
    assert [key for _, key in reader.told] == ["a1", "a2", "a3", "a4"]


def test_who_was_away_for_too_long_is_told_so(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EFFECTS_MAX", 3)
    log.set("a")
    since = log.feed.position()
    slow = log.follow(Reader(room=1))
    log.set("b")
    log.turns.run()
    for key in "cdef":
        log.set(key)
        log.turns.run()
    with pytest.raises(PositionGone) as told:
        log.feed.find(parse(since))
    assert log.follow(Reader(), told.value.oldest).told == [("set", "d"), ("set", "e"), ("set", "f")]
    log.feed.look()
    log.turns.run()
    assert slow.told == [("set", "b")] and slow.has_missed
    assert log.feed.metrics()["followers"] == 1


def test_the_feed_is_bounded_by_bytes_and_keeps_the_latest_entry(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_MAX", 300)
    reader = log.follow(Reader())
    for number in range(20):
        log.apply(commands.set_(f"k{number}", b"x" * 100, 0))
        log.turns.run()
    assert log.feed.metrics()["feed_bytes"] <= 300
    log.apply(commands.set_("large", b"x" * 1000, 0))
    log.turns.run()
    assert log.feed.metrics()["feed_effects"] == 1
    assert len(reader.told) == 21 and not reader.has_missed


def test_a_snapshot_in_the_place_of_entries_is_told(log: Log) -> None:
    log.set("a")
    reader = log.follow(Reader())
    since = log.feed.position()
    log.set("b")
    log.feed.begin_at(log.machine.applied_index, log.machine.digest)
    log.turns.run()
    assert reader.has_missed and reader.told == []
    with pytest.raises(PositionGone):
        log.feed.follow(Reader(), since)


def test_a_position_is_good_where_nothing_has_happened_since(log: Log) -> None:
    log.set("a")
    since = log.feed.position()
    log.apply((commands.NOOP,))
    log.feed.begin_at(log.machine.applied_index, log.machine.digest)
    log.set("b")
    assert log.follow(Reader(), since).told == [("set", "b")]


def test_a_position_of_another_history_is_gone(log: Log) -> None:
    other = Log(NextTurn())
    for each, key in ((log, "mine"), (other, "theirs")):
        each.set(key)
        each.set("same")
    with pytest.raises(PositionGone):
        log.feed.follow(Reader(), other.feed.position())
    with pytest.raises(InvalidRequest):
        log.feed.follow(Reader(), "nonsense")


@pytest.mark.parametrize("text", ["", "A" * 30, "A" * 32, "!" * 31, "_" * 31, "A" * 31])
def test_any_other_text_is_no_position(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_new_versions_of_everything_are_told_as_a_gap(log: Log) -> None:
    reader = log.follow(Reader())
    log.set("a")
    log.turns.run()
    since = log.feed.position()
    log.machine.contents.raise_versions(5)
    log.set("b")
    log.turns.run()
    assert reader.told == [("set", "a")] and reader.has_missed
    with pytest.raises(PositionGone):
        log.feed.follow(Reader(), since)


def test_a_restore_that_keeps_clients_out_is_told_as_a_gap_and_nothing_of_it(log: Log) -> None:
    log.set("a")
    reader = log.follow(Reader())
    items = [["b", b"v", 0, None, 0], ["c", b"v", 0, None, 0]]
    log.apply(commands.restore_begin("r", "", 2, 7, False))
    for number, item in enumerate(items):
        log.apply(commands.restore_items("r", number, [item]))
        log.turns.run()
        assert log.feed.metrics()["feed_effects"] == 0
    log.apply(commands.restore_end("r"))
    since = log.feed.position()
    log.set("d")
    log.turns.run()
    assert reader.has_missed and reader.told == []
    assert log.follow(Reader(), since).told == [("set", "d")]


def test_one_that_serves_clients_is_told_as_a_gap_and_its_items_as_writes(log: Log) -> None:
    reader = log.follow(Reader())
    log.apply(commands.restore_begin("r", "", 1, 7, True))
    log.turns.run()
    assert reader.has_missed
    another = log.follow(Reader())
    log.apply(commands.restore_items("r", 0, [["b", b"v", 0, None, 0]]))
    log.turns.run()
    assert another.told == [("set", "b")]


def test_who_leaves_is_told_nothing_more(log: Log) -> None:
    reader = log.follow(Reader("a"))
    log.feed.unfollow(reader)
    log.feed.unfollow(reader)
    log.set("a")
    log.turns.run()
    assert reader.told == []
    assert log.feed.metrics()["followers"] == 0
