"""Clients that ask over HTTP and do not read: what they cost the others, and when they are ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, ask, request, until

from cacheflow.net import unsent
from cacheflow.net.unsent import Unsent
from cacheflow.rest.app import RestApp
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.serving import HttpServer

LARGE = b"x" * 400_000
THREADS = 2


@pytest.fixture(params=["in threads", "at once"])
def server(app: RestApp, request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    short = at_once if request.param == "at once" else lambda *_: False
    budget = Unsent(1_000_000)
    with HttpServer(app, "127.0.0.1", 0, threads=THREADS, at_once=short, unsent=budget) as server:
        yield server


@pytest.fixture
def large(store: FakeStore) -> None:
    store._put("large", LARGE, 1, None, 0)


def silent(stack: ExitStack, server: HttpServer, data: bytes) -> socket.socket:
    """A client that sends and does not read."""
    client = stack.enter_context(Connection(server.port)).socket
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(data)
    return client


@pytest.mark.usefixtures("large")
def test_clients_that_do_not_read_hold_no_thread_and_keep_nobody_waiting(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "GRACE_S", 60.0)
    monkeypatch.setattr(unsent, "GRACE_FAR_OVER_S", 60.0)
    with ExitStack() as stack:
        for _ in range(8):
            silent(stack, server, request("GET", "/cache/large?raw") * 60)
        for path in ("/livez", "/metrics", "/cache/large?raw"):
            begun = time.monotonic()
            assert ask(server.port, "GET", path).status == 200
            assert time.monotonic() - begun < 2.0
        # Of each the answer that it does not take, and no other.
        until(lambda: server._unsent.bytes > 0, "answers are not taken")
        assert server._unsent.bytes <= 8 * (len(LARGE) + 1000)


def test_the_kernel_takes_little_for_a_client_that_does_not_read(server: HttpServer, store: FakeStore) -> None:
    store._put("large", b"x" * 3_000_000, 1, None, 0)
    with ExitStack() as stack:
        silent(stack, server, request("GET", "/cache/large?raw"))
        until(lambda: server._unsent.bytes > 0, "an answer is not taken")
        assert server._unsent.bytes > 2_000_000


def test_clients_that_come_at_once_are_accepted_in_a_few_turns(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    turn = server._turn

    def slow(timeout_s: float) -> None:
        # Those that come meanwhile wait together.
        time.sleep(0.3)
        turns.append(timeout_s)
        turn(timeout_s)

    monkeypatch.setattr(server, "_turn", slow)
    assert ask(server.port, "GET", "/livez").status == 200
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(Connection(server.port))
        turns.clear()
        until(lambda: len(server._channels()) >= 60, "all are accepted")
        assert len(turns) <= 3


@pytest.mark.usefixtures("large")
def test_who_takes_nothing_is_ended_over_the_budget_and_a_slow_reader_is_not(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "GRACE_S", 0.4)
    monkeypatch.setattr(unsent, "GRACE_FAR_OVER_S", 0.4)
    with ExitStack() as stack:
        # It reads, in its own time.
        slow = stack.enter_context(Connection(server.port)).send(request("GET", "/cache/large?raw") * 20).socket
        for _ in range(12):
            silent(stack, server, request("GET", "/cache/large?raw") * 20)
        until(lambda: server._unsent.bytes > server._unsent.bytes_max, "there is more than may be")
        read = 0
        deadline = time.monotonic() + 20.0
        while read < 20 * len(LARGE) and time.monotonic() < deadline:
            read += len(slow.recv(65_536))
            time.sleep(0.005)
        assert read >= 20 * len(LARGE)
        until(lambda: server._unsent.bytes <= server._unsent.bytes_max, "the silent are ended")
        assert 0 < server._unsent.ended <= 12


def test_within_the_budget_nobody_is_ended(
    server: HttpServer, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "GRACE_S", 0.0)
    store._put("small", b"x" * 60_000, 1, None, 0)
    with ExitStack() as stack:
        client = silent(stack, server, request("GET", "/cache/small?raw") * 3)
        time.sleep(0.6)
        read = 0
        while read < 3 * 60_000:
            read += len(client.recv(65_536))
    assert server._unsent.ended == 0


def test_pipelined_requests_of_all_kinds_keep_their_order(server: HttpServer, store: FakeStore) -> None:
    store._put("large", LARGE, 1, None, 0)
    with Connection(server.port) as connection:
        connection.send(
            (request("GET", "/cache/large?raw") + request("PUT", "/cache/k", b"v") + request("GET", "/livez")) * 20
        )
        for _ in range(20):
            assert connection.reply().body == LARGE
            assert connection.reply().json["key"] == "k"
            assert connection.reply().body == b"ok"


def test_the_stalest_are_ended_first_and_no_more_than_it_takes() -> None:
    class One:
        unsent_bytes = 0

        def __init__(self, taken_s: float) -> None:
            self.taken_s = taken_s

    budget = Unsent(100)
    holders = [One(taken_s) for taken_s in (3.0, 1.0, 2.0, 9.0)]
    for holder in holders:
        budget.tell(holder, 35)
    assert budget.overdue(holders, 5.9) == []
    assert [holder.taken_s for holder in budget.overdue(holders, 6.5)] == [1.0]
    assert [holder.taken_s for holder in budget.overdue(holders, 20.0)] == [1.0, 2.0]
    budget.tell(holders[0], 300)
    assert [holder.taken_s for holder in budget.overdue(holders, 9.05)] == [1.0, 2.0, 3.0]
    for holder in holders:
        budget.tell(holder, 0)
    assert budget.bytes == 0
    assert budget.overdue(holders, 100.0) == []
