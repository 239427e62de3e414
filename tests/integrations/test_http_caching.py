"""The rules of a shared HTTP cache, and what it keeps: without a cluster."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow.integrations.http_caching import records, rules
from cacheflow.integrations.http_caching.records import Answer, Variants
from cacheflow.integrations.http_caching.rules import ANONYMOUS, EVERYBODY, UNAUTHORIZED, Fields, Lifetime


def fields(**values: str) -> Fields:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("max-age=60", (60, 0, UNAUTHORIZED)),
        ("public, max-age=60", (60, 0, EVERYBODY)),
        ("max-age=60, s-maxage=5", (5, 0, UNAUTHORIZED)),
        ('Max-Age="60"', (60, 0, UNAUTHORIZED)),
        ("max-age=60, max-age=5", (60, 0, UNAUTHORIZED)),
        ("max-age=60, stale-while-revalidate=30", (60, 30, UNAUTHORIZED)),
        ("max-age=0, stale-while-revalidate=30", (0, 30, UNAUTHORIZED)),
        ("max-age=60, stale-while-revalidate=30, must-revalidate", (60, 0, UNAUTHORIZED)),
        ("max-age=99999999999999999999", (rules.SECONDS_MAX, 0, UNAUTHORIZED)),
        ("max-age=60, no-store", None),
        ("max-age=60, private", None),
        ('max-age=60, private="set-cookie"', None),
        ("max-age=60, no-cache", None),
        ("max-age=0", None),
        ("max-age=-5", None),
        ("max-age=1.5", None),
        ("max-age=", None),
        ("public", None),
        ("", None),
    ],
)
def test_how_long_an_answer_is_kept(said: str, kept: tuple[int, int, int] | None) -> None:
    assert rules.lifetime_of([], 200, fields(cache_control=said), None) == (None if kept is None else Lifetime(*kept))


def test_what_is_never_kept() -> None:
    said = {"cache_control": "max-age=60"}
    assert rules.lifetime_of([], 200, fields(**said), None)
    for status in (100, 206, 302, 304, 500, 503):
        assert rules.lifetime_of([], status, fields(**said), 60) is None
    assert rules.lifetime_of([], 200, fields(**said, set_cookie="a=b"), 60) is None
    assert rules.lifetime_of([], 200, fields(cache_control="public, max-age=5", set_cookie="a=b"), 60) is None
    assert rules.lifetime_of([], 200, fields(**said, vary="accept, *"), 60) is None
    assert rules.lifetime_of([], 200, fields(**said, vary=",".join(map(str, range(17)))), 60) is None
    assert rules.lifetime_of([], 200, fields(**said, age="60"), 60) is None
    assert rules.lifetime_of([], 200, fields(**said, age="20"), 60) == Lifetime(40, 0, UNAUTHORIZED)


def test_whom_an_answer_is_for() -> None:
    anonymous, known, trusted = fields(accept="*/*"), fields(cookie="id=7"), fields(authorization="Bearer x")
    plain, public, silent = fields(cache_control="max-age=5"), fields(cache_control="max-age=5, public"), fields()
    assert [rules.lifetime_of(asked, 200, plain, 9) for asked in (anonymous, known, trusted)] == [
        *(Lifetime(5, 0, UNAUTHORIZED),) * 2,
        None,
    ]
    assert [rules.lifetime_of(asked, 200, public, 9) for asked in (anonymous, known, trusted)] == [
        Lifetime(5, 0, EVERYBODY)
    ] * 3
    assert [rules.lifetime_of(asked, 200, silent, 9) for asked in (anonymous, known, trusted)] == [
        Lifetime(9, 0, ANONYMOUS),
        None,
        None,
    ]
    assert rules.lifetime_of(anonymous, 404, silent, 9) is None
    assert rules.lifetime_of(anonymous, 200, fields(expires="Thu, 01 Jan 1970 00:00:00 GMT"), 9) is None
    seen = [[rules.may_see(audience, asked) for asked in (anonymous, known, trusted)] for audience in range(3)]
    assert seen == [[True, False, False], [True, True, False], [True, True, True]]


def test_what_a_request_wants() -> None:
    assert rules.wish_of([]) == rules.Wish(True, None)
    assert rules.wish_of(fields(cache_control="no-store")) == rules.Wish(False, None)
    assert rules.wish_of(fields(cache_control="no-cache")) == rules.Wish(True, -1)
    assert rules.wish_of(fields(cache_control="max-age=0")) == rules.Wish(True, 0)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b", W/"a"', True),
        ("*", True),
        ('"b"', False),
        ('"b,a"', False),
        ("a", False),
        ("", False),
    ],
)
def test_which_answer_a_request_has_already(given: str, same: bool) -> None:
    for tag in ('"a"', 'W/"a"'):
        assert rules.is_the_same(fields(if_none_match=given), fields(etag=tag)) is same
    assert not rules.is_the_same(fields(if_none_match=given), [])
    assert not rules.is_the_same([], fields(etag='"a"'))


def test_two_requests_share_no_key() -> None:
    asked = [
        ("GET", "http", "a", b"/x", b""),
        ("HEAD", "http", "a", b"/x", b""),
        ("GET", "https", "a", b"/x", b""),
        ("GET", "http", "b", b"/x", b""),
        ("GET", "http", "a/x", b"", b""),
        ("GET", "http", "a", b"/x", b"y"),
        ("GET", "http", "a", b"/x?y", b""),
        ("GET", "http", "a", b"/x%23", b""),
        ("GET", "http", "a", b"/x#", b""),
        ("GET", "http", "a", b"/" + b"x" * 5000, b"1"),
        ("GET", "http", "a", b"/" + b"x" * 5000, b"2"),
        ("GET", "http", "a\x00\n\xff", b"/\x00\xff", b"\n"),
    ]
    keys = {rules.key_of("http", *each) for each in asked}
    assert len(keys) == len(asked)
    assert all(key.isascii() and key.isprintable() and len(key) < 800 for key in keys)
    assert rules.key_of("p", "GET", "https", "shop.example", b"/a/b", b"c=d").startswith(
        "p:https://shop.example/a/b?c=d#"
    )


def test_variants_differ_by_the_named_fields_alone() -> None:
    def key(made: bytes, **values: str) -> str:
        return rules.variant_key("k", made, ["accept", "accept-language"], fields(**values))

    assert key(b"1", accept="a", accept_language="de", cookie="x") == key(b"1", accept="a", accept_language="de")
    others = {
        key(b"1"),
        key(b"2"),
        key(b"1", accept="a"),
        key(b"1", accept_language="a"),
        key(b"1", accept="", accept_language="a, b"),
    }
    assert len(others) == 5


ANSWER = Answer(200, [(b"content-type", b"text/plain")], b"\x00\xff", Lifetime(5, 6, EVERYBODY), 7)


def test_records_come_back() -> None:
    assert records.unpacked(records.packed(ANSWER)) == ANSWER
    variants = Variants(["accept"], b"12345678")
    assert records.unpacked(records.packed(variants)) == variants


@pytest.mark.parametrize(
    "parts",
    [
        [],
        None,
        {},
        [1],
        [9, 200, [], b"", 1, 1, 1, 0],
        [1, 200, [], b"", 1, 1, 1],
        [1, 999, [], b"", 1, 1, 1, 0],
        [1, 200, [[b"a", b"b\r\nset-cookie: c"]], b"", 1, 1, 1, 0],
        [1, 200, [[b"a\n", b"b"]], b"", 1, 1, 1, 0],
        [1, 200, [["a", b"b"]], b"", 1, 1, 1, 0],
        [1, 200, [[b"a"]], b"", 1, 1, 1, 0],
        [1, 200, [], "text", 1, 1, 1, 0],
        [1, 200, [], b"", -1, 1, 1, 0],
        [1, 200, [], b"", 1, 2**40, 1, 0],
        [1, 200, [], b"", 1, 1, 3, 0],
        [1, 200, [], b"", 1.5, 1, 1, 0],
        [2, [], b""],
        [2, [7], b""],
        [2, ["accept"] * 17, b""],
        [2, ["accept"], "text"],
    ],
)
def test_anything_else_counts_as_absent(parts: Any) -> None:
    assert records.unpacked(msgpack.packb(parts)) is None


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    assert records.unpacked(data) is None or records.packed(records.unpacked(data))  # type: ignore[arg-type]


def test_no_cut_record_is_one() -> None:
    whole = records.packed(ANSWER)
    assert [records.unpacked(whole[:end]) for end in range(len(whole))] == [None] * len(whole)
