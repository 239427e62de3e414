"""Mutations: a valid input's bytes, damaged at random."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

# Numbers that lengths and amounts are replaced by: borders of types, and what only looks like a number.
NUMBERS = (
    *(b"0", b"-1", b"1", b"00", b"2147483647", b"2147483648", b"-2147483649", b"4294967296", b"9223372036854775807"),
    *(b"9223372036854775808", b"-9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"1" * 40),
    *(b"1e309", b"nan", b"inf", b"0x10", b" 1", b"1 ", b"+1", b"", b"1.5", b"\xef\xbc\x91"),
)


def mutated(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    """Return ``data`` with one to four mutations. tokens: what the protocol's grammar knows, to be put in anywhere."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        data = random.choice(_MUTATIONS)(data, random, tokens)
    return data


def _flip(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def _cut(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    start, length = random.randrange(len(data) + 1), random.choice((1, 1, 2, 8, 64))
    return data[:start] + data[start + length :]


def _end(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _put(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(tokens) + data[at:]


def _noise(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 2, 8, 300))) + data[at:]


def _twice(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 4, 16, 64)))
    return data[:end] + data[start:end] * random.choice((1, 1, 3, 40)) + data[end:]


def _number(data: bytes, random: Random, tokens: tuple[bytes, ...]) -> bytes:
    digits = [at for at in range(len(data)) if data[at : at + 1].isdigit() and not data[max(0, at - 1) : at].isdigit()]
    if not digits:
        return data
    start = end = random.choice(digits)
    while data[end : end + 1].isdigit():
        end += 1
    return data[:start] + random.choice(NUMBERS) + data[end:]


_MUTATIONS: tuple[Callable[[bytes, Random, tuple[bytes, ...]], bytes], ...] = (
    _flip,
    _cut,
    _end,
    _put,
    _noise,
    _twice,
    _number,
    _number,
)
