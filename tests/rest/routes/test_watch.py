"""What is asked before a watch begins, over a fake store; watches themselves are in server/test_watch.py."""

from __future__ import annotations

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.errors import NoLeader, NotReady


def test_another_server_than_ours_cannot_serve_a_watch(client: Client) -> None:
    assert client.get("/watch").status_code == 501


def test_head_tells_that_a_watch_would_begin(client: Client) -> None:
    answer = client.head("/watch?prefix=a")
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/event-stream"


def test_a_position_that_is_gone_is_410_with_the_oldest(client: Client, store: FakeStore) -> None:
    store.watching.feed.gone.append("old")
    for answer in (client.get("/watch?since=old"), client.get("/watch?since=x", headers={"Last-Event-ID": "old"})):
        assert answer.status_code == 410
        assert answer.get_json()["type"] == "urn:cacheflow:position-gone" and answer.get_json()["oldest"] == "p1"
    assert client.head("/watch?since=old").status_code == 410


@pytest.mark.parametrize("behind", [True, False])
def test_a_node_that_is_behind_a_position_catches_up_first(client: Client, store: FakeStore, behind: bool) -> None:
    store.watching.behind = behind
    store.failure = NoLeader("no leader")  # what a barrier is told
    assert client.get("/watch?since=ahead").status_code == (503 if behind else 501)


def test_a_node_that_cannot_tell_what_changes_says_so(client: Client, store: FakeStore) -> None:
    store.watching.refusal = NotReady("this node has heard no leader")
    answer = client.get("/watch")
    assert answer.status_code == 503 and answer.headers["Retry-After"]


def test_a_list_names_the_position_before_it(client: Client) -> None:
    assert client.get("/cache").headers["X-Watch-Position"] == "p0"
