"""The channels of one node, and what it takes of others: nothing late, nothing twice, no parts, nothing of strangers."""

from __future__ import annotations

import itertools
import logging
from typing import Any, cast

import pytest
from wire.fake_store import NextTurn

from cacheflow.contract import CHANNEL, Published
from cacheflow.node import channels as module
from cacheflow.node.channels import Channels
from cacheflow.raft.transport import messages
from cacheflow.raft.transport.frames import PIECE_BYTES
from cacheflow.raft.transport.network import Network, Peer


class Listener:
    """One who notes what comes."""

    unread_bytes = 0

    def __init__(self) -> None:
        self.came: list[bytes] = []

    def take(self, published: Published, pattern: bytes | None) -> None:
        self.came.append(published.data)

    def write(self) -> None:
        """Nothing waits."""

    def end_as_slow(self) -> None:
        """Nobody is."""


def peer(node_id: str = "b", start: int = 1, incarnation: str = "1") -> Peer:
    return Peer(node_id, incarnation, "127.0.0.1:1", "", f"e{start}", start)


def part(number: int, data: bytes = b"m", **changes: Any) -> dict[str, Any]:
    whole = {
        "type": "publish",
        "number": number,
        "channel": b"a",
        "shard": False,
        "data": data,
        "first": True,
        "left": 0,
    }
    return whole | changes


@pytest.fixture
def turns() -> NextTurn:
    return NextTurn()


@pytest.fixture
def node(turns: NextTurn) -> Channels:
    return Channels(turns.slices, turns.unsent, cast(Network, turns), lambda peer: peer.node_id != "stranger")


@pytest.fixture
def listener(node: Channels) -> Listener:
    one = Listener()
    node.subscribe(one, CHANNEL, b"a")
    return one


@pytest.mark.parametrize("size", [0, 1, module.PART_BYTES, module.PART_BYTES + 1, module.MESSAGE_BYTES_MAX])
def test_a_message_of_any_size_comes_whole_in_parts_of_a_frame(size: int, turns: NextTurn, listener: Listener) -> None:
    sender = Channels(turns.slices, turns.unsent, cast(Network, turns), lambda peer: True)
    data = bytes(number % 251 for number in range(size))
    sender.publish(b"a" * module.NAME_BYTES_MAX, data)
    sender.publish(b"a", data)
    node = Channels(turns.slices, turns.unsent, cast(Network, turns), lambda peer: True)
    node.subscribe(listener, CHANNEL, b"a")
    for message in turns.broadcasted:
        body = messages.encode(message, messages.BESIDE)
        assert len(body) <= PIECE_BYTES
        node.receive(peer(), messages.decode(memoryview(body))[1])
    assert listener.came == [data]


def test_what_is_late_or_comes_again_is_dropped(node: Channels, listener: Listener) -> None:
    for number in (1, 2, 2, 5, 3, 5, 6):
        node.receive(peer(), part(number, b"%d" % number))
    assert listener.came == [b"1", b"2", b"5", b"6"]
    # Each node counts its own, and each start anew.
    node.receive(peer("c"), part(1, b"of c"))
    node.receive(peer(start=2), part(1, b"of a later start"))
    node.receive(peer(start=1), part(9, b"of an earlier one"))
    node.receive(peer(start=2), part(1, b"again"))
    node.receive(peer(incarnation="2"), part(1, b"with another disk"))
    assert listener.came[4:] == [b"of c", b"of a later start", b"with another disk"]


def test_what_has_a_gap_is_dropped(node: Channels, listener: Listener) -> None:
    node.receive(peer(), part(1, b"ab", left=4))
    node.receive(peer(), part(2, b"cd", first=False, left=2))
    node.receive(peer(), part(3, b"ef", first=False))
    assert listener.came == [b"abcdef"]
    gaps = [
        [part(11, b"ab", left=4), part(13, b"ef", first=False)],
        # What is left of another message, which would fit.
        [part(15, b"ab", left=4), part(18, b"cd", first=False, left=2), part(19, b"ef", first=False)],
        [part(21, b"cd", first=False, left=2), part(22, b"ef", first=False)],
        [part(31, b"ab", left=4), part(32, b"ef", first=False)],
        [part(41, b"ab", left=2), part(42, b"cd", first=False, channel=b"b")],
        [part(51, b"ab", left=2), part(52, b"cd", first=False, shard=True)],
        [part(61, b"ab", left=2), part(62), part(63, b"cd", first=False)],
    ]
    for parts in gaps:
        for message in parts:
            node.receive(peer(), message)
    assert listener.came == [b"abcdef", b"m"]


def test_what_strangers_publish_does_not_count(node: Channels, listener: Listener) -> None:
    node.receive(peer("stranger"), part(1))
    assert not listener.came


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["number"], [None, 0, -1, True, 1.0, "1"]),
        *itertools.product(["channel"], [None, "a", b"a" * 1025]),
        *itertools.product(["shard"], [None, 0]),
        *itertools.product(["first"], [None, 1]),
        *itertools.product(["data"], [None, "m", []]),
        *itertools.product(["left"], [None, -1, True, module.MESSAGE_BYTES_MAX]),
    ],
)
def test_a_wrong_field_drops_the_message_and_is_told_once(
    name: str, value: object, node: Channels, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        node.receive(peer(), part(1) | {name: value})
        node.receive(peer(), {key: each for key, each in part(2).items() if key != name})
        node.receive(peer(), part(3, b"", first=False, left=1))
    assert not listener.came
    assert [name in record.message for record in caplog.records] == ([True] if name == "data" else [True, False])
    node.receive(peer(), part(1))
    assert listener.came == [b"m"]


def test_a_type_that_is_not_known_is_counted(node: Channels) -> None:
    node.receive(peer(), {"type": "invalidate"})
    assert node.unknown == 1


def test_what_others_send_and_nobody_can_hand_out_in_time_is_lost(
    node: Channels, turns: NextTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDED_OUT_MAX", 1)
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 5000)
    one = Listener()
    node.subscribe(one, CHANNEL, b"a")
    for number in range(1, 101):
        node.receive(peer(), part(number, b"%1000d" % number))
    turns.run()
    assert [int(data) for data in one.came] == [1, 2, 3, 4, 5]
    assert node.metrics()["published_lost_total"] == 95 and not node.is_behind
    node.receive(peer(), part(101, b"101"))
    turns.run()
    assert one.came[-1] == b"101"


def test_nobody_who_has_unsubscribed_is_given_what_waited(
    node: Channels, turns: NextTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDED_OUT_MAX", 1)
    one, other = Listener(), Listener()
    for each in (one, other):
        node.subscribe(each, CHANNEL, b"a")
    for number in range(3):
        assert node.publish(b"a", b"%d" % number) == 2
    node.unsubscribe(one, CHANNEL, b"a")
    turns.run()
    assert one.came == [b"0"] and other.came == [b"0", b"1", b"2"]
    node.unsubscribe(one, CHANNEL, b"a")
    node.unsubscribe(other, CHANNEL, b"a")
    assert node.metrics()["subscriptions"] == node.metrics()["channels"] == 0
