"""CLIENT LIST and CLIENT KILL, and the figures that tools read."""

from __future__ import annotations

import re

import pytest
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, ignore, line, lines, pack, service

from cacheflow.machine.language import commands as c


def two_clients(store: FakeStore | None = None) -> tuple[Client, Client]:
    shared = service(FakeStore() if store is None else store)
    return Client(shared.connection(ignore)), Client(shared.connection(ignore))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (line("PING"), "ping"),
        (line("CLIENT SETNAME x"), "client|setname"),
        (line("object encoding a"), "object|encoding"),
        (line("Config ResetStat"), "config|resetstat"),
        (line("GET a"), "get"),
        (line("GET a") * 3, "get"),
        (line("SET a 1"), "set"),
        (line("SET a 1") * 3, "set"),
        (line("SET a 1 EX 10"), "set"),
        (line("SET a 1") + line("INCR a"), "incr"),
        (line("PING") + line("Del a"), "del"),
        (line("SET a 1") + line("GET a"), "get"),
        (line("PING") + line("CLIENT NOPE"), "client"),
        (line("PING") + line("NOPE"), "ping"),
        (line("MULTI") + line("STRLEN a"), "strlen"),
    ],
)
def test_a_client_is_shown_with_its_latest_command(said: bytes, shown: str) -> None:
    asked, asking = two_clients()
    asked.send(line("TIME"))
    asked.send(said)
    told = asking.send(line("CLIENT LIST")).decode()
    assert re.findall(r" cmd=(\S*) ", told) == [shown, "client|list"]


@pytest.mark.parametrize(
    "how", ["ID 1", "ID 1 TYPE normal", "TYPE normal", "USER default SKIPME yes", "ADDR ?:0 LADDR ?:0"]
)
def test_a_client_is_ended_and_the_one_who_asks_is_spared(how: str) -> None:
    killed, asking = two_clients()
    assert asking.send(line(f"CLIENT KILL {how}")) == b":1\r\n"
    assert killed.closed and not asking.closed and asking.send(line("PING")) == b"+PONG\r\n"


@pytest.mark.parametrize("how", ["ID 2 SKIPME no", "?:0"])
def test_who_ends_itself_has_the_answer_first(how: str) -> None:
    _, asking = two_clients()
    assert asking.send(line(f"CLIENT KILL {how}") + line("PING")) in (b":1\r\n", b"+OK\r\n")
    assert asking.closed


def test_counters_begin_anew_at_resetstat() -> None:
    client, other = two_clients()
    other.send(lines("SET k v\nGET k\nGET nope"))
    other.transport.close()
    other.protocol.connection_lost(None)

    def stats() -> dict[str, int]:
        shown = client.send(line("INFO stats")).decode().split("\r\n")[2:-2]
        return {name: int(number) for name, number in (each.split(":") for each in shown)}

    before = stats()
    assert before["total_commands_processed"] == 4 and before["total_connections_received"] == 2
    assert before["keyspace_hits"] == before["keyspace_misses"] == 1
    assert client.send(line("CONFIG RESETSTAT")) == b"+OK\r\n"
    assert stats() == dict.fromkeys(before, 0) | {"total_commands_processed": 1}


def test_info_has_what_tools_read() -> None:
    told = connect().send(line("INFO")).decode()
    for field in ("arch_bits:64", "cluster_enabled:0", "blocked_clients:0", "loading:0", "aof_rewrite_in_progress:0"):
        assert f"\r\n{field}\r\n" in told
    assert re.search(r"\r\nused_cpu_sys:\d+\.\d{6}\r\nused_cpu_user:\d+\.\d{6}\r\n", told)
    assert re.search(r"\r\nused_memory:0\r\nused_memory_human:0B\r\n", told)


def test_memory_usage_is_what_counts_against_the_limit() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(pack("SET", "key", b"x" * 100))
    assert client.send(line("MEMORY USAGE key")) == b":%d\r\n" % store.machine.contents.bytes_used == b":167\r\n"


def test_uses_are_told_where_they_are_counted() -> None:
    store = FakeStore()
    store.apply([c.configure({"policy": "lfu"})])
    client = connect(store)
    client.send(lines("SELECT 2\nSET a 1\nSET a 1\nSET b 1"))
    assert client.send(lines("OBJECT FREQ a\nOBJECT FREQ b")) == b":2\r\n:1\r\n"
    store.apply([c.recency([("\x012a", 900)])])
    assert client.send(line("OBJECT FREQ a")) == b":255\r\n"
    assert client.send(line("OBJECT IDLETIME a")).startswith(b"-ERR An LFU maxmemory policy is selected, idle time not")
    store.apply([c.configure({"policy": "lru"})])
    assert client.send(line("OBJECT IDLETIME a")).startswith(b"-ERR idle times are not known")


def test_commands_are_found_by_category_and_pattern() -> None:
    client = connect()
    told = client.send(line("COMMAND LIST FILTERBY ACLCAT transaction"))
    assert told == b"*5\r\n$7\r\ndiscard\r\n$4\r\nexec\r\n$5\r\nmulti\r\n$7\r\nunwatch\r\n$5\r\nwatch\r\n"
    written = client.send(line("COMMAND LIST FILTERBY ACLCAT write"))
    assert b"\r\nset\r\n" in written and b"\r\nget\r\n" not in written and b"\r\nflushdb\r\n" in written
    assert client.send(line("COMMAND LIST FILTERBY PATTERN *E?IRE")) == b"*0\r\n"
    assert client.send(line("COMMAND LIST FILTERBY PATTERN *X?IRE")) == b"*2\r\n$6\r\nexpire\r\n$7\r\npexpire\r\n"
