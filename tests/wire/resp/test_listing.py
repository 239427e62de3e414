"""SCAN, KEYS, RANDOMKEY and their patterns."""

from __future__ import annotations

import gc
import math
import time

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.fake_store import FakeStore
from wire.fake_transport import Client
from wire.resp_client import connect, ignore, line, pack, service
from wire.turns import Turns

from cacheflow.machine import listing
from cacheflow.machine.language import commands
from cacheflow.net.slices import Call, Slices
from cacheflow.wire.resp import scans
from cacheflow.wire.resp.glob import matcher


def filled(count: int) -> FakeStore:
    store = FakeStore()
    for start in range(0, count, 5000):
        sets = [commands.set_(f"key:{number}", b"v", 0) for number in range(start, min(count, start + 5000))]
        store.apply([commands.batch(sets)])
    return store


def understood(answer: bytes) -> object:
    """What a client makes of it."""
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(answer)
    return reader.gets()


def page(client: Client, cursor: int | str, *options: str) -> tuple[int, list[str]]:
    answer = understood(client.send(pack("SCAN", str(cursor), *options)))
    assert isinstance(answer, list), answer
    return int(answer[0]), answer[1]


def test_a_scan_returns_every_key_that_is_there_all_the_time_exactly_once() -> None:
    store = filled(1000)
    client = connect(store)
    cursor, found = page(client, 0, "COUNT", "7")
    turn = 0
    while cursor:
        # Some come, some go, some are written over; these stay.
        store.apply(
            [commands.set_(f"new:{turn}", b"v", 0), commands.delete(f"key:{turn}"), commands.set_("key:999", b"w", 0)]
        )
        turn += 1
        cursor, keys = page(client, cursor, "COUNT", "7")
        found += keys
    assert len(found) == len(set(found))
    assert {f"key:{number}" for number in range(turn, 1000)} <= set(found)


def test_a_page_may_be_asked_for_again_and_through_another_connection() -> None:
    shared = service(filled(100))
    client, other = Client(shared.connection(ignore)), Client(shared.connection(ignore))
    cursor, _ = page(client, 0)
    assert page(client, cursor) == page(client, cursor) == page(other, cursor)


def test_scans_do_not_disturb_each_other() -> None:
    client = connect(filled(50))
    cursors = {}
    founds: dict[int, list[str]] = {}
    for number in range(20):
        cursors[number], founds[number] = page(client, 0, "COUNT", "3")
    while any(cursors.values()):
        for number, cursor in cursors.items():
            if cursor:
                cursors[number], keys = page(client, cursor, "COUNT", "3")
                founds[number] += keys
    assert all(len(found) == len(set(found)) == 50 for found in founds.values())


def test_options_choose() -> None:
    store = filled(100)
    store.apply([commands.set_("other", b"v", 0)])
    client = connect(store)
    assert page(client, 0, "MATCH", "o*", "COUNT", "1000") == (0, ["other"])
    assert page(client, 0, "TYPE", "string", "COUNT", "1000", "match", "key:9?")[1] == [
        f"key:{n}" for n in range(90, 100)
    ]
    assert page(client, 0, "TYPE", "hash", "COUNT", "1000") == (0, [])


def test_what_is_past_its_end_is_not_listed() -> None:
    store = FakeStore()
    client = connect(store)
    client.send(line("SET a 1 PX 10") + line("SET b 1"))
    store.clock_ms += 10
    assert page(client, 0) == (0, ["b"])
    assert client.send(line("KEYS *")) == b"*1\r\n$1\r\nb\r\n"
    assert client.send(line("RANDOMKEY")) == b"$1\r\nb\r\n"


def test_few_scans_are_kept_and_a_forgotten_one_is_an_error_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "SCANS_MAX", 3)
    store = filled(100)
    client = connect(store)
    cursors = [page(client, 0)[0] for _ in range(4)]
    assert client.send(pack("SCAN", str(cursors[0]))).startswith(b"-ERR invalid cursor")
    assert all(page(client, cursor)[1] for cursor in cursors[1:])
    monkeypatch.setattr(scans, "KEYS_KEPT_MAX", 150)
    # Those that begin before anything is written share one copy.
    page(client, 0)
    assert page(client, cursors[3])[1]
    store.apply([commands.set_("key:0", b"w", 0)])
    page(client, 0)
    assert client.send(pack("SCAN", str(cursors[3]))).startswith(b"-ERR invalid cursor")
    assert client.send(pack("SCAN", str(2**64 - 1))).startswith(b"-ERR invalid cursor")


