"""CONFIG GET and SET: the cluster's limit and policy under Redis' names."""

from __future__ import annotations

import pytest
from wire.fake_store import FakeStore
from wire.resp_client import connect, line, lines, port, service

SET_FAILED = b"-ERR CONFIG SET failed (possibly related to argument '%b') - "


@pytest.mark.parametrize(
    ("told", "bytes_max", "shown"),
    [
        ("1024", 1024, b"1024"),
        ("2k", 2000, b"2000"),
        ("2KB", 2048, b"2048"),
        ("100m", 100_000_000, b"100000000"),
        ("100mb", 104_857_600, b"104857600"),
        ("1gb", 1 << 30, b"1073741824"),
        ("1500b", 1500, b"1500"),
        ("0", None, b"0"),
    ],
)
def test_maxmemory_is_the_limit_in_bytes(told: str, bytes_max: int | None, shown: bytes) -> None:
    store = FakeStore(max_bytes=5000)
    client = connect(store)
    assert client.send(line(f"CONFIG SET maxmemory {told}")) == b"+OK\r\n"
    assert store.machine.settings.max_bytes == bytes_max
    found = client.send(line("CONFIG GET maxmemory"))
    assert found == b"*2\r\n$9\r\nmaxmemory\r\n$%d\r\n%b\r\n" % (len(shown), shown)


def test_the_policies_are_those_over_all_keys() -> None:
    store = FakeStore()
    client = connect(store)
    for told, policy in [("allkeys-lfu", "lfu"), ("ALLKEYS-LRU", "lru")]:
        assert client.send(line(f"config set MaxMemory-Policy {told}")) == b"+OK\r\n"
        assert store.machine.settings.policy == policy
        assert f"allkeys-{policy}".encode() in client.send(line("CONFIG GET maxmemory-policy"))
        assert f"\r\nmaxmemory_policy:allkeys-{policy}\r\n".encode() in client.send(line("INFO memory"))


def test_several_are_set_together_or_not_at_all() -> None:
    store = FakeStore()
    client = connect(store)
    assert client.send(line("CONFIG SET maxmemory 2kb maxmemory-policy allkeys-lfu")) == b"+OK\r\n"
    settings = store.machine.settings
    assert (settings.max_bytes, settings.policy, settings.version) == (2048, "lfu", 2)
    wrong = client.send(line("CONFIG SET maxmemory 4kb maxmemory-policy noeviction"))
    assert wrong == SET_FAILED % b"maxmemory-policy" + (
        b"this cache evicts from all keys by their use: allkeys-lru or allkeys-lfu\r\n"
    )
    assert store.machine.settings is settings


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        ("maxmemory many", SET_FAILED % b"maxmemory" + b"argument must be a memory value\r\n"),
        ("maxmemory -1", SET_FAILED % b"maxmemory" + b"argument must be a memory value\r\n"),
        ("maxmemory 1023", b'-ERR CONFIG SET failed - "max_bytes" is a whole number from 1024 on,'),
        ("maxmemory 999999999999999999gb", b'-ERR CONFIG SET failed - "max_bytes" is a whole number from 1024 on,'),
        ("maxmemory-policy fifo", SET_FAILED % b"maxmemory-policy" + b"argument(s) must be one of the following: "),
        ("maxmemory 2kb maxmemory 3kb", SET_FAILED % b"maxmemory" + b"duplicate parameter\r\n"),
        ("save 60", SET_FAILED % b"save" + b"can't set immutable config\r\n"),
        ("nonsense 1", b"-ERR Unknown option or number of arguments for CONFIG SET - 'nonsense'\r\n"),
        ("maxmemory", b"-ERR wrong number of arguments for 'config|set' command\r\n"),
        ("maxmemory 2kb save", b"-ERR wrong number of arguments for 'config|set' command\r\n"),
    ],
)
def test_what_cannot_be_set_is_told_and_nothing_is_proposed(told: str, answer: bytes) -> None:
    store = FakeStore()
    assert connect(store).send(line(f"CONFIG SET {told}")).startswith(answer)
    assert store.proposed == []


def test_what_was_set_is_kept_already() -> None:
    assert connect().send(line("CONFIG REWRITE")) == b"+OK\r\n"


def test_a_pipeline_reads_what_it_has_set() -> None:
    store = FakeStore()
    store.held = True
    client = connect(store)
    assert client.send(lines("CONFIG SET maxmemory 2kb\nCONFIG GET maxmemory")) == b""
    store.release()
    assert client.replies().endswith(b"$4\r\n2048\r\n")


def test_it_is_not_set_in_a_transaction() -> None:
    store = FakeStore()
    client = connect(store)
    answers = client.send(lines("MULTI\nCONFIG SET maxmemory 2kb\nCONFIG GET databases\nEXEC"))
    assert b"-ERR CONFIG SET is not served inside MULTI\r\n" in answers
    assert store.machine.settings.max_bytes is None


def test_larger_values_are_taken_at_once_by_who_is_connected_already() -> None:
    store = FakeStore()
    resp = service(store)
    connection = resp.connection(lambda closed: None)
    assert resp.limit_values(40 * 1024 * 1024) == 65 * 1024 * 1024
    connection.take_requests_of(resp.request_bytes_max)
    assert connection._parser._exact.request_bytes_max == connection._request_bytes_max == 65 * 1024 * 1024
    # Who may be at a large request is not ended for it.
    connection.take_requests_of(resp.limit_values(10))
    assert connection._request_bytes_max == 65 * 1024 * 1024
    opened = port(store)
    opened.limit_values(7)
    assert resp.value_bytes_max == 10
