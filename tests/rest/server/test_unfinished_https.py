"""Clients that begin long bodies over HTTPS: they count, wait and end as over plain HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.certificates import Authority
from rest.fake_store import FakeStore
from rest.server.test_https import Secured
from rest.wire import request, until

from cacheflow.net import unfinished
from cacheflow.net.tls.handshakes import Handshakes
from cacheflow.net.unfinished import Unfinished
from cacheflow.rest.app import create_app
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.request.waiting import at_once
from cacheflow.rest.server.serving import TLS_ONLY, HttpServer

MIB = 1024 * 1024
PUT = request("PUT", "/cache/k", b"x" * 900_000)


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("uploads") / "ca")


@pytest.fixture
def budget() -> Unfinished:
    return Unfinished(MIB)


@pytest.fixture
def server(store: FakeStore, authority: Authority, budget: Unfinished) -> Iterator[HttpServer]:
    handshakes = Handshakes(authority.certificates())
    handshakes.start()
    secure = handshakes.secure("http", TLS_ONLY)
    store.value_bytes_max = MIB
    app = create_app(store, RestConfig())
    with HttpServer(app, "127.0.0.1", 0, threads=4, at_once=at_once, unfinished=budget, secure=secure) as server:
        yield server
    handshakes.stop()


def test_uploads_end_one_after_the_other(
    server: HttpServer, authority: Authority, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 60.0)

    def upload(_: int) -> int:
        with Secured(server.port, authority) as client:
            return client.send(PUT).reply().status

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(upload, range(16))) == [200] * 15 + [201]
    until(lambda: budget.bytes == budget._waiting == 0, "all are answered")
    assert budget.ended == 0


def test_the_silent_are_ended_and_others_go_on(
    server: HttpServer, authority: Authority, budget: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SILENT_S", 0.5)
    halves = [Secured(server.port, authority) for _ in range(4)]
    for half in halves:
        threading.Thread(target=half.send, args=(PUT[:600_000],), daemon=True).start()
    until(lambda: budget.full, "there is more than may be")
    with Secured(server.port, authority) as client:
        assert client.send(PUT).reply().status == 201
    until(lambda: budget.ended > 0 and not budget.full, "they are ended")
    for half in halves:
        half.socket.close()
    until(lambda: budget.bytes == 0, "nobody is there any more")
