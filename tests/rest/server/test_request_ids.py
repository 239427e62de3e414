"""Every answer names its request, and so does what the log says while the request is served."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from fakes.embedded import QUICK
from rest.fake_store import FakeStore
from rest.wire import Connection, Reply, ask, request, until

from cacheflow.cli.launcher import free_ports
from cacheflow.rest import turn_away
from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.request.auth import NEEDS
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.request_ids import id_of, served, served_ids
from cacheflow.rest.server.serving import HttpServer
from cacheflow.store import ReplicatedStore

JSON = "Content-Type: application/json\r\n"
NEW = re.compile(r"[0-9a-f]{10}-[0-9]+")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(params=["in threads", "at once"])
def server(app: RestApp, request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    short = at_once if request.param == "at once" else lambda *_: False
    with HttpServer(app, "127.0.0.1", 0, refusal_headers=app.services.raft_headers, at_once=short) as server:
        yield server


@pytest.mark.parametrize(
    "given", ["a", "x" * 128, "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "a/b+c==", "A.b_c:d"]
)
def test_a_harmless_id_is_the_clients_own(given: str) -> None:
    assert id_of(given) == given


@pytest.mark.parametrize(
    "given", [None, "", "x" * 129, "a b", "a, b", "a\nb", "a\x1b[2J", "caf\xe9", '"a"', "<a>", "a;b", "$(a)"]
)
def test_any_other_is_replaced_by_a_new_one_that_nobody_else_has(given: str | None) -> None:
    assert NEW.fullmatch(id_of(given)) and id_of(given) != id_of(given)


# (A watch needs a node, see below.)
@pytest.mark.parametrize("route", [route for route in NEEDS if route != "GET /watch"])
def test_every_answer_of_every_route_carries_the_id(server: HttpServer, route: str) -> None:
    method, path = route.split(" ")
    path = path.replace("{key}", "k").replace("{id}", "nobody-here")
    for body in (b"", b"{}"):
        # Refused by the store, by a view, or served: whatever it is.
        told = ask(server.port, method, path, body, f"{JSON}X-Request-Id: of-{method}\r\n")
        assert told.headers["x-request-id"] == f"of-{method}", told
        assert NEW.fullmatch(ask(server.port, method, path, body, JSON).headers["x-request-id"])


def raw(server: HttpServer, data: bytes) -> Reply:
    with Connection(server.port) as connection:
        return connection.send(data).reply()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /cache/a#b HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nOrigin: http://elsewhere.test\r\n\r\n", 403),
        (b"PUT /cache/k HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n", 404),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n", 405),
        (b"OPTIONS /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n", 204),
    ],
)
def test_so_does_what_is_refused_before_the_application_sees_it(server: HttpServer, data: bytes, status: int) -> None:
    told = raw(server, data)
    assert (told.status, told.headers["x-request-id"]) == (status, "mine")


def test_a_request_whose_header_never_came_gets_a_new_one(server: HttpServer) -> None:
    told = raw(server, b"GET /livez HTTP/1.1\r\nX-Request-Id: " + b"x" * 100_000)
    assert told.status == 431 and NEW.fullmatch(told.headers["x-request-id"])


def test_an_id_given_twice_is_none(server: HttpServer) -> None:
    told = ask(server.port, "GET", "/livez", headers="X-Request-Id: a\r\nX-Request-Id: b\r\n")
    assert NEW.fullmatch(told.headers["x-request-id"])


def test_each_request_of_a_connection_has_its_own(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        ids = [connection.send(request("GET", "/cache/k")).reply().headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3


def test_an_answer_without_a_body_has_it_and_keeps_the_connection(server: HttpServer) -> None:
    ask(server.port, "PUT", "/cache/k", b"v")
    with Connection(server.port) as connection:
        told = connection.send(request("GET", "/cache/k", headers='If-None-Match: "1"\r\nX-Request-Id: a\r\n')).reply()
        assert (told.status, told.headers["x-request-id"]) == (304, "a")
        assert connection.send(request("GET", "/cache/k")).reply().status == 200


def test_a_long_answer_has_it(server: HttpServer, store: FakeStore) -> None:
    ask(server.port, "PUT", "/cache/long", b"v" * 99_000)
    told = ask(server.port, "GET", "/cache/long?raw", headers="X-Request-Id: a\r\n")
    assert told.headers["x-request-id"] == "a" and told.body == b"v" * 99_000


def test_a_write_that_is_turned_away_has_it(app: RestApp) -> None:
    for _ in range(app.services.gate.waiting_max):
        app.services.gate.enter()
    with HttpServer(app, "127.0.0.1", 0, turn_away=functools.partial(turn_away, app.services)) as server:
        told = ask(server.port, "PUT", "/cache/k", b'{"value": 1}', f"{JSON}X-Request-Id: a\r\n")
    assert (told.status, told.headers["x-request-id"], told.json["status"]) == (503, "a", 503)


def test_a_watch_names_it_when_it_begins() -> None:
    (raft_port,) = free_ports(1)
    with (
        ReplicatedStore(raft_address=f"127.0.0.1:{raft_port}", persistence=False, bootstrap=True, **QUICK) as store,
        HttpServer(create_app(store, RestConfig()), "127.0.0.1", 0) as server,
        Connection(server.port) as client,
    ):
        store.wait_ready(20)
        told = client.send(request("GET", "/watch", headers="X-Request-Id: a\r\n")).reply()
        assert (told.status, told.headers["x-request-id"]) == (200, "a")
        told = ask(server.port, "GET", "/watch?since=nowhere", headers="X-Request-Id: b\r\n")
        assert (told.status, told.headers["x-request-id"]) == (400, "b")


# In the log --------------------------------------------------------------------------------------------------------------


class Ids(logging.Handler):
    """Notes which request each line is about."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, tuple[str, str]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.getMessage(), served_ids()))


