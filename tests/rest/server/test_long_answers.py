"""Long answers over HTTP: one after the other, behind every short one, and made of the stored values themselves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rest.client import Client
from rest.fake_store import FakeStore
from rest.wire import Connection, Reply, ask, request, until

from cacheflow import values
from cacheflow.errors import NotReady
from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.long_answers import LONG_BYTES_MIN, long_json
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server import reading_thread
from cacheflow.rest.server.serving import HttpServer
from cacheflow.results import Item
from cacheflow.store import ReplicatedStore

LONG = b"x" * 1_000_000
JSON = "Content-Type: application/json\r\n"


@pytest.fixture
def server(app: RestApp) -> Iterator[HttpServer]:
    with HttpServer(app, "127.0.0.1", 0, threads=2, at_once=at_once) as server:
        yield server


@pytest.fixture
def stored(store: FakeStore) -> FakeStore:
    store._put("long", LONG, values.TEXT, None, 0)
    store._put("short", b"x", values.TEXT, None, 0)
    return store


def keep_waiting(server: HttpServer, seconds: float) -> None:
    """Let the next long answer wait for so many seconds."""
    server._servers[0]._long_from_s = time.monotonic() + seconds


def asked_while_busy(server: HttpServer, store: FakeStore, requests: list[bytes]) -> list[Reply]:
    """The replies to ``requests``, each of its own connection, all of which came while the reading thread was busy."""
    begun, over = threading.Event(), threading.Event()
    liveness = store.liveness

    def busy() -> Any:
        begun.set()
        over.wait(10.0)
        return liveness()

    store.liveness = busy  # type: ignore[method-assign]
    with ExitStack() as stack:
        first = stack.enter_context(Connection(server.port)).send(request("GET", "/livez"))
        assert begun.wait(10.0)
        clients = [stack.enter_context(Connection(server.port)).send(each) for each in requests]
        over.set()
        assert first.reply().status == 200
        return [client.reply() for client in clients]


@pytest.mark.parametrize(
    "asked",
    [
        request("GET", "/cache/long"),
        request("GET", "/cache/long?raw"),
        request("GET", "/cache/long?consistency=linearizable"),
        request("GET", "/cache/long?recency=strict"),
        request("POST", "/cache/_batch", b'{"ops":[{"op":"get","key":"long"}]}', JSON),
    ],
)
def test_a_short_request_is_answered_before_a_row_of_long_ones_that_came_before_it(
    server: HttpServer, stored: FakeStore, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    answered: list[int] = []
    build = reading_thread.ReadingTask.build_response_header

    def noted(task: Any) -> bytes:
        answered.append(task.content_length)
        return build(task)

    monkeypatch.setattr(reading_thread.ReadingTask, "build_response_header", noted)
    replies = asked_while_busy(server, stored, [*[asked] * 12, request("GET", "/cache/short")])
    assert [reply.status for reply in replies] == [200] * 13
    # Behind the busy one at most one long answer is on its way.
    assert answered.index(len(replies[-1].body), 1) <= 2
    assert sum(size >= len(LONG) for size in answered) == 12


def test_between_long_answers_others_are_given_way_and_behind_a_lone_one_not(
    server: HttpServer, stored: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MIN", 0.2)
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MAX", 0.2)
    began_s = time.monotonic()
    asked_while_busy(server, stored, [request("GET", "/cache/long")] * 4)
    assert time.monotonic() - began_s >= 0.6
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MIN", 60.0)
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MAX", 60.0)
    for _ in range(3):
        assert ask(server.port, "GET", "/cache/long").status == 200


def test_more_way_is_given_when_others_want_to_work_as_well(
    server: HttpServer, stored: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = stored.read_again

    def slow(*arguments: Any, **options: Any) -> Any:
        # As if another thread had the interpreter.
        time.sleep(0.01)
        return lookups(*arguments, **options)

    stored.read_again = slow  # type: ignore[method-assign]
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY", 20)
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MAX", 0.2)
    began_s = time.monotonic()
    asked_while_busy(server, stored, [request("GET", "/cache/long")] * 4)
    assert time.monotonic() - began_s >= 0.6


def test_a_long_answer_shows_what_is_stored_when_its_turn_has_come(server: HttpServer, stored: FakeStore) -> None:
    others: list[tuple[Callable[[], Any], int, bytes]] = [
        (lambda: stored._put("long", b"other", values.TEXT, None, 0), 200, b'"other"'),
        (lambda: stored.entries.pop("long"), 404, b"absent"),
    ]
    for change, status, told in others:
        stored._put("long", LONG, values.TEXT, None, 0)
        with Connection(server.port) as second:
            keep_waiting(server, 0.5)
            second.send(request("GET", "/cache/long"))
            until(lambda: bool(server._servers[0].long), "it waits for its turn")
            change()
            reply = second.reply()
        assert reply.status == status
        assert told in reply.body


def test_a_node_that_ceases_to_be_ready_before_the_turn_has_come_says_so(server: HttpServer, stored: FakeStore) -> None:
    keep_waiting(server, 0.5)
    with Connection(server.port) as second:
        second.send(request("GET", "/cache/long"))
        until(lambda: bool(server._servers[0].long), "it waits for its turn")
        stored.read_failure = NotReady("this node is behind")
        assert second.reply().status == 503


def test_who_leaves_before_the_turn_has_come_costs_nothing(
    server: HttpServer, stored: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    keep_waiting(server, 0.3)
    with Connection(server.port) as first:
        with Connection(server.port) as leaving:
            leaving.send(request("GET", "/cache/long"))
            until(lambda: bool(server._servers[0].long), "it waits for its turn")
        assert first.send(request("GET", "/cache/long")).reply().status == 200
    until(lambda: not server._servers[0].long and not server._channels(), "nobody is left")
    assert not caplog.records


def test_a_pipeline_of_long_and_short_answers_is_in_order(server: HttpServer, stored: FakeStore) -> None:
    paths = ["/cache/long", "/cache/short", "/cache/long?raw", "/cache/none", "/cache/long"]
    with Connection(server.port) as client:
        client.send(b"".join(request("GET", path) for path in paths))
        replies = [client.reply() for _ in paths]
    assert [reply.status for reply in replies] == [200, 200, 200, 404, 200]
    assert replies[0].json["value"] == LONG.decode()
    assert replies[2].body == LONG


def test_head_and_conditions_of_long_values(server: HttpServer, stored: FakeStore) -> None:
    told = ask(server.port, "HEAD", "/cache/long")
    whole = ask(server.port, "GET", "/cache/long")
    assert told.headers["content-length"] == str(len(whole.body))
    tag = f"If-None-Match: {whole.headers['etag']}\r\n"
    assert ask(server.port, "GET", "/cache/long", headers=tag).status == 304
    assert ask(server.port, "GET", "/cache/long", headers='If-Match: "99"\r\n').status == 412


def test_who_has_the_long_value_already_does_not_wait_for_a_turn(server: HttpServer, stored: FakeStore) -> None:
    tag = ask(server.port, "GET", "/cache/long").headers["etag"]
    with Connection(server.port) as waiting:
        keep_waiting(server, 60.0)
        waiting.send(request("GET", "/cache/long", headers='If-None-Match: "99"\r\n'))
        until(lambda: bool(server._servers[0].long), "it waits for its turn")
        for header, status in ((f"If-None-Match: {tag}\r\n", 304), ('If-Match: "99"\r\n', 412)):
            for query in ("", "?consistency=linearizable"):
                assert ask(server.port, "GET", "/cache/long" + query, headers=header).status == status
        keep_waiting(server, 0.0)
        assert waiting.reply().status == 200


def test_the_stored_value_itself_waits_for_its_client(server: HttpServer, stored: FakeStore) -> None:
    with Connection(server.port) as silent:
        silent.send(request("GET", "/cache/long") * 2)
        until(lambda: any(each.total_outbufs_len for each in server._channels()), "an answer is not taken")
        (channel,) = server._channels()
        with channel.outbuf_lock:
            waiting = [buffer.get(1).obj for buffer in channel.outbufs if hasattr(buffer, "_left")]
        assert any(each is stored.entries["long"][0] for each in waiting)


@pytest.mark.parametrize("odd", ["", '"', "\\", "\n", "\x00", "\u2028", "é🙂"])
@pytest.mark.parametrize("at", [0, 48 * 1024 - 1, 48 * 1024, 100_000])
def test_the_parts_of_a_long_text_are_its_json(odd: str, at: int) -> None:
    text = "x" * at + odd + "y" * 100_000
    told = json.loads(b"".join(long_json(Item('k"', text.encode(), values.TEXT, None, 3, 1.5))))
    assert told == {"key": 'k"', "value": text, "ttl": 1.5, "version": 3}


@pytest.mark.parametrize(
    ("kind", "data", "meta"),
    [
        (values.BYTES, b"\x00\xff" * 90_001, None),
        (values.BYTES, b"\x00" * LONG_BYTES_MIN, 'image/"png"'),
        (values.BYTES, b"\x01" * (LONG_BYTES_MIN + 1), 12),
        (values.JSON, json.dumps(["x" * 100_000]).encode(), None),
    ],
)
def test_a_long_value_is_shown_as_a_short_one_of_its_kind(
    client: Client, store: FakeStore, kind: int, data: bytes, meta: str | int | None
) -> None:
    shown = []
    for each in (data[:8] if kind == values.BYTES else b"[1]", data):
        store._put("k", each, kind, meta, 0)
        answer = client.get("/cache/k")
        assert int(answer.headers["Content-Length"]) == len(answer.data)
        shown.append(answer.json)
        assert client.get("/cache/k?raw").data == each
    value = {"value": None, "version": None}
    assert shown[0] | value == shown[1] | value


@pytest.mark.parametrize("behind", [[b"two"], [b"two", b"and more than was said"], [b"two and more than was said"]])
def test_an_answer_in_parts_is_as_long_as_its_header_says(behind: list[bytes]) -> None:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "200006")])
        return [b"one", b"x" * 200_000, *behind]

    with HttpServer(application, "127.0.0.1", 0, threads=2) as server, Connection(server.port) as client:
        client.send(request("GET", "/") * 2)
        for _ in range(2):
            assert client.reply().body == b"one" + b"x" * 200_000 + b"two"


def test_an_answer_that_is_shorter_than_its_header_says_ends_its_connection() -> None:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "100")])
        return [b"one", b"two"]

    with HttpServer(application, "127.0.0.1", 0, threads=2) as server, Connection(server.port) as client:
        client.send(request("GET", "/"))
        with pytest.raises(EOFError):
            client.reply()


@pytest.mark.parametrize("level", ["", "&consistency=linearizable", "&consistency=bounded&max_staleness=60"])
def test_a_read_that_waits_for_its_turn_counts_once(tmp_path: Path, level: str) -> None:
    with ReplicatedStore(node_id="a", raft_address="127.0.0.1:0", bootstrap=True, data_dir=tmp_path) as store:
        store.set("long", LONG.decode())
        app = create_app(store, RestConfig())
        with HttpServer(app, "127.0.0.1", 0, threads=2, at_once=at_once) as server:
            before = store.metrics()
            assert ask(server.port, "GET", f"/cache/long?raw{level}").body == LONG
            batch = b'{"ops":[{"op":"get","key":"long"},{"op":"get","key":"none"}]}'
            assert ask(server.port, "POST", "/cache/_batch?" + level[1:], batch, JSON).status == 200
            after = store.metrics()
    assert [after[name] - before[name] for name in ("hits_total", "misses_total")] == [2, 1]


def test_watches_begin_one_a_turn_and_nobody_waits_for_a_row_of_them(
    server: HttpServer, stored: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[str] = []
    service = reading_thread.ReadingChannel.service

    def noted(channel: Any) -> None:
        served.append(channel.requests[0].path)
        service(channel)

    monkeypatch.setattr(reading_thread.ReadingChannel, "service", noted)
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MIN", 0.05)
    monkeypatch.setattr(reading_thread, "_GIVEN_WAY_S_MAX", 0.05)
    stored.watching.feed.gone.append("old")
    keep_waiting(server, 60.0)
    line = server._servers[0].watches
    with ExitStack() as stack:
        watching = [stack.enter_context(Connection(server.port)) for _ in range(6)]
        for each in watching:
            each.send(request("GET", "/watch?since=old"))
        until(lambda: len(line) == 6, "they wait for their turns")
        reading = stack.enter_context(Connection(server.port)).send(request("GET", "/cache/long"))
        until(lambda: bool(server._servers[0].long), "it waits for its turn")
        assert ask(server.port, "GET", "/cache/short").status == 200 and "/watch" not in served
        served.clear()
        began_s = time.monotonic()
        keep_waiting(server, 0.0)
        assert ask(server.port, "GET", "/cache/short").status == 200
        assert reading.reply().status == 200
        assert [each.reply().status for each in watching] == [410] * 6
    assert time.monotonic() - began_s >= 6 * 0.05
    in_line = [path for path in served if path != "/cache/short"]
    assert sorted(in_line[:2]) == ["/cache/long", "/watch"] and in_line.count("/watch") == 6


def test_a_watch_that_waited_for_the_cluster_goes_on_in_its_line(server: HttpServer, stored: FakeStore) -> None:
    stored.watching.behind = True
    stored.watching.feed.gone.append("far")
    with Connection(server.port) as client:
        keep_waiting(server, 0.0)
        stored.blocked = threading.Event()
        client.send(request("GET", "/watch?since=far"))
        until(lambda: stored.waiting > 0, "it waits for a barrier")
        keep_waiting(server, 60.0)
        stored.blocked.set()
        until(lambda: bool(server._servers[0].watches), "it is in its line again")
        keep_waiting(server, 0.0)
        assert ask(server.port, "GET", "/cache/short").status == 200
        assert client.reply().status == 410
