"""Keyspace notifications: what subscribers are told of changes of keys, by flags, names and databases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import ignore, line, lines, service

from cacheflow.machine.language import commands
from cacheflow.net.slices import SLICE_S
from cacheflow.node import channels, feed
from cacheflow.wire.resp.notifications import parsed, spelled


class Conversation:
    """A store, a client that has subscribed to all channels, and one that changes things."""

    def __init__(self, flags: str = "KEA", max_items: int | None = None) -> None:
        self.store = FakeStore(max_items)
        self.shared = service(self.store, slices=self.store.next_turn.slices)
        self.listener, self.writer = (Client(self.shared.connection(ignore)) for _ in range(2))
        self.listener.send(line("PSUBSCRIBE *"))
        self.do(f"CONFIG SET notify-keyspace-events '{flags}'")
        self.told()

    def do(self, *words: str) -> bytes:
        answer = b"".join([self.writer.send(line(each)) for each in words])
        self.store.next_turn.run()
        return answer

    def told(self) -> list[tuple[str, str]]:
        """The messages that came since the last time, as (channel, data)."""
        parts = self.listener.replies().decode().split("\r\n")
        return list(zip(parts[6::9], parts[8::9], strict=False))


def test_a_change_is_told_on_the_channel_of_its_key_and_on_that_of_its_event() -> None:
    conversation = Conversation()
    conversation.do("SET a 1")
    assert conversation.told() == [("__keyspace@0__:a", "set"), ("__keyevent@0__:set", "a")]


def test_keys_of_other_databases_are_told_without_their_mark() -> None:
    conversation = Conversation("Kg")
    conversation.do("SELECT 12", "SET a 1", "DEL a")
    assert conversation.told() == [("__keyspace@12__:a", "del")]


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (["SET k 1", "INCR k", "APPEND k 2"], ["set", "set", "append"]),
        (["SET k 1 EX 10", "EXPIRE k 20", "PERSIST k"], ["set", "expire", "persist"]),
        (["HSET k f 1", "HSET k g 1", "HDEL k f", "HDEL k g"], ["hset", "hset", "hdel", "del"]),
        (["SADD k 1", "SADD k 2", "SREM k 1", "DEL k"], ["sadd", "sadd", "srem", "del"]),
        (["SET k 1", "RENAME k l"], ["set", "del", "set"]),
        (["SET k 1", "FLUSHDB", "FLUSHALL"], ["set"]),
    ],
)
def test_what_has_become_of_a_key_has_redis_name(words: list[str], events: list[str]) -> None:
    conversation = Conversation("KA")
    conversation.do(*words)
    assert sorted(event for _, event in conversation.told()) == sorted(events)


def test_what_goes_by_time_and_for_room_is_told() -> None:
    conversation = Conversation("EA", max_items=2)
    conversation.do("SET a 1 PX 5", "SET b 1")
    conversation.store.clock_ms += 10
    conversation.do("SET b 2", "SET c 1", "SET d 1")
    told = conversation.told()
    assert ("__keyevent@0__:expired", "a") in told and ("__keyevent@0__:evicted", "b") in told


@pytest.mark.parametrize(
    ("flags", "events"),
    [
        ("", []),
        ("KE", []),
        ("A", []),
        ("E$", ["set"]),
        ("Eg", ["expire", "del"]),
        ("Eh", ["hset"]),
        ("Kslztdnm", []),
        ("Egh", ["expire", "del", "hset"]),
    ],
)
def test_the_flags_choose(flags: str, events: list[str]) -> None:
    conversation = Conversation(flags)
    conversation.do("SET k 1", "EXPIRE k 10", "DEL k", "HSET k f 1")
    assert [channel.partition(":")[2] for channel, _ in conversation.told()] == events


def test_nobody_follows_while_no_flags_are_set() -> None:
    conversation = Conversation("")
    store = conversation.store

    def followers() -> float:
        return store.feed.metrics()["followers"]

    assert followers() == 0
    conversation.do("CONFIG SET notify-keyspace-events Kx", "CONFIG SET notify-keyspace-events KA")
    assert followers() == 1
    conversation.do("CONFIG SET notify-keyspace-events ''")
    assert followers() == 0
    conversation.do("SET a 1")
    assert conversation.told() == []


def test_the_nodes_flag_counts_from_the_first_client_on() -> None:
    store = FakeStore()
    shared = service(store, slices=store.next_turn.slices)
    shared.notifications.choose("KEA")
    store.apply([commands.set_("before", b"", 0)])
    listener = Client(shared.connection(ignore))
    listener.send(line("SUBSCRIBE __keyevent@0__:set"))
    store.next_turn.run()
    listener.replies()
    store.apply([commands.set_("k", b"", 0)])
    store.next_turn.run()
    assert listener.replies().endswith(b"$20\r\n__keyevent@0__:set\r\n$1\r\nk\r\n".replace(b"$20", b"$18"))


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("KEA", "AKE"),
        ("Kxg$", "g$xK"),
        ("g$lshzxetdE", "AE"),
        ("An", "An"),
        ("mK", "Km"),
        ("", ""),
        ("nK", "nK"),
    ],
)
def test_flags_are_shown_as_redis_shows_them(told: str, shown: str) -> None:
    assert spelled(parsed(told)) == shown
    conversation = Conversation(told)
    assert conversation.do("CONFIG GET notify-keyspace-events").split(b"\r\n")[4] == shown.encode()


def test_a_wrong_flag_changes_nothing() -> None:
    conversation = Conversation("KEA")
    answer = conversation.do("CONFIG SET maxmemory 2kb notify-keyspace-events KQ")
    assert answer == (
        b"-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - "
        b"Invalid event class character. Use 'Ag$lshzxeKEtmdn'.\r\n"
    )
    assert conversation.store.machine.settings.max_bytes is None
    twice = conversation.do("CONFIG SET notify-keyspace-events K notify-keyspace-events E")
    assert twice.endswith(b"duplicate parameter\r\n")
    assert spelled(conversation.shared.notifications.flags) == "AKE"


def test_it_is_set_together_with_settings_of_the_cluster() -> None:
    conversation = Conversation("")
    assert conversation.do("CONFIG SET notify-keyspace-events KEA maxmemory 2kb") == b"+OK\r\n"
    assert conversation.store.machine.settings.max_bytes == 2048
    conversation.do("SET a 1")
    assert conversation.told()[0] == ("__keyspace@0__:a", "set")


def test_what_is_too_much_at_once_waits_in_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "HANDED_OUT_MAX", 20)
    monkeypatch.setattr(feed, "AT_ONCE", 5)
    monkeypatch.setattr(feed, "LOOKED_MAX", 5)
    conversation = Conversation("KA")
    queued: list[int] = []
    queue = conversation.store.channels._queue

    def note(published: Any) -> None:
        queue(published)
        queued.append(len(conversation.store.channels._to_hand_out))

    monkeypatch.setattr(conversation.store.channels, "_queue", note)
    now = itertools.count()
    # A slice is over when two things were done.
    conversation.store.next_turn.time = lambda: next(now) * SLICE_S / 2
    for number in range(20):
        conversation.store.apply([commands.set_(f"{number}-{each}", b"", 0) for each in range(10)])
    conversation.store.next_turn.run()
    assert 0 < max(queued) < 40
    assert [channel for channel, _ in conversation.told()] == [
        f"__keyspace@0__:{number}-{each}" for number in range(20) for each in range(10)
    ]


def test_who_missed_something_goes_on() -> None:
    conversation = Conversation("KA")
    conversation.store.feed.begin_at(100, bytes(16))
    conversation.store.next_turn.run()
    conversation.do("MULTI", "SET a 1")
    conversation.writer.send(lines("EXEC"))
    conversation.store.next_turn.run()
    assert conversation.told() == [("__keyspace@0__:a", "set")]
