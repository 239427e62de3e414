"""Nodes that only pretend, and a client of one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.http_node import FakeNode, FakeState

from cacheflow.client import failover
from cacheflow.client.client import CacheClient
from cacheflow.client.members import Members


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


@pytest.fixture
def pair() -> Iterator[tuple[FakeNode, FakeNode]]:
    state = FakeState()
    with FakeNode(state, "a") as first, FakeNode(state, "b") as second:
        yield first, second


@pytest.fixture
def client(node: FakeNode) -> Iterator[CacheClient]:
    with CacheClient(node.url, timeout_s=5) as client:
        yield client


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "PAUSE_S_FIRST", 0.001)
    monkeypatch.setattr(failover, "PAUSE_S_MAX", 0.01)


@pytest.fixture
def no_looking_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nodes are asked besides calls would be counted with them, and is what test_members tests."""
    monkeypatch.setattr(Members, "_look_soon", lambda *_: None)
