"""Clients that begin long bodies over HTTP: what they keep together, who goes on, and who is ended."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, ask, request, until

from cacheflow.net import unfinished
from cacheflow.net.unfinished import COUNTED_BYTES_MIN, Unfinished
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server import strict_http
from cacheflow.rest.server.serving import HttpServer

MIB = 1024 * 1024
ROOM = 16 * MIB
CLIENTS = 220
# What one turn of the reading thread reads of a client.
PIECE = 64 * 1024
VALUE = b"x" * 900_000
PUT = request("PUT", "/cache/k", VALUE)


@pytest.fixture
def budget() -> Unfinished:
    return Unfinished(ROOM)


@pytest.fixture
def server(store: FakeStore, budget: Unfinished) -> Iterator[HttpServer]:
    store.value_bytes_max = MIB
    app = create_app(store, RestConfig())
    with HttpServer(app, "127.0.0.1", 0, threads=4, at_once=at_once, unfinished=budget) as server:
        yield server


def kept(server: HttpServer) -> int:
    """The bytes of bodies that are not complete, by what their buffers hold, in memory or in files."""
    requests = [channel.request for channel in server._channels()]
    return sum(len(each.body_rcv) for each in requests if each is not None and each.body_rcv is not None)


def begin(stack: ExitStack, server: HttpServer, data: bytes) -> Connection:
    """A client that sends as much of ``data`` as is taken, in a thread of its own."""
    client = stack.enter_context(Connection(server.port))
    sending = threading.Thread(target=_send, args=(client.socket, data), daemon=True)
    sending.start()
    return client


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)


def test_many_halves_keep_no_more_than_the_budget_and_short_requests_pass(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            begin(stack, server, PUT[:880_000])
        until(lambda: budget.full, "there is more than may be")
        most = 0
        for _ in range(20):
            began = time.monotonic()
            assert ask(server.port, "PUT", "/cache/short", b"x" * 20_000).status == 201
            assert time.monotonic() - began < 5.0
            assert ask(server.port, "DELETE", "/cache/short").status == 200
            most = max(most, kept(server))
            time.sleep(0.02)
        assert most < ROOM + CLIENTS * (COUNTED_BYTES_MIN + PIECE) + MIB
        assert budget.ended == 0
    until(lambda: budget.bytes == 0, "nobody is there any more")
    assert kept(server) == 0


def test_uploads_end_one_after_the_other_however_little_there_is_for_all(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    budget.bytes_max = MIB
    with ExitStack() as stack:
        for client in [begin(stack, server, PUT) for _ in range(30)]:
            assert client.reply().status in (200, 201)
        until(lambda: budget.bytes == budget._waiting == 0, "all are answered")
    assert budget.ended == 0


def test_the_silent_are_told_so_when_all_is_full_and_others_go_on(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.5)
    budget.bytes_max = MIB
    with ExitStack() as stack:
        halves = [begin(stack, server, PUT[:600_000]) for _ in range(8)]
        until(lambda: budget.full, "there is more than may be")
        assert begin(stack, server, PUT).reply().status == 201
        # (What they have sent counts until they have been told.)
        until(lambda: budget.ended >= 7 and not budget.full, "all but one are ended")
        refused = [client for client in halves if _answers(client)]
        assert len(refused) == budget.ended
        assert {client.reply().status for client in refused} == {408}


def test_who_has_sent_something_that_a_slow_node_has_not_read_is_not_ended(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def look(descriptor: int) -> bool:
        looked.append(descriptor)
        return True

    monkeypatch.setattr(strict_http, "has_input", look)
    monkeypatch.setattr(unfinished, "SILENT_S", 0.1)
    budget.bytes_max = MIB
    with ExitStack() as stack:
        for _ in range(2):
            begin(stack, server, PUT[:600_000])
        until(lambda: len(looked) > 3, "they are looked at")
        assert budget.ended == 0
        monkeypatch.undo()
        monkeypatch.setattr(unfinished, "SILENT_S", 0.1)
        until(lambda: budget.ended > 0, "one is ended")


def _answers(client: Connection) -> bool:
    client.socket.settimeout(0.2)
    try:
        return client.socket.recv(1, socket.MSG_PEEK) != b""
    except TimeoutError:
        return False
    finally:
        client.socket.settimeout(10.0)


def test_a_body_counts_until_it_is_answered_and_its_client_need_not_send_more(
    server: HttpServer, budget: Unfinished, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.1)
    budget.bytes_max = 2 * MIB
    gate = threading.Event()
    position = store.position
    monkeypatch.setattr(store, "position", lambda: (gate.wait(10.0), position())[1])
    with ExitStack() as stack:
        clients = [begin(stack, server, PUT) for _ in range(6)]
        until(lambda: budget.full and budget._waiting >= 3, "some are complete, and the others wait")
        time.sleep(1.0)
        assert budget.bytes < 2 * MIB + MIB + 6 * (COUNTED_BYTES_MIN + PIECE)
        gate.set()
        assert sorted(client.reply().status for client in clients) == [200] * 5 + [201]
        until(lambda: budget.bytes == 0, "all are answered")
        assert budget.ended == 0


class Elsewhere:
    """A connection of another front."""

    unfinished_bytes = 0
    came_s = 0.0
    waits = False

    def read_on(self) -> None:
        raise AssertionError("it does not wait")


def test_the_poll_loop_is_woken_when_another_front_makes_room(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    wake = server._servers[0].wake

    def noted() -> None:
        woken.append(threading.current_thread().name)
        wake()

    monkeypatch.setattr(server._servers[0], "wake", noted)
    elsewhere = Elsewhere()
    budget.tell(elsewhere, ROOM)
    with ExitStack() as stack:
        client = begin(stack, server, PUT)
        until(lambda: budget._waiting == 1, "it waits")
        woken.clear()
        budget.tell(elsewhere, 0)
        assert woken == [threading.current_thread().name]
        assert client.reply().status == 201


def test_one_that_is_called_and_has_no_more_to_send_does_not_stop_the_others(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.5)
    elsewhere = Elsewhere()
    budget.tell(elsewhere, ROOM)
    with ExitStack() as stack:
        begin(stack, server, PUT[:100_000])
        until(lambda: budget._waiting == 1, "the half waits")
        honest = begin(stack, server, PUT)
        until(lambda: budget._waiting == 2, "both wait")
        # There is room for one.
        budget.tell(elsewhere, ROOM - 20_000 - (budget.bytes - ROOM))
        assert not budget.full
        assert budget._waiting == 1
        until(lambda: budget.ended == 1, "the half is ended")
        budget.tell(elsewhere, 0)
        assert honest.reply().status == 201


def test_those_who_wait_and_send_nothing_are_ended_together(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.5)
    budget.bytes_max = MIB
    with ExitStack() as stack:
        for _ in range(40):
            begin(stack, server, PUT[:80_000])
        until(lambda: budget._waiting >= 26, "they wait")
        assert begin(stack, server, PUT).reply().status == 201
        # As many as it takes to have half of the room.
        assert budget.ended >= 32


def test_who_goes_away_while_it_waits_keeps_nothing(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    budget.bytes_max = MIB // 2
    with ExitStack() as stack:
        first = begin(stack, server, PUT[:600_000])
        until(lambda: budget.full, "there is more than may be")
        with ExitStack() as others:
            for _ in range(20):
                begin(others, server, PUT[:140_000])
            until(lambda: budget._waiting == 20, "all others wait")
        until(lambda: budget._waiting == 0 and budget.bytes < 700_000, "nobody waits any more")
        until(lambda: len(server._channels()) == 1, "they are closed")
        first.send(PUT[600_000:])
        assert first.reply().status == 201


def test_who_has_sent_all_and_shut_its_side_is_answered(
    server: HttpServer, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)
    budget.bytes_max = MIB // 2
    with ExitStack() as stack:
        first = begin(stack, server, PUT[:600_000])
        until(lambda: budget.full, "there is more than may be")
        second = stack.enter_context(Connection(server.port))
        second.send(request("PUT", "/cache/other", b"x" * 150_000))
        until(lambda: budget._waiting == 1, "the second waits")
        second.socket.shutdown(socket.SHUT_WR)
        assert second.reply().status == 201
        first.send(PUT[600_000:])
        assert first.reply().status == 201