@pytest.fixture
def ids() -> Iterator[Ids]:
    handler, root = Ids(), logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


def test_a_fault_of_a_view_is_logged_under_the_id_and_the_trace(server: HttpServer, store: FakeStore, ids: Ids) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    store.nodes = broken  # type: ignore[method-assign,assignment]
    traced = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"
    told = ask(server.port, "GET", "/nodes/list", headers=f"X-Request-Id: a\r\n{traced}")
    assert (told.status, told.headers["x-request-id"]) == (500, "a")
    [(line, found)] = [(line, found) for line, found in ids.told if "failed" in line]
    assert found == ("a", TRACE) and json.loads(told.body)["incident"] in line


def test_what_fails_behind_the_application_is_answered_and_logged_under_the_same_id(store: FakeStore, ids: Ids) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    with HttpServer(broken, "127.0.0.1", 0) as server:  # type: ignore[arg-type]
        told = ask(server.port, "GET", "/x", headers="X-Request-Id: a\r\n")
    assert (told.status, told.headers["x-request-id"]) == (500, "a")
    assert [found for line, found in ids.told if "Exception while serving" in line] == [("a", "")]


@pytest.mark.parametrize(
    ("given", "trace_id"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-what-comes-later", TRACE),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}\n-00f067aa0ba902b7-01", ""),
        ("", ""),
    ],
)
def test_a_trace_id_is_taken_from_a_well_formed_traceparent_alone(given: str, trace_id: str) -> None:
    served.request = SimpleNamespace(id="a", headers={"TRACEPARENT": given})
    try:
        assert served_ids() == ("a", trace_id)
    finally:
        served.request = None
    assert served_ids() == ("", "")


def test_no_request_is_named_after_it_was_served(server: HttpServer, ids: Ids) -> None:
    ask(server.port, "PUT", "/cache/k", b"v", "X-Request-Id: a\r\n")
    server.stop()
    logging.getLogger("cacheflow").warning("behind it")
    assert ids.told[-1] == ("behind it", ("", ""))


# The access log ----------------------------------------------------------------------------------------------------------


def test_at_the_level_debug_each_answer_is_a_line_with_its_fields(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cacheflow.access")

    def lines() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "cacheflow.access"]

    asked = [
        ("PUT", "/cache/a%C3%A9?ttl=5", b"secret"),
        ("GET", "/cache/a%C3%A9?raw", b""),
        ("HEAD", "/cache/a%C3%A9?raw", b""),
        ("GET", "/cache/a#b", b""),
    ]
    for number, (method, target, body) in enumerate(asked, 1):
        ask(server.port, method, target, body)
        # The client may have its answer before the line is there, and another thread serves the next one.
        until(lambda: len(lines()) == number, "the answer is logged")  # noqa: B023 - called at once
    server.stop()
    fields = [record.fields for record in lines()]  # type: ignore[attr-defined]
    assert [(each["method"], each["target"], each["status"]) for each in fields] == [
        ("PUT", "/cache/a%C3%A9?ttl=5", 201),
        ("GET", "/cache/a%C3%A9?raw", 200),
        ("HEAD", "/cache/a%C3%A9?raw", 200),
        ("GET", "/cache/a#b", 400),
    ]
    assert [each["body_bytes"] for each in fields][1:3] == [6, 0]
    assert all(each["client"] == "127.0.0.1" and each["took_ms"] >= 0 for each in fields)
    assert "secret" not in caplog.text


def test_at_any_other_level_there_is_none(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cacheflow.access")
    ask(server.port, "GET", "/cache/k")
    server.stop()
    assert not caplog.records
