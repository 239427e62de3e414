"""SLOWLOG, LATENCY, and what CONFIG and INFO tell of times, as Redis' tools read it."""

from __future__ import annotations

import pytest
from wire.fake_store import START_MS, FakeStore
from wire.fake_transport import Client
from wire.measured import Clock
from wire.resp_client import connect, ignore, line, lines, pack, service

SECOND = START_MS // 1000


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def took(store: FakeStore, seconds: float, *said: str) -> tuple[Client, Clock]:
    """A client whose writes ``said`` took ``seconds`` each."""
    port = service(store)
    clock = port.times.clock = Clock()
    client = Client(port.connection(ignore))
    for each in said:
        store.held = True
        client.send(line(each))
        clock.now_s += seconds
        store.held = False
        store.release()
        client.replies()
    return client, clock


# SLOWLOG -----------------------------------------------------------------------------------------------------------------


def test_slow_requests_have_the_shape_of_redis_and_no_key(store: FakeStore) -> None:
    client, _ = took(store, 0.0625, "SET secret value", "MSET secret a other b")
    store.slow_log.note("http", "GET /cache/{key}", "error", 2.0, 7, 1, "192.0.2.1:5")
    store.slow_log.note("memcached", "get", "ok", 0.5, None, 3)
    listed = client.send(pack("SLOWLOG", "GET"))
    words = [b"get", b"(one of 3)", b"memcached", b"ok"]
    http = [b"GET /cache/{key}", b"(key of 7 bytes)", b"http", b"error"]
    wanted = [
        (4, 500_000, words, b""),
        (3, 2_000_000, http, b"192.0.2.1:5"),
        (2, 62_500, [b"mset", b"(key of 6 bytes)", b"resp", b"ok"], b"?:0"),
        (1, 62_500, [b"set", b"(key of 6 bytes)", b"resp", b"ok"], b"?:0"),
    ]
    assert listed == b"*4\r\n" + b"".join(
        b"*6\r\n:%d\r\n:%d\r\n:%d\r\n%b%b$0\r\n\r\n" % (number, SECOND, us, pack(*told), pack(address)[4:])
        for number, us, told, address in wanted
    )
    assert b"secret" not in listed


def test_the_newest_are_shown_ten_unless_another_number_is_given(store: FakeStore) -> None:
    client = connect(store)
    for _ in range(15):
        store.slow_log.note("resp", "get", "ok", 1.0, None)
    assert client.send(pack("SLOWLOG", "LEN")) == b":15\r\n"
    for words, count in (("GET", 10), ("GET 3", 3), ("GET -1", 15), ("GET 100", 15), ("GET 0", 0)):
        assert client.send(line(f"SLOWLOG {words}")).startswith(b"*%d\r\n" % count)
    assert client.send(pack("SLOWLOG", "RESET")) == b"+OK\r\n"
    assert client.send(pack("SLOWLOG", "GET")) == b"*0\r\n"
    assert client.send(pack("SLOWLOG", "LEN")) == b":0\r\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("SLOWLOG", b"-ERR wrong number of arguments for 'slowlog' command\r\n"),
        ("SLOWLOG GET x", b"-ERR value is not an integer or out of range\r\n"),
        ("SLOWLOG GET -2", b"-ERR count should be greater than or equal to -1\r\n"),
        ("SLOWLOG GET 1 2", b"-ERR wrong number of arguments for 'slowlog|get' command\r\n"),
        ("SLOWLOG LEN x", b"-ERR wrong number of arguments for 'slowlog|len' command\r\n"),
        ("SLOWLOG FOO", b"-ERR unknown subcommand 'FOO'. Try SLOWLOG HELP.\r\n"),
        ("LATENCY DOCTOR", b"-ERR unknown subcommand 'DOCTOR'. Try LATENCY HELP.\r\n"),
    ],
)
def test_what_is_wrong_is_told_in_redis_words(said: str, answer: bytes) -> None:
    assert connect().send(line(said)) == answer


@pytest.mark.parametrize("name", ["SLOWLOG", "LATENCY"])
def test_help_is_lines(name: str) -> None:
    told = connect().send(pack(name, "HELP"))
    assert told.startswith(b"*") and b"+%b <subcommand>" % name.encode() in told and b"+HELP\r\n" in told


