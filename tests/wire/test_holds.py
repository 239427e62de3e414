"""No request keeps the loop for long: the costliest of every command, by the calls of functions that a turn makes."""

from __future__ import annotations

import sys
from typing import cast

import pytest
from wire import memcached_client, resp_client
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.turns import Turns

from cacheflow.machine.language import commands
from cacheflow.node.proposals import BLOCK_COMMANDS_MAX
from cacheflow.rest.openapi import specification
from cacheflow.rest.request.context import RestConfig
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.connection import _WITH_VALUE
from cacheflow.wire.memcached.meta.commands import META
from cacheflow.wire.memcached.text import COMMANDS
from cacheflow.wire.resp.session import KEYS_MAX, REMOVED_MAX, WATCHED_MAX, WRITES_MAX
from cacheflow.wire.resp.table import TABLE
from scripts.bench import requests

ITEMS = 60_000
# What one turn may call: 5,000 keys looked up at one moment take most of it, 60,000 keys would take three times as much.
CALLS_MAX = 80_000
# Pieces in which a socket's input comes.
RECEIVED = 16 * 1024

RESP = requests.resp()
MEMCACHED = requests.memcached()


@pytest.fixture(scope="module")
def store() -> FakeStore:
    filled = FakeStore()
    for start in range(0, ITEMS, 5000):
        filled.apply([commands.batch([commands.set_(f"key:{start + n}", b"value", 0) for n in range(5000)])])
    return filled


def longest_turn(turns: Turns, client: Client, store: FakeStore, data: bytes) -> int:
    """The most calls of a turn while a client sends ``data`` and is answered; what the machine does is not counted."""
    store.held = True
    for start in range(0, len(data), RECEIVED):
        turns.turn(lambda piece=data[start : start + RECEIVED]: client.send(piece))  # type: ignore[misc]
        while store.waiting or not client.transport.reading:
            if b"flush" in data:
                # The next test needs the items.
                store._waiting.clear()
                break
            store.held = False
            store.release()
            store.held = True
            before = turns.made
            turns.until_idle()
            if not store.waiting and turns.made == before:
                break
        turns.until_idle()
    store.held = False
    client.replies()
    return turns.longest


# What runs in the scripts' thread, which is none of the loop's.
IN_A_THREAD = {"eval", "eval_ro", "evalsha", "evalsha_ro"}


@pytest.mark.parametrize("name", sorted(RESP.keys() - IN_A_THREAD))
def test_no_command_of_redis_keeps_the_loop(store: FakeStore, name: str) -> None:
    turns = Turns()
    service = resp_client.service(store, slices=turns.slices)
    clients = [Client(service.connection(resp_client.ignore)) for _ in range(200 if name == "client" else 1)]
    assert longest_turn(turns, clients[0], store, RESP[name]) < CALLS_MAX


@pytest.mark.parametrize("name", sorted(MEMCACHED))
def test_no_command_of_memcached_keeps_the_loop(store: FakeStore, name: str) -> None:
    turns = Turns()
    client = Client(cast(Connection, memcached_client.port(store, slices=turns.slices).connect()))
    assert longest_turn(turns, client, store, MEMCACHED[name]) < 3 * CALLS_MAX


@pytest.mark.parametrize("front", ["memcached", "resp"])
def test_many_clients_with_a_long_request_each_do_not_keep_the_loop_together(store: FakeStore, front: str) -> None:
    turns = Turns()
    keys = [f"long:{number}" for number in range(250)]
    # Together more than is answered as a row.
    store.apply([commands.batch([commands.set_(key, b"x" * 5_000, 0) for key in keys])])
    if front == "resp":
        service = resp_client.service(store, slices=turns.slices)
        clients = [Client(service.connection(resp_client.ignore)) for _ in range(64)]
        data = requests.words("MGET", *keys)
    else:
        port = memcached_client.port(store, connections_max=64, slices=turns.slices)
        clients = [Client(cast(Connection, port.connect())) for _ in range(64)]
        data = f"gets {' '.join(keys)}\r\n".encode()

    def all_send() -> None:
        for client in clients:
            client.protocol.data_received(data)

    turns.turn(all_send)
    turns.until_idle()
    assert len({client.replies() for client in clients}) == 1
    # A slice is 4,000 calls; what begins in it takes some thousand more.
    assert turns.longest < CALLS_MAX // 4


def test_every_command_and_operation_is_asked() -> None:
    assert {name.decode() for name in TABLE} == RESP.keys()
    assert {name.decode() for name in (*COMMANDS, *META, *_WITH_VALUE)} == MEMCACHED.keys()
    paths = specification(RestConfig(access=None))["paths"]
    methods = ("get", "put", "post", "delete", "patch")
    told = {f"{method.upper()} {path}" for path, each in paths.items() for method in each if method in methods}
    assert told == requests.http().keys()


def test_the_requests_are_as_large_as_they_may_be() -> None:
    assert (requests.MANY, requests.WRITTEN, requests.REMOVED) == (KEYS_MAX, WRITES_MAX, REMOVED_MAX)
    assert WATCHED_MAX == 2 * WRITES_MAX


@pytest.mark.parametrize("name", ["mget", "exists", "touch", "del", "unlink", "mset", "msetnx", "config", "command"])
def test_a_larger_request_is_refused(name: str) -> None:
    larger = requests.resp(many=KEYS_MAX + 1, written=WRITES_MAX + 1, removed=REMOVED_MAX + 1)
    words = {"config": ["get", *["*"] * 127], "command": ["info", *["get"] * 127]}.get(name)
    data = larger[name] if words is None else requests.words(name, *words)
    client = resp_client.connect()
    assert b" has at most " in client.send(data)


def test_what_an_entry_brings_at_most_is_applied_in_some_milliseconds() -> None:
    machine = FakeStore().machine
    keys = [f"key:{number}" for number in range(BLOCK_COMMANDS_MAX)]
    made: int

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    for ttl_ms in (1000, 2000):
        block = commands.encode_block(0, 0, 0, [commands.set_(key, b"value", 0, None, ttl_ms) for key in keys])
        made = 0
        sys.setprofile(count)
        machine.apply(machine.applied_index + 1, commands.encode_entry(1, [block]))
        sys.setprofile(None)
        assert made < 2 * CALLS_MAX
