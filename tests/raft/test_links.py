"""Promises wait for the disk in their order, and only so many of them; another leader on the route is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cacheflow.raft.links import HELD_MAX, Links, Route


class Node:
    """A journal whose position is set by hand, and a network that notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.journal = SimpleNamespace(position=0, durable_position=0)
        send = lambda node_id, message: self.sent.append((node_id, message))  # noqa: E731
        network = SimpleNamespace(send=send, is_connected=None, backlog=None)
        make: Any = Links
        self.links: Links = make(SimpleNamespace(time=lambda: 0.0), network, self.journal)


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_promise_leaves_at_once_when_everything_is_durable(node: Node) -> None:
    node.links.hold_message("b", cast(Any, 1))
    assert node.sent == [("b", 1)]


def test_promises_leave_in_their_order_as_far_as_the_journal_is_durable(node: Node) -> None:
    for position in (1, 2, 3):
        node.journal.position = position
        node.links.hold_message("b", cast(Any, position))
    node.links.release()
    assert node.sent == []
    node.journal.durable_position = 2
    node.links.release()
    assert node.sent == [("b", 1), ("b", 2)]
    node.journal.durable_position = 3
    node.links.hold_message("b", cast(Any, 4))
    assert node.sent[2:] == [], "none overtakes another"
    node.links.release()
    assert node.sent[2:] == [("b", 3), ("b", 4)]


def test_a_promise_is_completed_when_it_leaves(node: Node) -> None:
    node.journal.position = 1
    message: dict[str, Any] = {}
    node.links.hold_message("b", cast(Any, message), lambda: message.update(time=node.journal.durable_position))
    assert message == {}
    node.journal.durable_position = 1
    node.links.release()
    assert node.sent == [("b", {"time": 1})]


def test_while_the_disk_hangs_only_so_many_are_kept(node: Node) -> None:
    node.journal.position = 1
    for number in range(HELD_MAX + 50):
        node.links.hold_message("b", cast(Any, number))
    node.journal.durable_position = 1
    node.links.release()
    assert [message for _, message in node.sent] == list(range(HELD_MAX))


def test_each_election_counts_and_another_connection_to_the_same_leader_does_not(node: Node) -> None:
    links = node.links
    for route in (Route("b", 3, 1), None, Route("b", 3, 2)):
        links.follow(route)
        assert links.route == route and links.leader_changes == 1
    links.follow(Route("b", 4, 2))
    assert links.leader_changes == 2, "clients have waited for it"
    links.follow(Route("a", 5, 0))
    assert links.leader_changes == 3