# CONFIG ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "slow_ms", "shown"), [("0", 0, b"0"), ("1500", 1.5, b"1500"), ("-1", -0.001, b"-1"), ("-5", -0.005, b"-1")]
)
def test_what_is_slow_is_set_in_microseconds_for_this_node_alone(
    store: FakeStore, told: str, slow_ms: float, shown: bytes
) -> None:
    client = connect(store)
    assert client.send(line("CONFIG GET slowlog-*")) == pack(
        "slowlog-log-slower-than", "50000", "slowlog-max-len", "128"
    )
    proposed = len(store.proposed)
    assert client.send(line(f"CONFIG SET slowlog-log-slower-than {told}")) == b"+OK\r\n"
    assert store.slow_log.slow_ms == slow_ms and len(store.proposed) == proposed
    assert client.send(line("CONFIG GET slowlog-log-slower-than")) == pack("slowlog-log-slower-than", shown)


def test_it_is_set_together_with_the_clusters_settings_or_not_at_all(store: FakeStore) -> None:
    client = connect(store)
    assert client.send(line("CONFIG SET slowlog-log-slower-than 7000 maxmemory 1000")).startswith(b"-ERR CONFIG SET")
    assert client.send(line("CONFIG SET maxmemory 2kb slowlog-log-slower-than 1ms")) == (
        b"-ERR CONFIG SET failed (possibly related to argument 'slowlog-log-slower-than') "
        b"- argument couldn't be parsed into an integer\r\n"
    )
    assert client.send(line("CONFIG SET slowlog-max-len 5")).endswith(b"can't set immutable config\r\n")
    assert (store.slow_log.slow_ms, store.machine.settings.max_bytes) == (50, None)
    assert client.send(line("CONFIG SET slowlog-log-slower-than 7000 maxmemory 2kb")) == b"+OK\r\n"
    assert (store.slow_log.slow_ms, store.machine.settings.max_bytes) == (7, 2048)


# LATENCY and INFO --------------------------------------------------------------------------------------------------------


def test_latencies_are_told_by_command_and_microseconds(store: FakeStore) -> None:
    client, _ = took(store, 0.001, "SET k v", "SET k v", "INCR k", "DEL k")
    client.send(pack("GET", "k"))
    one = b"*4\r\n$5\r\ncalls\r\n:1\r\n$14\r\nhistogram_usec\r\n*2\r\n:1024\r\n:1\r\n"
    # A get took no time by this clock.
    assert client.send(line("LATENCY HISTOGRAM incr GET nothing")) == (
        b"*4\r\n$4\r\nincr\r\n%b$3\r\nget\r\n%b" % (one, one.replace(b":1024", b":1"))
    )
    assert client.send(pack("LATENCY", "HISTOGRAM")).startswith(b"*10\r\n")
    client.send(line("HELLO 3"))
    assert client.send(line("LATENCY HISTOGRAM set")) == (
        b"%1\r\n$3\r\nset\r\n%2\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n%1\r\n:1024\r\n:2\r\n"
    )


def test_each_bucket_has_all_shorter_ones(store: FakeStore) -> None:
    client, clock = took(store, 0.001, "SET k v", "SET k v")
    store.held = True
    client.send(pack("SET", "k", "v"))
    clock.now_s += 60
    store.release()
    client.replies()
    assert client.send(line("LATENCY HISTOGRAM set")).endswith(b"*4\r\n:1024\r\n:2\r\n:67108864\r\n:3\r\n")


def test_info_tells_of_commands_when_it_is_asked_to(store: FakeStore) -> None:
    client, _ = took(store, 0.001, "SET k v", "SET k v", "INCR k")
    client.send(pack("SET", "k"))
    told = client.send(line("INFO commandstats"))
    assert b"# Commandstats\r\n" in told
    assert b"\r\ncmdstat_set:calls=3,usec=2000,usec_per_call=666.67,rejected_calls=1,failed_calls=0\r\n" in told
    assert b"\r\ncmdstat_incr:calls=1,usec=1000,usec_per_call=1000.00,rejected_calls=1,failed_calls=0\r\n" in told
    assert b"\r\nlatency_percentiles_usec_set:p50=" in client.send(line("INFO latencystats"))
    for words in ("INFO", "INFO default", "INFO stats"):
        assert b"cmdstat_" not in client.send(line(words))
    for words in ("INFO all", "INFO everything"):
        said = client.send(line(words))
        assert b"cmdstat_set" in said and b"latency_percentiles_usec_set" in said and b"# Server" in said


def test_statistics_begin_anew_and_metrics_go_on(store: FakeStore) -> None:
    port = service(store)
    client = Client(port.connection(ignore))
    client.send(lines("SET k v\nSET k v\nINCR n"))
    assert client.send(line("CONFIG RESETSTAT")) == b"+OK\r\n"
    client.send(pack("SET", "k", "v"))
    told = client.send(line("INFO commandstats"))
    assert b"cmdstat_set:calls=1," in told and b"cmdstat_incr" not in told
    assert b"incr" not in client.send(line("LATENCY HISTOGRAM"))
    assert port.times.histogram("set").count == 3
