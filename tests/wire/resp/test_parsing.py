"""Requests out of bytes, whatever the bytes are and however they are cut."""

from __future__ import annotations

import gc
import itertools
import sys
import tracemalloc
import weakref
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.fake_store import FakeStore
from wire.resp_client import VALUE_BYTES_MAX, connect, line, pack

from cacheflow.wire.resp.parser import ELEMENTS_MAX, LINE_BYTES_MAX, ProtocolFault, RequestParser, split_line

REQUEST_BYTES_MAX = 10_000
REQUESTS = [
    [b"GET", b"k"],
    [b"SET", b"k", b"*2\r\n$1\r\n"],
    [b"PING"],
    [b"x" * 300],
    [b"MGET", *[b"k"] * 120],
    [b"", b""],
]


def parser(trusted: bool = True) -> RequestParser:
    return RequestParser(REQUEST_BYTES_MAX, trusted)


def parsed(pieces: list[bytes], trusted: bool = True) -> tuple[list[list[bytes]], str]:
    """All requests, and the words of the fault."""
    one = parser(trusted)
    requests = [request for piece in pieces for request in one.feed(piece)]
    return requests, str(one.fault or "")


@pytest.mark.parametrize("trusted", [True, False])
def test_requests_may_be_cut_anywhere(trusted: bool) -> None:
    requests = REQUESTS if trusted else REQUESTS[:3]
    data = b"".join([pack(*request) for request in requests]) + b"PING now\r\n" + pack("ECHO", "-1")
    wanted = ([*requests, [b"PING", b"now"], [b"ECHO", b"-1"]], "")
    for cut in range(len(data) + 1):
        assert parsed([data[:cut], data[cut:]], trusted) == wanted
    assert parsed([data[place : place + 1] for place in range(len(data))], trusted) == wanted


@given(
    st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), max_size=12),
    st.lists(st.integers(0, 2000), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_what_was_packed_is_parsed(requests: list[list[bytes]], cuts: list[int]) -> None:
    data = b"".join([pack(*request) for request in requests])
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert parsed([data[a:b] for a, b in itertools.pairwise(places)]) == (requests, "")


PIECES = [
    b"*",
    b"$",
    b"1",
    b"2",
    b"-",
    b"\r\n",
    b"\r",
    b"\n",
    b"GET",
    b"k",
    b" ",
    b"+",
    b":",
    b"%",
    b">",
    b"_",
    b'"',
    b"'",
    b"\\x",
]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=40), st.integers(0, 100))
@settings(max_examples=500, deadline=None)
def test_anything_else_gives_the_same_however_it_is_cut_and_closes_only_its_own_connection(
    parts: list[bytes], cut: int
) -> None:
    data = b"".join(parts)
    whole = parsed([data])
    assert parsed([data[:cut], data[cut:]]) == whole
    store = FakeStore()
    client, other = connect(store), connect(store)
    answered = client.send(data)
    assert not client.transport.aborted
    # What a browser sends ends its connection, too, and without a word.
    is_http = b"HOST:" in data.upper() or b"POST" in data.upper()
    assert is_http or client.closed == (b"-ERR Protocol error: " in answered)
    assert other.send(line("PING")) == b"+PONG\r\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*%d\r\n" % (ELEMENTS_MAX + 1), "invalid multibulk length"),
        (b"*" + b"9" * 30 + b"\r\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*2\r\n$3\r\nGET\r\n+k\r\n", "expected '$', got '+'"),
        (b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n", "expected '$', got '*'"),
        (b"*2\r\n$3\r\nGET\r\n>99999999\r\n", "expected '$', got '>'"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$1073741824\r\n", "invalid bulk length"),
        (b"*2\r\n$9000\r\n" + b"x" * 9000 + b"\r\n$9000\r\n", "invalid bulk length"),
        (b"*" + b"1" * (LINE_BYTES_MAX + 1), "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * (LINE_BYTES_MAX + 1), "too big bulk count string"),
        (b"x" * (LINE_BYTES_MAX + 1), "too big inline request"),
        (b'SET k "v\r\n', "unbalanced quotes in request"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"*1\r\n$4\r\nPING\r\n", b"PING\r\n"])
def test_nonsense_ends_it_with_redis_words_behind_what_was_right(before: bytes, data: bytes, words: str) -> None:
    good = [[b"PING"]] if before else []
    assert parsed([before + data]) == (good, words)
    assert parsed([before, data, b"PING\r\n"]) == (good, words)
    assert parsed([before + data[:3], data[3:]]) == (good, words)


@pytest.mark.parametrize("empty", [b"*0\r\n", b"*-1\r\n", b"\r\n", b"\n", b"  \r\n"])
def test_nothing_is_asked_and_nothing_answered(empty: bytes) -> None:
    assert parsed([empty + b"PING\r\n" + empty + pack("PING")]) == ([[b"PING"], [b"PING"]], "")


def test_a_stranger_is_held_short() -> None:
    assert parsed([b"*11\r\n"], trusted=False) == ([], "unauthenticated multibulk length")
    assert parsed([b"*1\r\n$16385\r\n"], trusted=False) == ([], "unauthenticated bulk length")
    assert parsed([pack("AUTH", b"x" * 9000)], trusted=False) == ([[b"AUTH", b"x" * 9000]], "")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b"", []),
        (b" a  b\tc ", [b"a", b"b", b"c"]),
        (b'a "b c" d', [b"a", b"b c", b"d"]),
        (b"a \"\" ''", [b"a", b"", b""]),
        (b'a "\\x41\\n\\r\\t\\b\\a\\"\\\\\\q"', [b"a", b'A\n\r\t\b\a"\\q']),
        (b"a 'b\\'c\\n'", [b"a", b"b'c\\n"]),
        (b'a b"c d"', [b"a", b"bc d"]),
        (b'a "\\xzz"', [b"a", b"xzz"]),
    ],
)
def test_an_inline_command_is_quoted_as_in_a_shell(written: bytes, words: list[bytes]) -> None:
    assert split_line(written) == words


