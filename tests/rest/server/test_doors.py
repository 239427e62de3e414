"""What a web browser may send here, and what its pages may read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.users import access_of
from rest.fake_store import FakeStore
from rest.wire import Connection

from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.server.doors import Doors
from cacheflow.rest.server.serving import HttpServer

HOST = "127.0.0.1:8080"
HOSTS = ["node.example.com"]
ORIGINS = ["https://app.example.com"]


def refusal(host: str = HOST, path: str = "/cache/k", **headers: str) -> str:
    given = {"HOST": host, **{name.upper(): value for name, value in headers.items()}}
    return Doors(HOSTS, ORIGINS).refusal(given, path)


@pytest.mark.parametrize(
    "host",
    [
        HOST,
        "127.0.0.1",
        "[::1]:8080",
        "10.0.0.7:8080",
        "localhost",
        "LocalHost:8080",
        "a.localhost",
        "Node.example.com:1",
        "localhost.",
        "node.example.com.:80",
    ],
)
def test_own_names_and_addresses_are_let_in(host: str) -> None:
    assert refusal(host) == ""
    assert refusal(host, origin=f"http://{host}") == ""
    assert refusal(host, origin=f"http://{host}", sec_fetch_site="same-origin") == ""
    assert refusal(host, sec_fetch_site="none") == ""


@pytest.mark.parametrize(
    "host", ["evil.example.com", "evil.example.com:8080", "", "127.0.0.1.evil.com", "localhost.com"]
)
def test_a_name_that_is_not_this_node_s_is_refused_unless_all_are_let_in(host: str) -> None:
    assert "--allow-host" in refusal(host)
    assert Doors(None).refusal({"HOST": host}, "/") == ""


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example.com",
        "null",
        "http://127.0.0.1:8081",
        "http://127.0.0.1",
        "https://app.example.com.evil.com",
        "",
    ],
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    assert "--allow-origin" in refusal(origin=origin)
    assert "--allow-origin" in refusal(origin=origin, sec_fetch_site="same-origin")
    assert Doors(HOSTS, ["*"]).refusal({"HOST": HOST, "ORIGIN": origin or "null"}, "/") == ""


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_a_page_of_another_site_loads_without_an_origin_is_refused(site: str) -> None:
    assert "--allow-origin" in refusal(sec_fetch_site=site)
    navigation = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert "--allow-origin" in refusal(**navigation), "a link to a key"
    assert refusal(path="/", **navigation) == "", "a link to the page"
    assert "--allow-origin" in refusal(path="/", **{**navigation, "sec_fetch_dest": "iframe"})


def test_an_allowed_site_is_let_in_and_may_read() -> None:
    doors = Doors(HOSTS, ORIGINS)
    headers = {"HOST": HOST, "ORIGIN": "https://app.example.com", "SEC_FETCH_SITE": "cross-site"}
    assert doors.refusal(headers, "/cache/k") == ""
    told = dict(doors.answer_headers(headers, "GET"))
    assert told["Access-Control-Allow-Origin"] == "https://app.example.com"
    asks = {**headers, "ACCESS_CONTROL_REQUEST_METHOD": "PUT", "ACCESS_CONTROL_REQUEST_HEADERS": "content-type"}
    told = dict(doors.answer_headers(asks, "OPTIONS"))
    assert "PUT" in told["Access-Control-Allow-Methods"] and told["Access-Control-Allow-Headers"] == "content-type"
    assert doors.answer_headers({"ORIGIN": f"http://{HOST}"}, "GET") == [("Vary", "Origin")], (
        "the same site needs no leave"
    )
    assert Doors(HOSTS).answer_headers({"ORIGIN": f"http://{HOST}"}, "GET") == []


def test_a_port_that_goes_without_saying_may_be_said() -> None:
    assert refusal("node.example.com:80", origin="http://node.example.com") == ""
    assert refusal("node.example.com", origin="http://node.example.com:80") == ""
    assert refusal("node.example.com:443", origin="https://node.example.com") == ""
    assert "--allow-origin" in refusal("node.example.com:80", origin="https://node.example.com")
    assert "--allow-origin" in refusal("node.example.com", origin="http://node.example.com:8080")


def test_host_headers_that_were_let_in_are_remembered_up_to_a_bound() -> None:
    doors = Doors(None)
    for number in range(1000):
        assert doors.refusal({"HOST": f"name-{number}"}, "/") == ""
    assert len(doors.known) == 256


@pytest.fixture
def server(app: RestApp) -> Iterator[HttpServer]:
    doors = Doors(HOSTS, ORIGINS)
    with HttpServer(app, "127.0.0.1", 0, refusal_headers=app.services.raft_headers, doors=doors) as server:
        yield server


def ask(server: HttpServer, request: str) -> tuple[int, str]:
    with Connection(server.port) as connection:
        connection.socket.sendall(request.replace("\n", "\r\n").encode())
        reply = connection.reply()
        return reply.status, reply.body.decode()


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ("GET /livez HTTP/1.1\n\n", 400, "needs a Host header"),
        ("GET /livez HTTP/1.1\nHost: a\nHost: a\n\n", 400, "one host and port"),
        ("GET /livez HTTP/1.1\nHost: a/b\n\n", 400, "one host and port"),
        ("GET /livez\n\n", 400, "HTTP/1.1 and HTTP/1.0"),
        ("GET /livez HTTP/2.0\nHost: localhost\n\n", 400, "HTTP/1.1 and HTTP/1.0"),
        ("GET /livez HTTP/1.0\n\n", 200, "ok"),
        ("GET /livez HTTP/1.1\nHost: evil.example.com\n\n", 403, "not called 'evil.example.com'"),
        ("GET /livez HTTP/1.1\nHost: localhost\nOrigin: http://evil.example.com\n\n", 403, "may not call this node"),
        (
            'POST /cache/_batch HTTP/1.1\nHost: localhost\nContent-Type: text/plain\nContent-Length: 10\n\n{"ops":[]}',
            415,
            "Content-Type: application/json",
        ),
    ],
)
def test_the_server_looks_before_anybody_is_served(server: HttpServer, request_: str, status: int, detail: str) -> None:
    got, said = ask(server, request_)
    assert got == status and detail in said, (got, said)


def test_a_preflight_of_an_allowed_site_is_answered(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.socket.sendall(
            b"OPTIONS /cache/k HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.com\r\n"
            b"Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: content-type\r\n\r\n"
        )
        reply = connection.reply()
        assert reply.status == 204 and reply.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "PUT" in reply.headers["access-control-allow-methods"]


def test_an_answer_without_a_body_keeps_its_connection(server: HttpServer) -> None:
    host = b"Host: localhost\r\n"
    with Connection(server.port) as connection:
        connection.socket.sendall(
            b"PUT /cache/k HTTP/1.1\r\n" + host + b"Content-Length: 1\r\n\r\nx"
            b"GET /cache/k HTTP/1.1\r\n" + host + b'If-None-Match: "1"\r\n\r\n'
            b"OPTIONS /cache/k HTTP/1.1\r\n" + host + b"\r\nGET /livez HTTP/1.1\r\n" + host + b"\r\n"
        )
        assert [connection.reply().status for _ in range(4)] == [201, 304, 204, 200]
        connection.socket.sendall(
            b"GET /cache/k HTTP/1.1\r\n" + host + b'If-None-Match: "1"\r\nConnection: close\r\n\r\n'
        )
        assert connection.reply().status == 304 and connection.is_closed()


def test_a_page_of_an_allowed_site_sees_why_its_request_is_refused(server: HttpServer) -> None:
    with Connection(server.port) as connection:
        connection.socket.sendall(
            b"PUT /cache/k HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.com\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        reply = connection.reply()
        assert reply.status == 413 and reply.headers["access-control-allow-origin"] == "https://app.example.com"


def test_a_preflight_needs_no_token(store: FakeStore) -> None:
    app = create_app(store, RestConfig(access=access_of(b"a token of many letters")))
    with HttpServer(app, "127.0.0.1", 0, doors=Doors(None, ORIGINS)) as server:
        asks = "Origin: https://app.example.com\nAccess-Control-Request-Method: PUT\n"
        assert ask(server, f"OPTIONS /cache/k HTTP/1.1\nHost: h\n{asks}\n")[0] == 204
        assert ask(server, "OPTIONS /cache/k HTTP/1.1\nHost: h\n\n")[0] == 401
        assert ask(server, "GET /cache/k HTTP/1.1\nHost: h\nOrigin: https://app.example.com\n\n")[0] == 401
