"""Whatever a user sends who may only read, in whatever pieces: nothing changes, and a stranger reads nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from fakes.users import MemoryAccess
from wire.fake_store import START_MS, FakeStore
from wire.fake_transport import Client
from wire.resp_client import VALUE_BYTES_MAX, ignore, pack
from wire.turns import endless

from cacheflow.access.roles import Role
from cacheflow.access.users import Access
from cacheflow.machine.language import commands
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.connection import _WITH_VALUE, memcached_port
from cacheflow.wire.memcached.lines import STALE
from cacheflow.wire.memcached.meta.commands import META
from cacheflow.wire.memcached.text import COMMANDS
from cacheflow.wire.resp.service import RespService
from cacheflow.wire.resp.table import TABLE

TOKENS = {role: bytes([ord("a") + role]) * 30 for role in (Role.READ, Role.WRITE)}
# Enough for every command to come many times; a seed is one client's input.
SEEDS = 300
KEYS = ("a", "n", "stale", "absent")


def make_store() -> FakeStore:
    store = FakeStore()
    store.apply([commands.set_("a", b"text", 0), commands.set_("n", b"5", 0), commands.set_("stale", b"old", 0, STALE)])
    return store


def make_access() -> Access:
    return MemoryAccess(*((role.word, role, token) for role, token in TOKENS.items()))


def resp_input(source: random.Random) -> bytes:
    """Some requests in a row, most of them complete, in either spelling; rows of one command as often as mixed ones."""
    names = [name for name in TABLE if name not in (b"quit", b"auth", b"hello", b"reset")]
    words = [*KEYS, "1", "0", "EX", "10", "NX", "LIST", "GET", "*", "x" * 40]
    said = b""
    for _ in range(source.randrange(1, 12)):
        name = source.choice((source.choice(names), b"set", b"get", b"multi", b"exec"))
        name = name.upper() if source.random() < 0.8 else name
        count = max(0, abs(TABLE[name.lower()].arity) - 1 + source.choice((0, 0, 0, 1, -1)))
        arguments = [source.choice(words) for _ in range(count)]
        if arguments and source.random() < 0.8:
            arguments[0] = source.choice(KEYS)
        if source.random() < 0.1:
            said += b" ".join([name, *(word.encode() for word in arguments)]) + b"\r\n"
        else:
            said += pack(name, *arguments) * source.choice((1, 1, 1, 3))
    return said


def memcached_input(source: random.Random) -> bytes:
    """Some requests in a row, with values that look like requests and without their values."""
    names = [name.decode() for name in (*_WITH_VALUE, *COMMANDS, *META) if name != b"quit"]
    said = b""
    for _ in range(source.randrange(1, 12)):
        name, key = source.choice(names), source.choice(KEYS)
        quiet = source.choice(("", "", " noreply"))
        if name.encode() in _WITH_VALUE:
            value = source.choice(("1", "incr n 1\r\nmn", "x" * source.randrange(30)))
            size = source.choice((str(len(value)), str(len(value)), "many", "2"))
            line = (
                f"ms {key} {size}{source.choice(('', ' I C1', ' MA', ' T0'))}"
                if name == "ms"
                else f"{name} {key} 0 0 {size} 1{quiet}"
            )
            said += f"{line}\r\n{value}\r\n".encode()
        else:
            flags = " ".join(
                source.choice(("v", "c", "t", "q", "N30", "R30", "T30", "I", "D2")) for _ in range(source.randrange(3))
            )
            rest = source.choice((key, f"{key} 1", f"1 {key}", f"{key} {flags}", "", "0"))
            said += (
                f"{name} {rest}".rstrip().encode() + (quiet.encode() if name not in ("get", "gets") else b"") + b"\r\n"
            )
    return said


def resp_client(store: FakeStore) -> Client:
    wall = START_MS / 1000
    service = RespService(
        store, TABLE, access=make_access(), value_bytes_max=VALUE_BYTES_MAX, wall=lambda: wall, slices=endless()
    )
    return Client(service.connection(ignore))


def memcached_client(store: FakeStore) -> Client:
    wall = START_MS / 1000
    port = memcached_port(
        store, value_bytes_max=1000, access=make_access(), connections_max=8, wall_s=lambda: wall, slices=endless()
    )
    protocol = port.connect()
    assert isinstance(protocol, Connection)
    return Client(protocol)


def resp_auth(token: bytes) -> bytes:
    return pack("AUTH", token)


def memcached_auth(token: bytes) -> bytes:
    return b"set x 0 0 %d\r\nx %b\r\n" % (len(token) + 2, token)


Way = tuple[Callable[[FakeStore], Client], Callable[[bytes], bytes], Callable[[random.Random], bytes]]
WAYS: dict[str, Way] = {
    "resp": (resp_client, resp_auth, resp_input),
    "memcached": (memcached_client, memcached_auth, memcached_input),
}


def sent(way: Way, store: FakeStore, role: Role, seed: int) -> bytes:
    """Send the input of ``seed`` as a user of ``role``, whole and then in pieces; return the replies."""
    connect, auth, make = way
    source = random.Random(seed)
    data = make(source)
    replies = b""
    for size in (len(data), source.randrange(1, 40)):
        client = connect(store)
        if role != Role.NOBODY:
            assert client.send(auth(TOKENS[role])) in (b"+OK\r\n", b"STORED\r\n")
        for at in range(0, len(data), size):
            replies += client.send(data[at : at + size])
    return replies


def only_reads(command: commands.Command) -> bool:
    return command[0] == commands.GET or (command[0] == commands.GUARDED and all(map(only_reads, command[2])))


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_reader_sends_nothing_changes(way: str) -> None:
    changed = 0
    for seed in range(SEEDS):
        store = make_store()
        # Not a digest of all that a snapshot holds: a linearizable read is an entry of the log, and the log's index is in there.
        before = dict(store.machine.contents.raw)
        revision = store.machine.contents.revision
        sent(WAYS[way], store, Role.READ, seed)
        assert (store.machine.contents.revision, store.machine.contents.raw) == (revision, before), seed
        # Barriers, and reads at one moment, are entries too.
        assert all(only_reads(command) for proposal in store.proposed for command in proposal), seed
        sent(WAYS[way], store, Role.WRITE, seed)
        changed += store.machine.contents.raw != before
    # The same input is not harmless.
    assert changed > SEEDS / 4


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_stranger_sends_is_neither_read_nor_written(way: str) -> None:
    for seed in range(SEEDS):
        store = make_store()
        replies = sent(WAYS[way], store, Role.NOBODY, seed)
        assert store.proposed == [] and store.hits + store.misses == 0 and b"text" not in replies, seed
