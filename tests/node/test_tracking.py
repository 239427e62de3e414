"""The table of what clients have read: who is told what has changed, when, and how much of it is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from wire.fake_store import NextTurn

from cacheflow.contract import Invalidated, Written
from cacheflow.errors import InvalidRequest
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Command
from cacheflow.machine.machine import CacheMachine
from cacheflow.node import tracking as module
from cacheflow.node.tracking import Tracking
from cacheflow.wire.resp.tracking import written_in


class Reader:
    """A client that notes what it is told, and how often something is written to it. number: the node's for it."""

    number = 0

    def __init__(self) -> None:
        self.came: list[str | None] = []
        self.writes = 0

    def invalidate(self, message: Invalidated) -> None:
        self.came += [None] if message.keys is None else [key.decode() for key in message.keys]

    def write(self) -> None:
        self.writes += 1

    def told(self) -> list[str | None]:
        """What came since the last time."""
        came, self.came = self.came, []
        return came


class Node:
    """A machine and the tracking of its clients, as a node has them; ``wakes`` is what a turn does before it answers."""

    def __init__(self) -> None:
        self.turns = NextTurn()
        self.machine = CacheMachine()
        self.stamp_ms = 1000
        self.wakes: list[Callable[[], None]] = []
        self.tracking = Tracking(
            self.turns.slices, self.wakes.append, lambda key: self.machine.lookup(key, self.stamp_ms)
        )

    def apply(self, *commands_: Command) -> None:
        """Apply an entry, and tell what is told before anybody is answered."""
        self.begin(*commands_)
        self.end_turn()

    def begin(self, *commands_: Command) -> list[Written]:
        """Apply an entry; what it has written."""
        block = commands.encode_block(0, 0, 0, list(commands_))
        payload = commands.encode_entry(self.stamp_ms, [block])
        ((_, _, results),) = self.machine.apply(self.machine.applied_index + 1, payload)
        self.tracking.applied(self.machine.contents.effects)
        return [*written_in(commands_, results)]

    def end_turn(self) -> None:
        while self.wakes:
            self.wakes.pop(0)()

    def set(self, *keys: str) -> None:
        self.apply(*(commands.set_(key, b"v", 0) for key in keys))

    def reader(self, *keys: str) -> Reader:
        """A client that has read keys."""
        reader = Reader()
        reader.number = self.tracking.begin(reader, notes=True)
        self.tracking.note(reader.number, keys)
        return reader

    def listener(self, *prefixes: str) -> Reader:
        """A client that is told of all keys under prefixes."""
        reader = Reader()
        reader.number = self.tracking.begin(reader, notes=False)
        for prefix in prefixes:
            self.tracking.follow(reader.number, prefix)
        return reader

    def version(self, key: str) -> int:
        entry = self.machine.lookup(key, self.stamp_ms)
        return 0 if entry is None else entry[3]


@pytest.fixture
def node() -> Node:
    return Node()


def test_who_has_read_a_key_is_told_once_that_it_has_changed(node: Node) -> None:
    one, two, three = node.reader("a", "b"), node.reader("a"), node.reader("c")
    node.set("a")
    assert (one.told(), two.told(), three.told()) == (["a"], ["a"], [])
    node.set("a")
    assert one.told() == []
    node.tracking.note(one.number, ["a"])
    node.set("a", "b")
    assert one.told() == ["a", "b"] and two.told() == []


def test_it_is_told_before_the_writes_are_answered_and_written_at_once(node: Node) -> None:
    reader = node.reader("a")
    node.begin(commands.set_("a", b"", 0))
    assert (reader.came, reader.writes) == ([], 0)
    node.end_turn()
    assert (reader.came, reader.writes) == (["a"], 1)


@pytest.mark.parametrize(
    "change",
    [
        commands.set_("a", b"other", 0),
        commands.delete("a", 0),
        commands.touch("a", 5000),
        commands.append("a", b"more"),
        commands.set_fields("h", 3, [b"f", b"2"], 10_000),
        commands.remove_fields("h", 3, [b"f"]),
    ],
)
def test_any_change_counts(node: Node, change: Command) -> None:
    node.apply(commands.set_("a", b"v", 0), commands.set_fields("h", 3, [b"f", b"1", b"g", b"1"], 10_000))
    reader = node.reader("a", "h")
    node.apply(change)
    assert reader.told() == [change[1]]


def test_what_goes_by_time_and_for_room_is_told(node: Node) -> None:
    node.apply(commands.configure({"max_items": 2}), commands.set_("a", b"", 0, ttl_ms=10), commands.set_("b", b"", 0))
    reader = node.reader("a", "b")
    node.stamp_ms += 20
    node.apply((commands.NOOP,))
    assert reader.told() == ["a"]
    node.set("c", "d")
    assert reader.told() == ["b"]