def test_a_finished_scan_is_not_kept() -> None:
    shared = service(filled(100))
    client = Client(shared.connection(ignore))
    cursor, _ = page(client, 0, "COUNT", "60")
    assert page(client, cursor, "COUNT", "60")[0] == 0
    assert shared.scans.kept == 0


def test_keys_works_in_slices_and_lets_others_in_between() -> None:
    turns = Turns()
    shared = service(filled(20_000), slices=turns.slices)
    client, other = Client(shared.connection(ignore)), Client(shared.connection(ignore))
    turns.turn(lambda: client.send(line("KEYS *") + line("PING")))
    assert turns.made == 1
    answered = client.replies()
    turns.turn(lambda: other.send(line("PING")))
    assert client.replies() == b""
    turns.until_idle()
    answered += client.replies()
    assert turns.made > 5
    assert answered.endswith(b"+PONG\r\n")
    assert sorted(understood(answered)) == sorted(f"key:{number}" for number in range(20_000))  # type: ignore[call-overload]


def test_those_who_list_all_keys_at_once_share_each_slice() -> None:
    def longest(clients: int) -> int:
        turns = Turns()
        shared = service(filled(10_000), slices=turns.slices)
        for _ in range(clients):
            client = Client(shared.connection(ignore))
            turns.turn(lambda client=client: client.send(line("KEYS *")))  # type: ignore[misc]
        turns.until_idle()
        return turns.longest

    assert longest(20) < 1.5 * longest(1)


def test_keys_for_a_client_that_has_gone_is_not_finished() -> None:
    turns = Turns()
    client = Client(service(filled(20_000), slices=turns.slices).connection(ignore))
    turns.turn(lambda: client.send(line("KEYS *")))
    client.replies()
    client.transport.close()
    client.protocol.connection_lost(None)
    turns.until_idle()
    assert client.replies() == b""
    assert turns.made < 5


def test_randomkey_finds_what_is_there() -> None:
    store = filled(300)
    client = connect(store)
    assert len({client.send(line("RANDOMKEY")) for _ in range(200)}) > 50
    store.apply([commands.delete_prefix("")])
    assert client.send(line("RANDOMKEY")) == b"$-1\r\n"


def test_randomkey_finds_the_few_keys_of_a_database_among_many() -> None:
    store = filled(1000)
    client = connect(store)
    client.send(line("SELECT 3"))
    assert client.send(line("RANDOMKEY")) == b"$-1\r\n"
    client.send(line("SET a 1") + line("SET b 1"))
    assert {client.send(line("RANDOMKEY")) for _ in range(100)} == {b"$1\r\na\r\n", b"$1\r\nb\r\n"}


def test_what_keys_finds_is_what_was_there_when_it_looked() -> None:
    turns = Turns()
    store = filled(5000)
    client = Client(service(store, slices=turns.slices).connection(ignore))
    turns.turn(lambda: client.send(line("KEYS *9*")))
    answered = client.replies()
    while not answered:
        turns.turn(lambda: None)
        answered += client.replies()
    # The number of keys is told: what goes now is listed all the same.
    store.apply([commands.delete_prefix("")])
    turns.until_idle()
    found = understood(answered + client.replies())
    assert sorted(found) == sorted(f"key:{n}" for n in range(5000) if "9" in str(n))  # type: ignore[call-overload]


