"""No request keeps the loop for long: the costliest of every command, by the calls of functions that a turn makes."""

from __future__ import annotations

import sys
from typing import cast

import pytest
from wire import memcached_client, resp_client
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.turns import Turns

from cacheflow.machine.deciding.field_decisions import BYTES_A_COMMAND, FIELD_DECISIONS, searched_bytes
from cacheflow.machine.language import commands
from cacheflow.machine.machine import CacheMachine
from cacheflow.node.proposals import BLOCK_COMMANDS_MAX
from cacheflow.node.recency import KEYS_MAX as KEYS_MAX_OF_USES
from cacheflow.rest.openapi import specification
from cacheflow.rest.request.context import RestConfig
from cacheflow.verbs import OPS_MAX
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.connection import _WITH_VALUE
from cacheflow.wire.memcached.meta.commands import META
from cacheflow.wire.memcached.text import COMMANDS
from cacheflow.wire.resp.scripting import caller
from cacheflow.wire.resp.session import KEYS_MAX, REMOVED_MAX, WATCHED_MAX, WRITES_MAX
from cacheflow.wire.resp.table import TABLE
from scripts.bench import requests

ITEMS = 60_000
# What one turn may call: ten thousand fields, or members, of a command take most of it, 60,000 keys would take more.
CALLS_MAX = 80_000
# What the machine may search for one entry: about 5 ms.
SEARCHED_MAX = 8 * 1024 * 1024
# What one may call that is about no hash and no set: 1,000 writes with keys and values, or 5,000 keys or channels looked up.
CALLS_OF_KEYS_MAX = 36_000
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


def searched_by(store: FakeStore, proposal: list[commands.Command]) -> int:
    """The bytes that the machine would search for the commands of ``proposal`` if it ran each of them now."""
    searched = 0
    for command in proposal:
        if command[0] in (commands.BATCH, commands.GUARDED):
            searched += searched_by(store, command[2])
        elif command[0] == commands.SET or command[0] in FIELD_DECISIONS:
            searched += searched_bytes(store.entry(command[1]), command)
    return searched


@pytest.mark.parametrize("name", sorted(name for name in RESP if TABLE[name.encode()].group in ("hash", "set")))
def test_what_is_proposed_together_is_a_few_ms_of_work_and_is_told_to_be(name: str) -> None:
    store = FakeStore()
    client = Client(resp_client.service(store).connection(resp_client.ignore))
    # Twice: once fields are new, and once they are there.
    for _ in range(2):
        store.held = True
        data = RESP[name]
        pieces = [data[start : start + RECEIVED] for start in range(0, len(data), RECEIVED)]
        while pieces or store.waiting:
            while pieces and client.transport.reading:
                client.send(pieces.pop(0))
            if not store.waiting:
                continue
            proposal, work = store.proposed[-store.waiting], store.works[-store.waiting]
            # What other commands before it have changed was on its way when its work was told.
            searched = searched_by(store, proposal)
            assert searched <= SEARCHED_MAX
            assert searched <= (work + len(proposal)) * BYTES_A_COMMAND
            store.release(1)
        store.held = False
        client.replies()


# What runs in the scripts' thread, which is none of the loop's.
IN_A_THREAD = {"eval", "eval_ro", "evalsha", "evalsha_ro"}


@pytest.mark.parametrize("name", sorted(RESP.keys() - IN_A_THREAD))
def test_no_command_of_redis_keeps_the_loop(store: FakeStore, name: str) -> None:
    turns = Turns()
    service = resp_client.service(store, slices=turns.slices)
    clients = [Client(service.connection(resp_client.ignore)) for _ in range(200 if name == "client" else 1)]
    limit = CALLS_MAX if TABLE[name.encode()].group in ("hash", "set") else CALLS_OF_KEYS_MAX
    assert longest_turn(turns, clients[0], store, RESP[name]) < limit


@pytest.mark.parametrize("name", sorted(MEMCACHED))
def test_no_command_of_memcached_keeps_the_loop(store: FakeStore, name: str) -> None:
    turns = Turns()
    client = Client(cast(Connection, memcached_client.port(store, slices=turns.slices).connect()))
    assert longest_turn(turns, client, store, MEMCACHED[name]) < CALLS_OF_KEYS_MAX


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
    told = (requests.MANY, requests.WRITTEN, requests.REMOVED, requests.SCRIPTED, requests.OPERATIONS)
    assert told == (KEYS_MAX, WRITES_MAX, REMOVED_MAX, caller.KEYS_MAX, OPS_MAX)
    assert WATCHED_MAX == WRITES_MAX


@pytest.mark.parametrize("name", ["mget", "exists", "touch", "del", "unlink", "mset", "msetnx", "config", "command"])
def test_a_larger_request_is_refused(name: str) -> None:
    larger = requests.resp(many=KEYS_MAX + 1, written=WRITES_MAX + 1, removed=REMOVED_MAX + 1)
    words = {"config": ["get", *["*"] * 127], "command": ["info", *["get"] * 127]}.get(name)
    data = larger[name] if words is None else requests.words(name, *words)
    client = resp_client.connect()
    assert b" has at most " in client.send(data)


def calls_of_an_entry(machine: CacheMachine, batch: list[commands.Command]) -> int:
    """Calls of functions that the machine makes to apply an entry of ``batch``."""
    made = 0
    payload = commands.encode_entry(1, [commands.encode_block(0, 0, 0, batch)])

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        machine.apply(machine.applied_index + 1, payload)
    finally:
        sys.setprofile(None)
    return made


def test_what_an_entry_brings_at_most_is_applied_in_some_milliseconds() -> None:
    machine = FakeStore().machine
    keys = [f"key:{number}" for number in range(BLOCK_COMMANDS_MAX)]
    for ttl_ms in (1000, 2000):
        made = calls_of_an_entry(machine, [commands.set_(key, b"value", 0, None, ttl_ms) for key in keys])
        assert made < 2 * CALLS_MAX


SETS = [commands.set_(f"new:{number}", b"value", 0) for number in range(OPS_MAX)]
SINGLE = {
    "a batch over HTTP": ([commands.batch(SETS)], 28 * OPS_MAX),
    "MSET": ([commands.batch(SETS[:WRITES_MAX], True)], 36 * WRITES_MAX),
    "EXEC": ([commands.guarded([], SETS[:WRITES_MAX])], 28 * WRITES_MAX),
    "DEL": ([commands.batch([commands.delete(f"key:{number}") for number in range(REMOVED_MAX)])], 16 * REMOVED_MAX),
    # The uses of earlier reads come in the same entry.
    "uses": ([commands.recency([(f"key:{number}", 1) for number in range(KEYS_MAX_OF_USES)])], 4000),
}


@pytest.mark.parametrize("policy", ["lru", "lfu"])
@pytest.mark.parametrize("name", SINGLE)
def test_the_entry_of_one_request_is_applied_in_few_steps(name: str, policy: str) -> None:
    store = FakeStore(max_items=3000)
    store.apply([commands.configure({"policy": policy})])
    # The cache is full: each new key evicts another.
    store.apply([commands.set_(f"old:{number}", b"value", 0) for number in range(1000)])
    store.apply([commands.set_(f"key:{number}", b"value", 0) for number in range(2000)])
    batch, most = SINGLE[name]
    assert calls_of_an_entry(store.machine, batch) < most
