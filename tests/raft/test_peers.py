"""Who is down for a node that knows no leader: by its connections, by what the last leader said, and by owed answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cacheflow.raft.peers import DOWN_AFTER_MS, Peers


class Node:
    """The node "a" of "a", "b" and "c", with connections to both, and without a leader."""

    def __init__(self) -> None:
        self.now_ms = 10_000
        self.connected = {"b", "c"}
        links: Any = SimpleNamespace(route=None, now_ms=lambda: self.now_ms, is_connected=self.connected.__contains__)
        configurations: Any = SimpleNamespace(latest=SimpleNamespace(members=dict.fromkeys("abc")))
        self.links = links
        self.peers = Peers("a", configurations, links)
        for node_id in "bc":
            self.peers.heard(node_id)
        self.now_ms += 1

    def pass_ms(self, milliseconds: int) -> set[str]:
        self.now_ms += milliseconds
        return self.peers.down_ids()


@pytest.fixture
def node() -> Node:
    return Node()


def test_silence_on_a_connection_that_stands_means_nothing(node: Node) -> None:
    assert node.pass_ms(1_000_000) == set()
    node.connected.discard("b")
    assert node.pass_ms(1) == {"b"}


def test_what_the_last_leader_said_holds_until_something_is_heard(node: Node) -> None:
    node.peers.set_down(["b", "c", "a"])
    assert node.pass_ms(1_000_000) == {"b", "c"}
    node.peers.heard("b")
    assert node.pass_ms(1) == {"c"}
    # A leader's word is what counts again.
    node.links.route = object()
    assert node.pass_ms(1) == {"b", "c"}


def test_a_leaders_word_settles_what_is_owed(node: Node) -> None:
    node.peers.asked("b")
    node.peers.asked("c")
    node.peers.set_down(["c"])
    assert node.pass_ms(1_000_000) == {"c"}
    node.peers.asked("b")
    assert node.pass_ms(DOWN_AFTER_MS + 1) == {"b", "c"}


def test_who_owes_an_answer_for_long_is_down_until_it_comes(node: Node) -> None:
    node.peers.asked("b")
    assert node.pass_ms(DOWN_AFTER_MS) == set()
    # Asked again, it owes the first answer.
    node.peers.asked("b")
    assert node.pass_ms(1) == {"b"}
    node.peers.heard("b")
    assert node.pass_ms(1_000_000) == set()
    node.peers.asked("b")
    assert node.pass_ms(DOWN_AFTER_MS) == set() and node.pass_ms(1) == {"b"}