def test_what_is_absent_is_noted_like_what_is_there(node: Node) -> None:
    reader = node.reader("a")
    node.set("a")
    assert reader.told() == ["a"]


def test_keys_of_other_databases_are_others_and_are_told_without_their_mark(node: Node) -> None:
    reader = node.reader("\x013a")
    node.set("a", "\x012a")
    assert reader.told() == []
    node.set("\x013a")
    assert reader.told() == ["a"]


@pytest.mark.parametrize("prefix", ["", "k", "x"])
def test_a_removed_prefix_lets_all_forget_everything(node: Node, prefix: str) -> None:
    node.set("k1", "k2")
    reader, near, far = node.reader("k1"), node.listener("k1"), node.listener("y")
    node.apply(commands.delete_prefix(prefix))
    assert reader.told() == [None]
    assert near.told() == ([] if prefix == "x" else [None]) and far.told() == ([] if prefix else [None])
    node.set("k1")
    assert reader.told() == []
    assert node.tracking.metrics()["tracking_keys"] == 0


def test_who_has_left_is_told_nothing(node: Node) -> None:
    reader, listener = node.reader("a"), node.listener("a", "b")
    node.tracking.end(reader.number, [])
    node.tracking.end(listener.number, ["a", "b"])
    node.set("a", "b")
    assert reader.came == listener.came == []
    metrics = node.tracking.metrics()
    assert (metrics["tracking_clients"], metrics["tracking_keys"], metrics["tracking_prefixes"]) == (0, 0, 0)


def test_who_listens_to_prefixes_is_told_each_key_of_a_turn_once_in_one_message(node: Node) -> None:
    a, everything, none = node.listener("a:", "b"), node.listener(""), node.listener("a:1:")
    node.begin(commands.set_("a:1", b"", 0), commands.set_("c", b"", 0))
    node.begin(commands.set_("\x01fa:1", b"", 0), commands.set_("b", b"", 0))
    node.end_turn()
    assert sorted(map(str, a.told())) == ["a:1", "b"]
    assert everything.told() == ["a:1", "c", "b"] and none.told() == []


