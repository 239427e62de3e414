"""Requests over RESP are counted once each, under their command and by what their client was told, and timed."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.channel_conversations import CHANNEL_CONVERSATIONS
from wire.database_conversations import DATABASE_CONVERSATIONS
from wire.fake_store import START_MS, FakeStore
from wire.fake_transport import Client
from wire.field_conversations import FIELD_CONVERSATIONS
from wire.measured import Clock, counted
from wire.resp_client import ignore, line, lines, pack, service
from wire.resp_conversations import CONVERSATIONS
from wire.script_client import ScriptClients

from cacheflow.errors import NoLeader, NotCommitted, NotReady, OutcomeUnknown, ReplicationError
from cacheflow.machine.language import commands
from cacheflow.measuring.slow_log import SlowRequest
from cacheflow.wire.arrivals import Arrival
from cacheflow.wire.resp.gets import answer_gets
from cacheflow.wire.resp.service import RespService
from cacheflow.wire.resp.table import TABLE

ALL = CONVERSATIONS | CHANNEL_CONVERSATIONS | DATABASE_CONVERSATIONS | FIELD_CONVERSATIONS


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.apply([commands.set_("k", b"-1", 0), commands.set_("kk", b"22", 0)])
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def port(store: FakeStore, clock: Clock) -> RespService:
    port = service(store)
    port.times.clock = clock
    return port


@pytest.fixture
def client(port: RespService) -> Client:
    return Client(port.connection(ignore))


@pytest.mark.parametrize("name", ALL)
def test_each_request_counts_once_under_its_command_and_by_its_answer(name: str) -> None:
    port = service(FakeStore())
    client = Client(port.connection(ignore))
    wanted: Counter[tuple[str, str]] = Counter()
    for said, _ in ALL[name]:
        request = line(said)
        answer = client.send(request)
        command = said.split()[0].lower() if said.split()[0].lower().encode() in TABLE else "unknown"
        # What is queued counts as a part of EXEC.
        if answer != b"+QUEUED\r\n":
            wanted[command, "refused" if answer.startswith(b"-") else "ok"] += 1
    assert counted(port.times) == wanted


# Requests whose answers say how they ended, and what they count as.
REQUESTS = {
    pack("GET", "k"): ("get", "ok"),
    pack("get", "none"): ("get", "ok"),
    pack("GET", "h"): ("get", "refused"),
    pack("GET", b"\xff"): ("get", "refused"),
    pack("GET", ""): ("get", "refused"),
    pack("SET", "k", "-2"): ("set", "ok"),
    pack("SET", "", "x"): ("set", "refused"),
    pack("Set", "k", "3", "EX"): ("set", "refused"),
    pack("INCR", "n"): ("incr", "ok"),
    pack("INCR", "text"): ("incr", "refused"),
    pack("DEL", "nothing"): ("del", "ok"),
    pack("DEL", "a", "b"): ("del", "ok"),
    pack("MGET", "k", "none", "h"): ("mget", "ok"),
    pack("HGET", "h", "f"): ("hget", "ok"),
    pack("RENAME", "none", "other"): ("rename", "refused"),
    pack("PING"): ("ping", "ok"),
    pack("KEYS", "k*"): ("keys", "ok"),
    pack("NONSENSE", "x"): ("unknown", "refused"),
    pack("PUBLISH", "c", "-m"): ("publish", "ok"),
}


@settings(max_examples=150, deadline=None)
@given(
    said=st.lists(st.sampled_from(list(REQUESTS)), max_size=12),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    linearizable=st.booleans(),
    database=st.sampled_from([0, 3]),
    held=st.booleans(),
)
def test_however_requests_arrive_each_counts_once(
    said: list[bytes], cuts: list[int], linearizable: bool, database: int, held: bool
) -> None:
    store = FakeStore()
    port = service(store)
    client = Client(port.connection(ignore))
    client.send(lines(f"SELECT {database}\nSET k -1\nSET text word\nHSET h f -v"))
    if linearizable:
        client.send(pack("READWRITE"))
    before = Counter(counted(port.times))
    store.held = held
    data = b"".join(said)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        client.send(data[start:end])
    while store.release():
        pass
    assert Counter(counted(port.times)) - before == Counter(REQUESTS[request] for request in said)


@settings(max_examples=60, deadline=None)
@given(said=st.lists(st.lists(st.sampled_from(list(REQUESTS)), max_size=3), min_size=3, max_size=3))
def test_requests_of_several_clients_that_come_together_count_as_well(said: list[list[bytes]]) -> None:
    store = FakeStore()
    store.apply([commands.set_("k", b"-1", 0), commands.set_("text", b"word", 0)])
    port = service(store)
    clients = [Client(port.connection(ignore)) for _ in said]
    clients[0].send(pack("HSET", "h", "f", "-v"))
    before = Counter(counted(port.times))
    arrived: list[Arrival] = [
        (client.protocol, b"".join(each), client.transport) for client, each in zip(clients, said, strict=True)
    ]
    for connection, data, _ in answer_gets(store, port.times, [each for each in arrived if each[1]]):
        connection.data_received(data)
    assert Counter(counted(port.times)) - before == Counter(REQUESTS[each] for requests in said for each in requests)


def test_a_row_of_sets_of_which_some_are_refused_counts_each_by_its_own_answer() -> None:
    store = FakeStore(max_bytes=1024)
    port = service(store)
    client = Client(port.connection(ignore))
    assert (
        client.send(pack("SET", "k", "-") * 2 + pack("SET", "k", "x" * 2000) + pack("SET", "l", "-")).count(b"+OK") == 3
    )
    assert counted(port.times) == {("set", "ok"): 3, ("set", "refused"): 1}


def test_values_that_look_like_errors_are_values(client: Client, port: RespService) -> None:
    client.send(pack("get", "k") * 3)
    client.send(pack("GET", "k") * 3)
    assert counted(port.times) == {("get", "ok"): 6}


@pytest.mark.parametrize("failure", [NoLeader("x"), NotCommitted("x"), OutcomeUnknown("x"), NotReady("x")])
@pytest.mark.parametrize("said", ["SET k v", "INCR n", "APPEND k v", "EVAL 'return 1' 0"])
def test_what_the_node_could_not_do_is_an_error(failure: ReplicationError, said: str) -> None:
    clients = ScriptClients()
    client = clients.connect()
    clients.store.failure = failure
    if said.startswith("EVAL"):
        client.send(pack("READWRITE"))
    assert client.send(line(said)).startswith(b"-")
    assert counted(clients.service.times)[said.split()[0].lower(), "error"] == 1


def test_a_read_of_a_node_that_may_not_be_read_is_an_error(store: FakeStore, client: Client, port: RespService) -> None:
    store.readable = False
    client.send(pack("GET", "k"))
    client.send(pack("GET", "k") * 2)
    client.send(pack("MGET", "k"))
    assert counted(port.times) == {("get", "error"): 3, ("mget", "error"): 1}


def test_a_transaction_and_a_script_count_as_one_request_each() -> None:
    clients = ScriptClients()
    client = clients.connect()
    client.send(lines("MULTI\nSET a 1\nGET a\nINCR a\nEXEC"))
    client.send(pack("EVAL", "redis.call('SET', KEYS[1], 1) return redis.call('GET', KEYS[1])", "1", "a"))
    assert counted(clients.service.times) == {("multi", "ok"): 1, ("exec", "ok"): 1, ("eval", "ok"): 1}


def test_names_that_clients_make_up_are_one_command(client: Client, port: RespService) -> None:
    for number in range(100):
        client.send(pack(f"name{number}", 'with="label"'))
    assert counted(port.times) == {("unknown", "refused"): 100}


# Times -------------------------------------------------------------------------------------------------------------------


def slow(store: FakeStore) -> list[SlowRequest]:
    return store.slow_log.latest()


def test_a_write_is_timed_from_its_arrival_until_its_answer_goes(
    store: FakeStore, client: Client, port: RespService, clock: Clock
) -> None:
    store.held = True
    client.send(pack("SET", "k", "v"))
    clock.now_s += 0.25
    client.send(pack("SET", "k", "v") * 2)
    clock.now_s += 0.5
    store.release()
    histogram = port.times.histogram("set")
    assert (histogram.count, histogram.sum_s) == (3, 0.75 + 2 * 0.5)


def test_a_linearizable_read_is_timed_with_its_barrier(
    store: FakeStore, client: Client, port: RespService, clock: Clock
) -> None:
    client.send(pack("READWRITE"))
    store.held = True
    client.send(pack("GET", "k"))
    clock.now_s += 0.25
    store.release()
    assert port.times.histogram("get").sum_s == 0.25
    [request] = slow(store)
    assert request == SlowRequest(1, START_MS / 1000, "resp", "get", "ok", 0.25, 1, 1, "?:0", "")


def test_a_long_answer_is_timed_until_its_last_piece_goes(
    store: FakeStore, client: Client, port: RespService, clock: Clock
) -> None:
    for place in range(4):
        store.apply([commands.set_(f"long{place}", b"x" * 900_000, 0)])
    client.transport.takes = False
    client.send(pack("MGET", *[f"long{place}" for place in range(4)]))
    clock.now_s += 2
    assert counted(port.times) == {}
    client.transport.take_all()
    assert counted(port.times) == {("mget", "ok"): 1}
    assert port.times.histogram("mget").sum_s == 2


@pytest.mark.parametrize(
    ("data", "command", "key_bytes", "requests"),
    [
        (pack("SET", "größer", "v"), "set", 8, 1),
        (pack("SET", "abc", "v") * 3, "set", 3, 3),
        (pack("SET", "abc", "v") + pack("SET", "d", "-1") + pack("PING"), "set", 3, 2),
        (pack("MSET", "abcd", "v", "e", "v"), "mset", 4, 1),
        (pack("INCR", "ab"), "incr", 2, 1),
        (pack("HSET", "hash", "f", "v"), "hset", 4, 1),
        (pack("EVAL", "return 1", "1", "abcde"), "eval", 5, 1),
        (pack("FLUSHALL"), "flushall", None, 1),
    ],
)
@pytest.mark.parametrize("database", [0, 3])
def test_a_slow_request_is_kept_without_its_key_and_its_value(
    clock: Clock, data: bytes, command: str, key_bytes: int | None, requests: int, database: int
) -> None:
    clients = ScriptClients()
    clients.service.times.clock = clock
    client, store = clients.connect(), clients.store
    client.send(pack("SELECT", str(database)) + pack("READWRITE"))
    store.held = True
    client.send(data)
    clock.now_s += 0.0625
    while store.release():
        pass
    found = [each for each in slow(store) if each.command == command]
    assert [(each.key_bytes, each.requests, each.seconds) for each in found] == [(key_bytes, requests, 0.0625)]


def test_a_quick_request_is_not_kept_and_every_one_is_if_that_is_wished(
    store: FakeStore, client: Client, clock: Clock
) -> None:
    client.send(pack("GET", "k"))
    client.send(pack("GET", "k") * 3)
    client.send(pack("PING"))
    assert slow(store) == []
    store.slow_log.set_slow_ms(0)
    client.send(pack("GET", "kk"))
    client.send(pack("GET", "kkk") + pack("GET", "k"))
    client.send(pack("get", "k") + pack("PING"))
    assert [(each.command, each.key_bytes, each.requests) for each in reversed(slow(store))] == [
        ("get", 2, 1),
        ("get", 3, 2),
        ("get", 1, 1),
        ("ping", None, 1),
    ]


@pytest.mark.parametrize("words", [("EVAL",), ("EVALSHA",), ("EVAL", "x"), ("SINTERCARD",)])
def test_a_request_with_too_few_words_to_say_how_many_keys_it_has_is_a_row_without_a_key(
    store: FakeStore, client: Client, words: tuple[str, ...]
) -> None:
    store.slow_log.set_slow_ms(0)
    assert client.send(pack(*words)).startswith(b"-ERR wrong number of arguments") and not client.closed
    assert [each.key_bytes for each in slow(store)] == [None]


def test_a_key_of_another_database_is_as_long_as_its_client_wrote_it(store: FakeStore, client: Client) -> None:
    store.slow_log.set_slow_ms(0)
    client.send(pack("SELECT", "3"))
    client.send(pack("GET", "abc"))
    client.send(pack("GET", "abc") * 2)
    client.send(pack("SET", "abc", "v"))
    assert [each.key_bytes for each in slow(store)[:3]] == [3, 3, 3]


def test_gets_of_several_clients_that_were_slow_together_are_one_row(store: FakeStore, port: RespService) -> None:
    store.slow_log.set_slow_ms(0)
    clients = [Client(port.connection(ignore)) for _ in range(3)]
    answer_gets(store, port.times, [(each.protocol, pack("GET", "k"), each.transport) for each in clients])
    [request] = slow(store)
    assert (request.command, request.key_bytes, request.requests, request.client) == ("get", None, 3, "")
