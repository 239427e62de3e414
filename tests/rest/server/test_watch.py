"""Watches over sockets, plain and with TLS: what a client is told, and that nobody waits for a client."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.certificates import Authority
from fakes.embedded import QUICK
from fakes.users import MemoryAccess
from rest.wire import Connection, Reply, request, until

from cacheflow.access.roles import Role
from cacheflow.cli.launcher import free_ports
from cacheflow.errors import NotReady
from cacheflow.node import feed, positions
from cacheflow.rest import TLS_ONLY, watches
from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.serving import HttpServer
from cacheflow.store import ReplicatedStore

TOKEN = b"a token of many letters"


class Front:
    """One node with its HTTP server."""

    def __init__(self, store: ReplicatedStore, app: RestApp, server: HttpServer, authority: Authority | None) -> None:
        self.store = store
        self.app = app
        self.server = server
        self.authority = authority

    def connect(self) -> Connection:
        connection = Connection(self.server.port)
        if self.authority is not None:
            connection.socket = self.authority.trusted().wrap_socket(connection.socket, server_hostname="localhost")
        return connection

    def ask(self, path: str, headers: str = "") -> Reply:
        with self.connect() as connection:
            return connection.send(request("GET", path, headers=headers)).reply()

    @property
    def followers(self) -> float:
        return self.store.watching.feed.metrics()["followers"]


class Stream:
    """A watch in the hands of a test; a context manager."""

    def __init__(self, front: Front, path: str = "/watch", headers: str = "") -> None:
        self._connection = front.connect()
        self.socket = self._connection.socket
        self._buffer = b""
        self._connection.send(request("GET", path, headers=headers))
        self.head = self._until(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 200 OK"), self.head
        (first,) = self._until(b"\n\n").split(b"\n")
        self.begin = first.removeprefix(b"id: ").decode()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the watch has ended")
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def block(self) -> dict[str, Any]:
        """The next block of lines, by their names; a comment has the name ""."""
        lines = self._until(b"\n\n").decode().split("\n")
        fields: dict[str, Any] = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        if "data" in fields:
            fields["data"] = json.loads(fields["data"])
        return fields

    def event(self) -> tuple[str, str]:
        """The next event: what has happened to which key or prefix."""
        while "event" not in (fields := self.block()):
            pass
        self.last = fields["id"]
        data = fields["data"]
        return fields["event"], data.get("key", data.get("prefix"))


@pytest.fixture(params=["plain", "tls"])
def front(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Front]:
    (port,) = free_ports(1)
    settings: dict[str, Any] = {}
    authority = None
    if request.param == "tls":
        authority = Authority(tmp_path / "ca")
        cert, key = authority.node()
        settings = {"tls_cert": cert, "tls_key": key, "tls_ca": authority.crt}
    store = ReplicatedStore(
        node_id="node-1",
        raft_address=f"127.0.0.1:{port}",
        bootstrap=True,
        data_dir=tmp_path / "data",
        **QUICK,
        **settings,
    )
    app = create_app(store, RestConfig())
    secure = None if store.handshakes is None else store.handshakes.secure("http", TLS_ONLY)
    with (
        store,
        HttpServer(
            app,
            "127.0.0.1",
            0,
            threads=2,
            at_once=at_once,
            unsent=store.unsent,
            secure=secure,
            note=app.services.times.note,
        ) as server,
    ):
        yield Front(store, app, server, authority)


def test_a_client_is_told_what_happens_to_keys_under_its_prefix(front: Front) -> None:
    store = front.store
    with Stream(front, "/watch?prefix=a") as stream:
        store.set("a1", "v", ttl=100)
        store.set("b1", "v")
        store.delete("a1")
        store.set("a 2\u2028é", "v")
        store.delete_prefix("a")
        fields = stream.block()
        assert fields["event"] == "set" and len(fields["id"]) == 31
        data = fields["data"]
        assert data["key"] == "a1" and data["version"] == 1 and 99 < data["ttl"] <= 100
        assert [stream.event() for _ in range(3)] == [("delete", "a1"), ("set", "a 2\u2028é"), ("delete", "a")]
    until(lambda: front.followers == 0, "nobody follows any more")


def test_a_watch_goes_on_where_another_has_ended(front: Front) -> None:
    with Stream(front) as stream:
        front.store.set_many({"a": 1, "b": 2, "c": 3})
        assert stream.event() == ("set", "a")
        since = stream.last
    with Stream(front, f"/watch?since={since}") as stream:
        assert [stream.event(), stream.event()] == [("set", "b"), ("set", "c")]
    with Stream(front, f"/watch?since={stream.begin}", f"Last-Event-ID: {stream.last}\r\n") as stream:
        front.store.set("d", 4)
        assert stream.event() == ("set", "d")


def test_a_list_tells_from_where_to_watch(front: Front) -> None:
    front.store.set("a", 1)
    listed = front.ask("/cache?prefix=a")
    front.store.set("a2", 1)
    with Stream(front, f"/watch?prefix=a&since={listed.headers['x-watch-position']}") as stream:
        assert stream.event() == ("set", "a2")


def test_no_thread_is_held(front: Front) -> None:
    before = threading.active_count()
    streams = [Stream(front, f"/watch?prefix={number:02}") for number in range(30)]
    assert front.ask("/nodes/list").status == 200
    assert threading.active_count() <= before
    for number, stream in enumerate(streams):
        front.store.set(f"{number:02}x", 1)
        assert stream.event() == ("set", f"{number:02}x")
        stream.socket.close()
    until(lambda: front.followers == 0, "nobody follows any more")


def test_a_quiet_watch_is_told_how_far_it_is(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watches, "LOOKS_A_BEAT", 1)
    with Stream(front, "/watch?prefix=quiet") as stream:
        for number in range(3):
            front.store.set("loud", number)
            position = front.store.watching.position()
            until(lambda: stream.block()["id"] == position, "the watch is told of the position")  # noqa: B023


def test_who_takes_nothing_is_ended_and_keeps_nothing(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(feed, "EFFECTS_MAX", 2000)
    with Stream(front) as stream:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        key = "k" * 1000
        deadline = time.monotonic() + 30
        while front.followers:
            assert time.monotonic() < deadline
            front.store.set_many({f"{key}{number}": 1 for number in range(300)})
            assert front.store.unsent.bytes < 2 * 1024 * 1024
        told = 0
        with pytest.raises((EOFError, OSError)):
            while True:
                stream.event()
                told += 1
        assert told < 30_000
    # What it has is too old by now.
    assert front.ask(f"/watch?since={stream.last}").status == 410


def test_a_position_that_is_not_known_is_410_with_the_oldest(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "EFFECTS_MAX", 2)
    since = front.store.watching.position()
    for number in range(4):
        front.store.set(f"k{number}", 1)
    answer = front.ask(f"/watch?since={since}")
    assert answer.status == 410 and answer.json["title"] == "Position gone"
    with Stream(front, f"/watch?since={answer.json['oldest']}") as stream:
        assert [stream.event(), stream.event()] == [("set", "k2"), ("set", "k3")]


def test_what_the_loop_alone_sees_to_be_gone_is_counted_and_logged_as_such(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    known = positions.parse(front.store.watching.position())
    elsewhere = positions.text_of(known.entry, known.seen, bytes(byte ^ 1 for byte in known.tag))
    caplog.set_level(logging.DEBUG, "cacheflow.access")
    assert front.ask(f"/watch?since={elsewhere}").status == 410
    with Stream(front):
        until(lambda: front.followers == 1, "the other one watches")
    counted = front.app.services.times.times.by_command()["GET /watch"]
    assert {outcome: histogram.count for outcome, histogram in counted.items()} == {"refused": 1, "ok": 1}
    # Its line is there only when the client has its answer.
    until(lambda: len([each for each in caplog.records if each.name == "cacheflow.access"]) == 2, "both are logged")
    gone, _ = [each.getMessage() for each in caplog.records if each.name == "cacheflow.access"]
    assert f"since={elsewhere}: 410, " in gone and ": 410, 0 bytes" not in gone


def test_a_user_who_is_removed_before_the_watch_begins_has_none(front: Front) -> None:
    access = MemoryAccess(("u", Role.READ, TOKEN))
    user = access.user_of(TOKEN)
    access.people.clear()
    access.reload()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname(), timeout=10)
        ours, _ = listening.accept()
    ours.setblocking(False)
    told: list[tuple[int, int]] = []
    known = watches.Watches(front.store.watching, access)
    known.begin(ours, "", None, user, [], lambda status, size: told.append((status, size)))
    with theirs, theirs.makefile("rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer ")
    assert json.loads(body)["type"] == "urn:cacheflow:unauthorized" and told == [(401, len(body))]
    assert front.followers == 0


def test_the_log_names_who_watches(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "cacheflow.access")
    app = create_app(front.store, RestConfig(access=MemoryAccess(("ada", Role.READ, TOKEN))))
    with HttpServer(app, "127.0.0.1", 0, threads=2) as server, Connection(server.port) as connection:
        connection.send(request("GET", "/watch", headers=f"Authorization: Bearer {TOKEN.decode()}\r\n"))
        until(lambda: len(caplog.messages) == 1, "it is logged")
    assert caplog.messages[0].startswith("GET /watch: 200, ") and caplog.messages[0].endswith(" (ada)")


def test_a_node_that_cannot_tell_what_changes_ends_its_watches(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LOOK_EVERY_S", 0.05)
    with Stream(front) as stream:

        def refuse() -> None:
            raise NotReady("this node has heard no leader")

        monkeypatch.setattr(front.store.watching, "check", refuse)
        with pytest.raises(EOFError):
            stream.event()
    assert front.ask("/watch").status == 503


def test_what_is_sent_behind_the_request_disturbs_nobody(front: Front) -> None:
    with Stream(front) as stream:
        stream.socket.sendall(request("GET", "/livez") * 100)
        front.store.set("a", 1)
        assert stream.event() == ("set", "a")
    assert front.ask("/livez").status == 200


def test_there_is_an_end_to_watches(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "WATCHES_MAX", 1)
    with Stream(front):
        answer = front.ask("/watch")
        assert answer.status == 503 and answer.json["title"] == "Overloaded"


@pytest.mark.parametrize("query", ["since=nonsense", "prefix=%00", "since=a&since=b"])
def test_what_is_no_watch_is_400(front: Front, query: str) -> None:
    assert front.ask(f"/watch?{query}").status == 400


def test_the_end_of_the_node_ends_its_watches(front: Front) -> None:
    with Stream(front) as stream:
        front.store.close()
        with pytest.raises((EOFError, OSError)):
            stream.event()