@pytest.mark.parametrize("words", ["KEYS *", "SCAN 0 COUNT 2000", "RANDOMKEY"])
def test_the_garbage_collector_meets_no_long_list(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It goes through each young one in a single step, as long as that may be.
    monkeypatch.setattr(listing, "SLICE_KEYS", 1000)
    turns = Turns()
    client = Client(service(filled(20_000), slices=turns.slices).connection(ignore))
    longest = 0
    gc.collect()
    gc.freeze()
    try:
        turns.turn(lambda: client.send(line(words)))
        while turns._waiting:
            turns.turn(lambda: None)
            longest = max(longest, sum(len(o) for o in gc.get_objects() if type(o) in (list, tuple) and len(o) > 100))
    finally:
        gc.unfreeze()
    # One slice, what is found of it, and the answer.
    assert longest <= 4 * 1000


def test_a_copy_that_nobody_needs_any_more_is_freed_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SLICE_KEYS", 100)
    given_up: list[int] = []
    take = scans.GivenUp.take

    def noted(self: scans.GivenUp, slices: list[tuple[str, ...]]) -> None:
        given_up.append(len(slices))
        take(self, slices)

    monkeypatch.setattr(scans.GivenUp, "take", noted)
    store = filled(1000)
    client = connect(store)
    client.send(line("KEYS *"))
    store.apply([commands.set_("key:0", b"w", 0)])
    client.send(line("RANDOMKEY") + line("KEYS *"))
    assert given_up == [10]


def test_slices_are_freed_in_turns() -> None:
    now = 0.0
    turns: list[Call] = []

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    given_up = scans.GivenUp(Slices(clock, turns.append, lambda: math.inf))
    given_up.take([("a",)] * 5)
    given_up.take([("b",)] * 5)
    made = 0
    while turns:
        turns.pop(0)()
        made += 1
    assert made >= 5


# Patterns -------------------------------------------------------------------------------------------------------------


def matches_slowly(pattern: bytes, text: bytes) -> bool:
    """Redis' stringmatchlen, word for word."""
    p = t = 0
    while p < len(pattern):
        if pattern[p : p + 1] == b"*":
            return any(matches_slowly(pattern[p + 1 :], text[skip:]) for skip in range(t, len(text) + 1))
        if t == len(text):
            return False
        if pattern[p : p + 1] == b"[":
            p += 1
            negated = pattern[p : p + 1] == b"^"
            p += negated
            match = False
            while p < len(pattern) and pattern[p : p + 1] != b"]":
                if pattern[p : p + 1] == b"\\" and p + 1 < len(pattern):
                    p += 1
                    match |= pattern[p] == text[t]
                elif pattern[p + 1 : p + 2] == b"-" and p + 2 < len(pattern):
                    low, high = sorted((pattern[p], pattern[p + 2]))
                    match |= low <= text[t] <= high
                    p += 2
                else:
                    match |= pattern[p] == text[t]
                p += 1
            if match == negated:
                return False
        elif pattern[p : p + 1] != b"?":
            if pattern[p : p + 1] == b"\\" and p + 1 < len(pattern):
                p += 1
            if pattern[p] != text[t]:
                return False
        p += 1
        t += 1
    return t == len(text)


@given(st.lists(st.sampled_from(list("ab*?[]^-\\é.+")), max_size=10), st.text("ab-]^é.\n\\", max_size=8))
@settings(max_examples=2000, deadline=None)
def test_patterns_match_what_redis_patterns_match(parts: list[str], text: str) -> None:
    pattern = "".join(parts).encode()
    assert bool(matcher(pattern)(text.encode())) == matches_slowly(pattern, text.encode())


@pytest.mark.parametrize(
    "pattern", [b"*a" * 400, b"a*" * 400 + b"b", b"*?" * 400 + b"b", b"[a-c]*" * 170 + b"x", b"*" * 1000 + b"b"]
)
def test_no_pattern_takes_long(pattern: bytes) -> None:
    matches = matcher(pattern)
    started = time.perf_counter()
    assert not matches(b"a" * 1023 + b"c")
    assert time.perf_counter() - started < 0.5


def test_a_pattern_is_as_long_as_a_key_at_most() -> None:
    client = connect()
    assert client.send(pack("KEYS", b"x" * 1025)) == b"-ERR a pattern has at most 1024 bytes\r\n"
    assert client.send(pack("SCAN", "0", "MATCH", b"x" * 1025)) == b"-ERR a pattern has at most 1024 bytes\r\n"
