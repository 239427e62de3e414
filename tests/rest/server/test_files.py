"""Files through a real waitress: uploads past the usual limits for admins alone, and long answers that keep nobody waiting."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, ask, request, until

from cacheflow.net.unfinished import Unfinished
from cacheflow.net.unsent import Unsent
from cacheflow.rest import Uploads
from cacheflow.rest.app import RestApp
from cacheflow.rest.server.serving import HttpServer

LIMIT = 100_000
LARGE = os.urandom(3_000_000)
ADMIN = "Authorization: Bearer admin\r\n"


@pytest.fixture
def unfinished() -> Unfinished:
    return Unfinished(bytes_max=500_000)


@pytest.fixture
def server(app: RestApp, store: FakeStore, unfinished: Unfinished) -> Iterator[HttpServer]:
    backups = store.backups
    uploads = Uploads(lambda shown: shown == "Bearer admin", backups.new_file, backups.room)
    with HttpServer(
        app,
        "127.0.0.1",
        0,
        body_bytes_max=LIMIT,
        request_deadline_s=1.0,
        unfinished=unfinished,
        unsent=Unsent(),
        uploads=uploads,
    ) as server:
        yield server


def test_an_admin_may_send_what_is_larger_than_any_other_body(server: HttpServer, store: FakeStore) -> None:
    answer = ask(server.port, "POST", "/restore", LARGE, ADMIN)
    assert (answer.status, answer.json["items"]) == (200, 3)
    assert store.backups.restored == [(LARGE, False)]


def test_a_chunked_upload_is_one(server: HttpServer, store: FakeStore) -> None:
    with Connection(server.port) as connection:
        connection.send(request("POST", "/restore", headers=f"{ADMIN}Transfer-Encoding: chunked\r\n"))
        for start in range(0, len(LARGE), 500_000):
            connection.send(b"%x\r\n%b\r\n" % (500_000, LARGE[start : start + 500_000]))
        connection.send(b"0\r\n\r\n")
        assert connection.reply().status == 200
    assert store.backups.restored == [(LARGE, False)]


@pytest.mark.parametrize("headers", ["", "Authorization: Bearer somebody\r\n"])
def test_nobody_else_may(server: HttpServer, store: FakeStore, headers: str) -> None:
    with Connection(server.port) as connection:
        connection.send(request("POST", "/restore", headers=f"{headers}Content-Length: 3000000\r\n"))
        assert connection.reply().status == 413
    assert store.backups.restored == []


def test_other_paths_keep_their_limits(server: HttpServer) -> None:
    for method, path in (("PUT", "/cache/k"), ("POST", "/cache/_batch"), ("POST", "/restored"), ("PUT", "/restore")):
        with Connection(server.port) as connection:
            connection.send(request(method, path, headers=f"{ADMIN}Content-Length: 3000000\r\n"))
            assert connection.reply().status == 413


def test_no_more_than_the_disk_has_room_for(server: HttpServer, store: FakeStore) -> None:
    store.backups.free = 2_000_000
    with Connection(server.port) as connection:
        connection.send(request("POST", "/restore", headers=f"{ADMIN}Content-Length: 3000000\r\n"))
        assert connection.reply().status == 413


def test_an_upload_takes_its_time_and_no_room_of_others(
    server: HttpServer, store: FakeStore, unfinished: Unfinished
) -> None:
    with Connection(server.port) as connection:
        connection.send(request("POST", "/restore", headers=f"{ADMIN}Content-Length: {len(LARGE)}\r\n"))
        for start in range(0, len(LARGE), 500_000):
            connection.send(LARGE[start : start + 500_000])
            time.sleep(0.4)
            assert unfinished.bytes == 0
        assert connection.reply().status == 200
    assert store.backups.restored == [(LARGE, False)]


def test_one_that_does_not_go_on_is_ended(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.send(request("POST", "/restore", headers=f"{ADMIN}Content-Length: {len(LARGE)}\r\n") + LARGE[:1000])
        assert connection.reply().status == 408


def test_a_long_file_goes_out_whole_and_keeps_nobody_waiting(server: HttpServer, store: FakeStore) -> None:
    store.backups.data = LARGE * 20
    told: list[str] = []

    def fetch() -> None:
        digest = hashlib.sha256()
        with socket.create_connection(("127.0.0.1", server.port), 30.0) as client:
            client.sendall(request("GET", "/backup"))
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1)
            missing = len(store.backups.data)
            while missing and (piece := client.recv(1 << 20)):
                digest.update(piece)
                missing -= len(piece)
        told.append(digest.hexdigest())

    slow = socket.create_connection(("127.0.0.1", server.port), 30.0)
    slow.sendall(request("GET", "/backup"))
    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    asked = 0
    while any(thread.is_alive() for thread in threads):
        assert ask(server.port, "GET", "/livez").status == 200
        asked += 1
    for thread in threads:
        thread.join()
    assert told == [hashlib.sha256(store.backups.data).hexdigest()] * 2
    assert asked
    # What a slow client has not taken is on the disk, and counts for nothing.
    assert server._unsent.bytes == 0
    slow.close()


def test_a_client_that_goes_away_leaves_nothing_behind(server: HttpServer, store: FakeStore) -> None:
    store.backups.data = LARGE * 5
    with Connection(server.port) as connection:
        connection.send(request("GET", "/backup"))
    until(lambda: not server._channels(), "its connection is closed")