def test_who_listens_is_told_many_names_in_several_messages(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_AT_ONCE", 3)
    listener = node.listener("k")
    keys = [f"k{number}" for number in range(10)]
    node.set(*keys)
    assert listener.told() == keys
    assert node.tracking.metrics()["tracking_invalidations_total"] == 4


# Reads that are answered later ----------------------------------------------------------------------------------------


def test_a_read_that_is_answered_later_is_noted_only_if_it_still_holds(node: Node) -> None:
    node.set("a", "b")
    seen = [("a", node.version("a"), 0), ("b", node.version("b"), 0), ("c", 0, 0), ("d", 0, 0)]
    reader = node.reader()
    node.set("b", "d")
    node.tracking.note_seen(reader.number, seen)
    # Not now: the answer comes first.
    assert reader.told() == []
    node.turns.run()
    assert reader.told() == ["b", "d"]
    node.set("a", "b", "c", "d")
    assert reader.told() == ["a", "c"]


def test_what_has_expired_since_it_was_read_is_told(node: Node) -> None:
    node.apply(commands.set_("a", b"", 0, ttl_ms=10))
    version = node.version("a")
    reader = node.reader()
    node.stamp_ms += 20
    node.tracking.note_seen(reader.number, [("a", version, 1010)])
    node.turns.run()
    assert reader.told() == ["a"]


# What a client has written itself -------------------------------------------------------------------------------------


def test_a_clients_own_writes_are_not_told_and_the_next_change_is(node: Node) -> None:
    writer, other = node.reader("a"), node.reader("a")
    own = node.begin(commands.set_("a", b"", 0))
    node.tracking.wrote(writer.number, own)
    node.end_turn()
    assert (writer.told(), other.told()) == ([], ["a"])
    node.set("a")
    assert (writer.told(), other.told()) == (["a"], [])


@pytest.mark.parametrize("removes", [False, True])
def test_what_others_have_changed_behind_an_own_write_is_told(node: Node, removes: bool) -> None:
    writer = node.reader("a")
    own = node.begin(commands.set_("a", b"", 0))
    node.tracking.wrote(writer.number, own)
    node.begin(commands.delete("a", 0) if removes else commands.set_("a", b"", 0))
    node.end_turn()
    node.turns.run()
    assert writer.told() == ["a"]


def test_an_own_removal_is_not_told_and_a_key_that_comes_back_is(node: Node) -> None:
    node.set("a")
    writer = node.reader("a")
    own = node.begin(commands.delete("a", 0))
    node.tracking.wrote(writer.number, own)
    node.end_turn()
    node.turns.run()
    assert writer.told() == []
    node.set("a")
    assert writer.told() == ["a"]


def test_under_a_prefix_only_what_is_all_ones_own_is_left_out(node: Node) -> None:
    writer, other = node.listener("k"), node.listener("k")
    own = node.begin(commands.set_("k1", b"", 0), commands.set_("k2", b"", 0))
    node.begin(commands.set_("k2", b"", 0))
    node.tracking.wrote(writer.number, own)
    node.end_turn()
    assert (writer.told(), other.told()) == (["k2"], ["k1", "k2"])
    # It keeps what it has written once that is answered, and is told behind that.
    node.turns.run()
    assert writer.told() == ["k2"]
    # What is one's own is known for one turn alone.
    assert node.tracking._own == {}
    node.set("k1")
    assert writer.told() == ["k1"]


@pytest.mark.parametrize("prefixes", [True, False])
def test_what_others_have_changed_behind_an_own_write_is_told_behind_its_answer(node: Node, prefixes: bool) -> None:
    writer = node.listener("") if prefixes else node.reader("a", "b", "c")
    own = node.begin(*(commands.set_(key, b"", 0) for key in "ab"))
    node.begin(commands.set_("b", b"", 0), commands.set_("c", b"", 0))
    node.tracking.wrote(writer.number, own)
    # Before anybody is answered.
    node.end_turn()
    assert writer.told() == (["b", "c"] if prefixes else ["c"])
    node.turns.run()
    assert writer.told() == ["b"]


@pytest.mark.parametrize("prefixes", [True, False])
def test_what_is_to_be_forgotten_behind_an_own_write_is_told_behind_its_answer_too(node: Node, prefixes: bool) -> None:
    writer = node.listener("") if prefixes else node.reader("a")
    own = node.begin(commands.set_("a", b"", 0))
    node.begin(commands.delete_prefix("a"))
    node.tracking.wrote(writer.number, own)
    node.end_turn()
    assert writer.told() == [None]
    node.turns.run()
    assert writer.told() == ["a", None]
    # Once more and no further, also of one that goes on writing.
    for _ in range(3):
        node.tracking.wrote(writer.number, node.begin(commands.set_("a", b"", 0)))
        node.end_turn()
        node.turns.run()
    assert writer.told() == []


@pytest.mark.parametrize("prefixes", [True, False])
def test_what_others_have_removed_behind_an_own_removal_and_write_is_told(node: Node, prefixes: bool) -> None:
    node.set("a")
    writer = node.listener("") if prefixes else node.reader("a")
    node.tracking.wrote(writer.number, node.begin(commands.delete("a"), commands.set_("a", b"", 0)))
    node.begin(commands.delete("a"))
    node.end_turn()
    writer.told()
    node.turns.run()
    assert writer.told() == ["a"]


@pytest.mark.parametrize("others", [0, 1])
def test_an_own_write_that_is_answered_in_a_later_turn_is_compared_with_what_is_there(node: Node, others: int) -> None:
    writer = node.listener("a")
    own = node.begin(commands.set_("a", b"", 0))
    node.end_turn()
    assert writer.told() == ["a"], "nobody knew whose it was"
    for _ in range(others):
        node.set("a")
    writer.told()
    node.tracking.wrote(writer.number, own)
    node.end_turn()
    assert writer.told() == []
    node.turns.run()
    assert writer.told() == ["a"] * others
    assert node.tracking._own == {}


def test_an_own_write_answered_late_beside_changes_of_others_is_told_behind_as_well(node: Node) -> None:
    writer = node.listener("a")
    own = node.begin(commands.set_("a", b"", 0))
    node.end_turn()
    writer.told()
    node.begin(commands.set_("a", b"", 0))
    node.tracking.wrote(writer.number, own)
    node.end_turn()
    assert writer.told() == ["a"]
    node.turns.run()
    assert writer.told() == ["a"]


def test_what_others_have_changed_before_an_own_write_is_told_at_once(node: Node) -> None:
    writer = node.listener("")
    node.begin(commands.set_("a", b"", 0))
    node.tracking.wrote(writer.number, node.begin(commands.set_("a", b"", 0)))
    node.end_turn()
    node.turns.run()
    assert writer.told() == ["a"]


def test_a_late_answer_to_a_client_of_prefixes_is_compared_with_what_is_there(node: Node) -> None:
    client = node.listener("a", "b")
    node.set("a1", "a2", "b", "c")
    client.told()
    seen = [(key, node.version(key), 0) for key in ("a1", "a2", "b", "c", "b-absent")]
    node.set("a2", "c")
    assert client.told() == ["a2"]
    node.tracking.note_seen(client.number, seen)
    assert client.told() == [], "its answer comes first"
    node.turns.run()
    assert client.told() == ["a2"]
    assert node.tracking.metrics()["tracking_keys"] == 0


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_the_first_that_was_noted_is_told_and_forgotten_where_there_is_no_room(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_bytes, further_bytes = sys.getsizeof("a") + module.KEY_COST, module.SECOND_COST
    monkeypatch.setattr(module, "NOTED_BYTES_MAX", 3 * key_bytes + further_bytes)
    one, two = node.reader("a", "b"), node.reader("a", "c")
    node.tracking.note(one.number, ["d"])
    assert (one.told(), two.told()) == ([], [])
    node.turns.run()
    assert (one.told(), two.told()) == (["a"], ["a"])
    metrics = node.tracking.metrics()
    assert (metrics["tracking_keys"], metrics["tracking_reads"], metrics["tracking_evicted_total"]) == (3, 3, 1)
    # Who reads the same again takes no more room.
    node.tracking.note(one.number, ["b", "d", "b"])
    assert node.tracking.metrics()["tracking_reads"] == 3
    assert node.tracking.metrics()["tracking_bytes"] == 3 * key_bytes
    node.set("b", "c", "d")
    assert node.tracking.metrics()["tracking_bytes"] == 0


def test_several_readers_of_a_key_are_counted_with_what_they_take(node: Node) -> None:
    alone = node.reader("a")
    counted = node.tracking.metrics()["tracking_bytes"]
    others = {alone.number}
    for _ in range(100):
        others.add(node.reader("a").number)
        assert node.tracking.metrics()["tracking_bytes"] - counted >= sys.getsizeof(others)
    node.set("a")
    assert node.tracking.metrics()["tracking_bytes"] == 0


def test_many_clients_of_one_key_are_told_in_slices(node: Node) -> None:
    readers = [node.reader("a") for _ in range(300)]
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0001
        return now

    node.turns.time = clock
    node.set("a")
    told = [reader for reader in readers if reader.came]
    assert 0 < len(told) < 100
    assert sum(reader.writes for reader in readers) <= module.WRITTEN_AT_ONCE
    assert node.turns.run() > 5
    assert all(reader.told() == ["a"] for reader in readers)


def test_where_too_much_is_due_all_forget_everything(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DUE_MAX", 5)
    keys = [f"k{number}" for number in range(6)]
    reader, listener = node.reader("a", *keys), node.listener("b")
    node.set(*keys)
    assert (reader.told(), listener.told()) == ([None], [None])
    node.set("a")
    assert reader.told() == []
    # What was told is due no more.
    for key in keys:
        node.tracking.note(reader.number, [key])
        node.set(key)
    assert reader.told() == keys


def test_no_more_is_noted_under_prefixes_where_too_much_is_due(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DUE_MAX", 10)
    listener = node.listener("k", "kk", "kkk")
    node.begin(*[commands.set_(f"kkk{number}", b"", 0) for number in range(100)])
    assert sum(map(len, node.tracking._changed.values())) == 12
    node.end_turn()
    assert listener.told() == [None]
    node.set("kx")
    assert listener.told() == ["kx"]


def test_messages_of_many_names_are_made_in_slices(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_AT_ONCE", 10)
    listener, other = node.listener("k"), node.listener("o")
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    node.turns.time = clock
    names = [f"k{number}" for number in range(200)]
    node.set(*names, "o")
    assert len(listener.came) < 50 and node.tracking._changed
    node.turns.run()
    assert (listener.told(), other.told()) == (names, ["o"])


def test_a_table_that_is_given_up_is_freed_in_slices(node: Node) -> None:
    node.reader(*[str(number) for number in range(10_000)])
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    node.turns.time = clock
    node.tracking.forget()
    assert node.turns.run() >= 10_000 // module.FREED_AT_ONCE // 3


def test_prefixes_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFIXES_MAX", 3)
    monkeypatch.setattr(module, "LENGTHS_MAX", 2)
    node.listener("a", "bb", "c")
    node.listener("a")
    with pytest.raises(InvalidRequest, match="at most 3 prefixes"):
        node.listener("d")
    monkeypatch.setattr(module, "PREFIXES_MAX", 4)
    with pytest.raises(InvalidRequest, match="at most 2 lengths"):
        node.listener("eee")
