"""Requests over memcached's protocol are counted once each, under their command and by what happened, and timed."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.measured import Clock, counted
from wire.memcached_client import port

from cacheflow import values
from cacheflow.errors import NotCommitted
from cacheflow.machine.language import commands
from cacheflow.wire.arrivals import Arrival
from cacheflow.wire.connection import Connection
from cacheflow.wire.port import WirePort

# Requests, and what they count as.
REQUESTS = {
    b"get k\r\n": ("get", "ok"),
    b"get none\r\n": ("get", "ok"),
    b"get k none kk\r\n": ("get", "ok"),
    b"get h\r\n": ("get", "refused"),
    b"get k h\r\n": ("get", "refused"),
    b"get " + b"x" * 251 + b"\r\n": ("get", "refused"),
    b"gets k\r\n": ("gets", "ok"),
    b"gat 100 k none\r\n": ("gat", "ok"),
    b"set k 0 0 2\r\n-1\r\n": ("set", "ok"),
    b"set k 0 0 2 noreply\r\n-1\r\n": ("set", "ok"),
    b"set k x 0 2\r\n-1\r\n": ("set", "refused"),
    b"set k 0 0 1001\r\n%b\r\n" % (b"x" * 1001): ("set", "refused"),
    b"add k 0 0 1\r\nx\r\n": ("add", "ok"),
    b"incr text 1\r\n": ("incr", "refused"),
    b"delete none\r\n": ("delete", "ok"),
    b"mg k v\r\n": ("mg", "ok"),
    b"mg none v q\r\n": ("mg", "ok"),
    b"ms k 2\r\n-1\r\n": ("ms", "ok"),
    b"md none q\r\n": ("md", "ok"),
    b"mn\r\n": ("mn", "ok"),
    b"version\r\n": ("version", "ok"),
    b"stats\r\n": ("stats", "ok"),
    b"nonsense with words\r\n": ("unknown", "refused"),
}


def filled() -> FakeStore:
    store = FakeStore()
    store.apply([commands.set_(key, b"word", 0) for key in ("k", "kk", "text")])
    store.apply([commands.set_fields("h", values.HASH, [b"f", b"v"], 1000)])
    return store


def client_of(service: WirePort) -> Client:
    protocol = service.connect()
    assert isinstance(protocol, Connection)
    return Client(protocol)


@settings(max_examples=150, deadline=None)
@given(
    said=st.lists(st.sampled_from(list(REQUESTS)), max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=4),
    linearizable=st.booleans(),
    held=st.booleans(),
)
def test_however_requests_arrive_each_counts_once(
    said: list[bytes], cuts: list[int], linearizable: bool, held: bool
) -> None:
    store = filled()
    service = port(store)
    client = client_of(service)
    if linearizable:
        client.send(b"consistency linearizable\r\n")
    before = Counter(counted(service.times))
    store.held = held
    data = b"".join(said)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        client.send(data[start:end])
    while store.release():
        pass
    assert Counter(counted(service.times)) - before == Counter(REQUESTS[request] for request in said)


def test_gets_of_several_clients_that_come_together_count_as_well() -> None:
    store = filled()
    service = port(store)
    clients = [client_of(service) for _ in range(3)]
    arrived: list[Arrival] = [(client.protocol, b"get k\r\n", client.transport) for client in clients]
    store.slow_log.set_slow_ms(0)
    assert service.answer_many(arrived) == []
    assert counted(service.times) == {("get", "ok"): 3}
    [slow] = store.slow_log.latest()
    assert (slow.front, slow.command, slow.requests, slow.client) == ("memcached", "get", 3, "")


@pytest.mark.parametrize(
    "said", [b"set k 0 0 1\r\nx\r\n", b"set k 0 0 1 noreply\r\nx\r\n", b"incr n 1\r\n", b"ms k 1\r\nx\r\n"]
)
def test_what_was_not_committed_is_an_error_also_of_who_wants_no_reply(said: bytes) -> None:
    store = filled()
    store.failure = NotCommitted("x")
    service = port(store)
    client_of(service).send(said)
    assert counted(service.times) == {(said.split()[0].decode(), "error"): 1}


@pytest.mark.parametrize("said", [b"get k\r\n", b"get k kk\r\n", b"gets k\r\n", b"mg k v\r\n"])
def test_a_read_of_a_node_that_may_not_be_read_is_an_error(said: bytes) -> None:
    store = filled()
    store.readable = False
    service = port(store)
    assert client_of(service).send(said).startswith(b"SERVER_ERROR not ready")
    assert counted(service.times) == {(said.split()[0].decode(), "error"): 1}


def test_a_get_whose_barrier_fails_is_an_error() -> None:
    store = filled()
    service = port(store)
    client = client_of(service)
    client.send(b"consistency linearizable\r\n")
    store.failure = NotCommitted("x")
    assert client.send(b"get k kk\r\n").startswith(b"SERVER_ERROR not committed")
    assert counted(service.times) == {("consistency", "ok"): 1, ("get", "error"): 1}


def test_the_request_that_shows_a_token_is_no_set() -> None:
    service = port(filled(), token=b"a token of many letters")
    client = client_of(service)
    assert client.send(b"set x 0 0 5\r\nx y z\r\n").startswith(b"CLIENT_ERROR")
    assert client.send(b"set x 0 0 25\r\nx a token of many letters\r\n") == b"STORED\r\n"
    assert counted(service.times) == {("auth", "refused"): 1, ("auth", "ok"): 1}


@pytest.mark.parametrize(
    ("said", "command", "key_bytes", "requests"),
    [
        (b"set key 0 0 1\r\nx\r\n", "set", 3, 1),
        (b"gat 100 keys k\r\n", "gat", 4, 1),
        (b"delete ab\r\ndelete abc\r\n", "delete", 2, 2),
        (b"md abcde\r\n", "md", 5, 1),
        (b"flush_all\r\n", "flush_all", None, 1),
    ],
)
def test_a_slow_request_is_kept_without_its_key_and_its_value(
    said: bytes, command: str, key_bytes: int | None, requests: int
) -> None:
    store = filled()
    service = port(store)
    clock = service.times.clock = Clock()
    store.held = True
    client = client_of(service)
    client.send(said)
    clock.now_s += 0.0625
    store.release()
    [slow] = store.slow_log.latest()
    assert (slow.command, slow.key_bytes, slow.requests, slow.seconds) == (command, key_bytes, requests, 0.0625)


def test_gets_that_are_answered_at_once_may_be_slow_too() -> None:
    store = filled()
    store.slow_log.set_slow_ms(0)
    client = client_of(port(store))
    client.send(b"get k\r\n")
    client.send(b"get kk\r\nget k\r\n")
    client.send(b"get none k\r\n")
    client.send(b"get kk\r\nversion\r\n")
    assert [(each.command, each.key_bytes, each.requests) for each in reversed(store.slow_log.latest())] == [
        ("get", 1, 1),
        ("get", 2, 2),
        ("get", 4, 1),
        ("get", 2, 1),
        ("version", None, 1),
    ]
