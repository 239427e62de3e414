"""Every answer that leaves the HTTP server is measured, whoever has made it."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from rest.fake_store import FakeStore
from rest.wire import Connection, ask, request, until

from cacheflow.errors import NotCommitted
from cacheflow.rest import HttpServer, at_once, turn_away
from cacheflow.rest.app import RestApp

LARGE = b"x" * 50_000


@pytest.fixture
def server(app: RestApp) -> Iterator[HttpServer]:
    with HttpServer(
        app,
        "127.0.0.1",
        0,
        threads=2,
        at_once=at_once,
        turn_away=functools.partial(turn_away, app.services),
        note=app.services.times.note,
    ) as server:
        yield server


def counted(app: RestApp) -> dict[tuple[str, str], int]:
    return {
        (command, outcome): histogram.count
        for command, outcomes in app.services.times.times.by_command().items()
        for outcome, histogram in outcomes.items()
    }


def until_counted(app: RestApp, wanted: dict[tuple[str, str], int]) -> None:
    """A client may have its answer before that is counted."""
    until(lambda: counted(app) == wanted, f"{wanted} are counted")


def test_requests_count_by_route_and_by_what_was_answered(app: RestApp, server: HttpServer, store: FakeStore) -> None:
    assert ask(server.port, "PUT", "/cache/k", b"x").status == 201
    assert ask(server.port, "PUT", "/cache/large", LARGE).status == 201
    assert ask(server.port, "GET", "/cache/k").status == 200
    assert ask(server.port, "GET", "/cache/none").status == 404
    assert ask(server.port, "HEAD", "/cache/k").status == 200
    assert ask(server.port, "PUT", "/cache/k?ttl=x", b"x").status == 400
    assert ask(server.port, "GET", "/nodes/list").status == 200
    assert ask(server.port, "GET", "/livez").status == 200
    assert ask(server.port, "GET", "/no/such/route").status == 404
    store.failure = NotCommitted("x")
    assert ask(server.port, "PUT", "/cache/k", b"x").status == 503
    until_counted(
        app,
        {
            ("PUT /cache/{key}", "ok"): 2,
            ("GET /cache/{key}", "ok"): 2,
            ("HEAD /cache/{key}", "ok"): 1,
            ("PUT /cache/{key}", "refused"): 1,
            ("GET /nodes/list", "ok"): 1,
            ("GET /livez", "ok"): 1,
            ("unknown", "refused"): 1,
            ("PUT /cache/{key}", "error"): 1,
        },
    )


def test_what_never_comes_to_the_application_counts_too(app: RestApp, server: HttpServer) -> None:
    for _ in range(app.services.gate.waiting_max):
        app.services.gate.__enter__()
    assert ask(server.port, "PUT", "/cache/k", b"x").status == 503
    assert ask(server.port, "GET", "/cache/k", headers="Sec-Fetch-Site: cross-site\r\n").status == 403
    with Connection(server.port) as connection:
        assert connection.send(b"nonsense\r\n\r\n").reply().status == 400
    until_counted(
        app,
        {("PUT /cache/{key}", "error"): 1, ("GET /cache/{key}", "refused"): 1, ("unknown", "refused"): 1},
    )


def test_a_view_that_breaks_counts_once(
    app: RestApp, server: HttpServer, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.read_failure = RuntimeError("a defect")
    assert ask(server.port, "GET", "/cache/k").status == 500
    until_counted(app, {("GET /cache/{key}", "error"): 1})
    assert caplog.records


def test_an_application_that_raises_is_measured_and_logged_as_what_was_asked_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noted: list[tuple[str, str, int, float]] = []

    def broken(*_: object) -> list[bytes]:
        time.sleep(0.05)
        raise RuntimeError("a defect")

    caplog.set_level(logging.DEBUG, "cacheflow.access")
    with HttpServer(broken, "127.0.0.1", 0, threads=1, note=lambda *told: noted.append(told[:4])) as server:
        assert ask(server.port, "GET", "/boom").status == 500
        until(lambda: any(each.name == "cacheflow.access" for each in caplog.records), "it is logged")
    [(method, path, status, seconds)] = noted
    assert (method, path, status) == ("GET", "/boom", 500) and seconds >= 0.05
    [line] = [each.getMessage() for each in caplog.records if each.name == "cacheflow.access"]
    assert line.startswith("GET /boom: 500, ")


def test_a_write_is_timed_with_its_wait_and_kept_when_it_was_slow(
    app: RestApp, server: HttpServer, store: FakeStore
) -> None:
    store.slow_log.set_slow_ms(0)
    store.blocked = threading.Event()
    with Connection(server.port) as connection:
        connection.send(request("PUT", "/cache/some%20key", b"x"))
        until(lambda: store.waiting == 1, "the write waits")
        # Nothing is counted before it is answered.
        assert counted(app) == {}
        store.blocked.set()
        written = connection.reply()
        assert written.status == 201
        client = "{}:{}".format(*connection.socket.getsockname())
    until_counted(app, {("PUT /cache/{key}", "ok"): 1})
    [slow] = store.slow_log.latest()
    assert (slow.command, slow.key_bytes, slow.client) == ("PUT /cache/{key}", 8, client)
    assert slow.request_id == written.headers["x-request-id"]
    assert slow.seconds == app.services.times.times.histogram("PUT /cache/{key}").sum_s > 0


def test_the_time_that_a_client_takes_to_send_a_request_does_not_count(app: RestApp, server: HttpServer) -> None:
    data = request("PUT", "/cache/k", b"value")
    with Connection(server.port) as connection:
        connection.send(data[:-1])
        until(lambda: any(each.request is not None for each in server._channels()), "a part of it has come")
        [channel] = server._channels()
        channel.request.began_s = channel.request.arrived_s = time.monotonic() - 20
        connection.send(data[-1:])
        assert connection.reply().status == 201
    until_counted(app, {("PUT /cache/{key}", "ok"): 1})
    assert app.services.times.times.histogram("PUT /cache/{key}").sum_s < 15


def test_each_request_of_a_pipeline_has_a_time_of_its_own(app: RestApp, server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.send(b"".join(request("PUT", "/cache/k", LARGE if n % 3 == 2 else b"x") for n in range(9)))
        for _ in range(9):
            connection.reply()
    until_counted(app, {("PUT /cache/{key}", "ok"): 9})