@pytest.mark.parametrize("written", [b'a "b', b"a 'b", b'a "b"c', b"a 'b'c", b"a 'b\\'", b'a "b\\"', b'"', b"'"])
def test_quotes_that_do_not_match_are_a_fault(written: bytes) -> None:
    with pytest.raises(ProtocolFault, match="unbalanced quotes"):
        split_line(written)


@pytest.mark.parametrize(("words", "is_quick"), [(120, True), (999, True), (1000, False)])
def test_a_whole_request_of_many_words_takes_no_step_a_word(words: int, is_quick: bool) -> None:
    steps: list[str] = []

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            steps.append(frame.f_code.co_name)

    one = RequestParser(VALUE_BYTES_MAX, True)
    data = pack("MGET", *["k"] * (words - 1))
    sys.setprofile(count)
    requests = one.feed(data)
    sys.setprofile(None)
    assert requests == [[b"MGET", *[b"k"] * (words - 1)]]
    assert (len(steps) < 20) is is_quick


# What hostile clients claim ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"*1000000\r\n" * 20_000,
        b"*999\r\n$1\r\na\r\n" * 10_000,
        b"*2\r\n$1\r\na\r\n>99999999\r\n",
        b"*2\r\n$1\r\na\r\n%99999999\r\n",
        b"*1\r\n" * 60_000,
        b"*1048576\r\n" + b"$0\r\n\r\n" * 40_000,
        b"*1\r\n$1000000000\r\n" + b"x" * 200_000,
    ],
)
def test_what_is_claimed_costs_no_memory(data: bytes) -> None:
    one = RequestParser(VALUE_BYTES_MAX, True)
    tracemalloc.start()
    try:
        for _ in range(4):
            one.feed(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 1024 * 1024


def test_half_a_request_waits_while_others_are_served_and_too_much_of_it_is_not_kept() -> None:
    store = FakeStore()
    client, other = connect(store), connect(store)
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n")
    for _ in range(10):
        assert client.send(b"x" * 100_000) == b""
        assert other.send(line("PING")) == b"+PONG\r\n"
    assert client.send(b"\r\n") == b"+OK\r\n"
    assert client.send(b"*2\r\n$3\r\nGET\r\n$1073741824\r\n") == b"-ERR Protocol error: invalid bulk length\r\n"
    assert client.closed
    assert other.send(line("STRLEN k")) == b":1000000\r\n"


def test_what_follows_nonsense_is_not_done() -> None:
    store = FakeStore()
    client = connect(store)
    assert (
        client.send(line("SET a 1 EX 10") + b"*x\r\n" + line("SET b 1"))
        == b"+OK\r\n-ERR Protocol error: invalid multibulk length\r\n"
    )
    assert client.closed and store.entry("a") is not None and store.entry("b") is None


@pytest.mark.parametrize("end", [b"\r", b"\n"])
def test_the_reply_to_nonsense_is_one_line_whatever_the_client_has_put_into_it(end: bytes) -> None:
    assert connect().send(b"*1\r\n" + end + b"PING\r\n") == b"-ERR Protocol error: expected '$', got ' '\r\n"


def test_a_parser_that_found_a_fault_is_freed_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        parser = RequestParser(1000, trusted=True)
        parser.feed(b"*1\r\n:1\r\n")
        kept = weakref.ref(parser)
        del parser
        assert kept() is None
    finally:
        gc.enable()
