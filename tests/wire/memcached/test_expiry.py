"""exptime, as memcached's protocol.txt has it."""

from __future__ import annotations

import pytest
from wire.fake_store import START_MS, FakeStore
from wire.memcached_client import talk

from cacheflow.wire.memcached.expiry import OVER, exptime_of, seconds_left, ttl_ms_of

NOW_S = START_MS // 1000
DAYS_30_S = 30 * 86400


@pytest.mark.parametrize(
    ("exptime", "ttl_ms"),
    [
        (0, 0),
        (1, 1000),
        (DAYS_30_S, DAYS_30_S * 1000),
        (-1, OVER),
        (-(2**31), OVER),
        (DAYS_30_S + 1, OVER),
        (NOW_S - 1, OVER),
        (NOW_S, OVER),
        (NOW_S + 1, 1000),
        (NOW_S + 5_000_000, 5_000_000_000),
    ],
)
def test_a_time_is_relative_up_to_30_days_and_absolute_above(exptime: int, ttl_ms: int) -> None:
    assert ttl_ms_of(exptime, float(NOW_S)) == ttl_ms


@pytest.mark.parametrize(
    ("word", "number"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"2147483647", 2**31 - 1),
        (b"2147483648", None),
        (b"-2147483648", -(2**31)),
        (b"-2147483649", None),
        (b"00000000000000000001", None),
        (b"9" * 5000, None),
        (b"+1", None),
        (b"1_0", None),
        (b"1.5", None),
        (b"\t1", None),
        (b"-", None),
        (b"", None),
    ],
)
def test_it_is_a_signed_number_of_32_bits(word: bytes, number: int | None) -> None:
    assert exptime_of(word) == number


def test_what_is_left_is_told_in_whole_seconds() -> None:
    assert [seconds_left(end, 10_000) for end in (0, 10_001, 11_000, 11_001, 9_000)] == [-1, 1, 1, 2, 0]


def test_an_entry_ends_when_its_time_has_come() -> None:
    store = FakeStore()
    talk(b"set k 0 2 1\r\n1\r\n", b"set a 0 %d 1\r\n1\r\n" % (NOW_S + 3), store=store)
    store.clock_ms += 1_999
    assert talk(b"get k a\r\n", store=store) == [b"VALUE k 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nEND\r\n"]
    store.clock_ms += 1
    assert talk(b"get k a\r\n", store=store) == [b"VALUE a 0 1\r\n1\r\nEND\r\n"]
    store.clock_ms += 1_000
    assert talk(b"get k a\r\n", store=store) == [b"END\r\n"]
