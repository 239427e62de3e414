"""Replies about many fields of a hash, or members of a set: made in slices where the hash is large, as all long work is."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, TypeVar

from cacheflow.machine.language import fields
from cacheflow.wire.resp.arguments import NOT_AN_INTEGER, SYNTAX, integer_of
from cacheflow.wire.resp.glob import PATTERN_BYTES_MAX, matcher
from cacheflow.wire.resp.replies import CommandError, bulk, said_in_pieces
from cacheflow.wire.streams import Reply, Stream

T = TypeVar("T")

# The bytes of a hash that are shown in one step: 1 ms of work where they are small fields.
SLICE_BYTES: Final = 8 * 1024
# The bytes that are searched at once for a reply, one that takes all fields apart counting 16 times.
SEARCHED_BYTES: Final = 1024 * 1024
# The fields that are shown, or drawn, in one step: less than 1 ms of work.
SHOWN_AT_ONCE: Final = 1000
# The longest answer, in which one large value may stand often; and the most fields that are drawn at random, some of them often.
ANSWER_BYTES_MAX: Final = 128 * 1024 * 1024
DRAWN_MAX: Final = 10_000


def listed(head: bytes, data: bytes, parts: slice) -> Reply:
    """Return a reply: the bytes ``head``, then parts of the encoded hash ``data`` as RESP bulk strings, in the hash's order.

    parts: the slice of the sequence field, value, field, value, ... that is shown.
    """
    if len(data) <= SLICE_BYTES:
        return head + b"".join([bulk(part) for part in fields.parts_of(data)[parts]])

    def pieces() -> Iterator[bytes]:
        yield head
        for some in fields.slices(data, SLICE_BYTES):
            yield b"".join([bulk(part) for part in fields.parts_of(some)[parts]])

    return Stream(pieces(), len(data))


def looked_up(data: bytes, names: list[bytes], show: Callable[[bytes | None], bytes]) -> Reply:
    """Return a RESP array of the values of the fields ``names`` of the encoded hash ``data``, as ``show`` encodes each.

    show: a function that encodes a value; it is given None for a field that is absent.
    """

    def pieces() -> Iterator[bytes]:
        absent = show(None)
        found = dict.fromkeys(names, absent)
        if len(found) <= fields.SINGLY_MAX:
            for name in found:
                found[name] = show(fields.value_in(data, name))
                yield b""
        else:
            for some in fields.slices(data, SLICE_BYTES):
                parts = fields.parts_of(some)
                for name, value in zip(parts[::2], parts[1::2], strict=True):
                    if name in found:
                        found[name] = show(value)
                yield b""
        if sum([len(found[name]) for name in names]) > ANSWER_BYTES_MAX:
            raise CommandError(f"ERR the answer is larger than {ANSWER_BYTES_MAX} bytes")
        yield b"*%d\r\n" % len(names)
        for name in names:
            yield found[name]

    if len(data) * (len(names) if len(names) <= fields.SINGLY_MAX else 16) <= SEARCHED_BYTES:
        return b"".join(said_in_pieces(pieces()))
    return Stream(said_in_pieces(pieces()), len(data))


def drawn(data: bytes, count: int) -> Generator[bytes, None, list[tuple[bytes, bytes]]]:
    """Return ``count`` random fields of the encoded hash or set ``data``, with their values; no field comes twice.

    With a negative ``count`` fields may come several times. A generator, which yields b"" now and then, so that the event loop
    can do other work. Raises CommandError when the answer would be too large.
    """
    if -count > DRAWN_MAX:
        raise CommandError("ERR value is out of range")
    total = fields.count(data)
    if not total:
        return []
    if count >= 0:
        places = yield from _places(total, count)
        return (yield from _at(data, places))
    drawn_places = random.choices(range(total), k=-count)
    yield b""
    once = sorted({*drawn_places})
    by_place = dict(zip(once, (yield from _at(data, once)), strict=True))
    found = [by_place[place] for place in drawn_places]
    yield b""
    # One large field may have been drawn often.
    if sum([len(field) + len(value) for field, value in found]) > ANSWER_BYTES_MAX:
        raise CommandError(f"ERR the answer is larger than {ANSWER_BYTES_MAX} bytes")
    return found


def _places(total: int, count: int) -> Generator[bytes, None, Sequence[int]]:
    """Return ``count`` different random numbers below ``total``, in ascending order; all of them if ``count`` is larger."""
    if count >= total:
        return range(total)
    if count <= SHOWN_AT_ONCE:
        return sorted(random.sample(range(total), count))
    # To sample many takes as long as all other steps together: so each number is taken, or not, in its turn.
    places: list[int] = []
    for start in range(0, total, SHOWN_AT_ONCE):
        for place in range(start, min(start + SHOWN_AT_ONCE, total)):
            if random.random() * (total - place) < count - len(places):
                places.append(place)
        yield b""
    return places


def _at(data: bytes, places: Sequence[int]) -> Generator[bytes, None, list[tuple[bytes, bytes]]]:
    """Return the pairs (field, value) at the positions ``places``, which ascend, in the encoded hash or set ``data``."""
    found: list[tuple[bytes, bytes]] = []
    behind = 0
    for some in fields.slices(data, SLICE_BYTES):
        before, behind = behind, behind + fields.count(some)
        parts = fields.parts_of(some) if len(found) < len(places) and places[len(found)] < behind else []
        while len(found) < len(places) and places[len(found)] < behind:
            at = 2 * (places[len(found)] - before)
            found.append((parts[at], parts[at + 1]))
        yield b""
    return found


def taken_from(items: list[T]) -> Iterator[list[T]]:
    """Yield ``items`` in lists of SHOWN_AT_ONCE, in order, and remove them from ``items``: so memory is freed step by step."""
    items.reverse()
    while items:
        some = items[-SHOWN_AT_ONCE:]
        del items[-SHOWN_AT_ONCE:]
        some.reverse()
        yield some


def at_once(steps: Generator[bytes, None, T]) -> T:
    """Run the generator ``steps`` to its end at once and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def some_of(data: bytes, count: int, show: Callable[[tuple[bytes, bytes]], bytes], each: int = 1) -> Reply:
    """Return a RESP array of ``count`` random fields of the encoded hash or set ``data``.

    show: the function that encodes a field with its value.  each: the number of array elements that this makes for one field.
    A negative ``count`` may give a field several times.
    """

    def pieces() -> Iterator[bytes]:
        found = yield from drawn(data, count)
        # What waits for its client is the reply: small fields take ten times as much, and nobody counts them.
        said = [b"*%d\r\n" % (each * len(found))]
        for some in taken_from(found):
            said.append(b"".join(map(show, some)))
            yield b""
        yield from said

    if len(data) <= SLICE_BYTES and count >= 0:
        return b"".join(said_in_pieces(pieces()))
    return Stream(said_in_pieces(pieces()), len(data))


def scanned(arguments: Sequence[bytes], data: bytes, *, is_set: bool) -> Reply:
    """Return the reply to HSCAN or SSCAN: all matching fields in one page, as Redis does for small hashes and sets.

    arguments: the words of the request.  data: the encoded hash or set.
    """
    if not arguments[2].isdigit() or len(arguments[2]) > 20:
        raise CommandError("ERR invalid cursor")
    matches: Callable[[bytes], object] | None = None
    with_values = not is_set
    options = iter(arguments[3:])
    for raw in options:
        option = raw.upper()
        if option == b"NOVALUES" and not is_set:
            with_values = False
        elif (word := next(options, None)) is None:
            raise CommandError(SYNTAX)
        elif option == b"COUNT":
            if integer_of(word, NOT_AN_INTEGER) < 1:
                raise CommandError(SYNTAX)
        elif option != b"MATCH":
            raise CommandError(SYNTAX)
        elif len(word) > PATTERN_BYTES_MAX:
            raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
        else:
            matches = None if word == b"*" else matcher(word)

    def pieces() -> Iterator[bytes]:
        count = 0
        said: list[bytes] = []
        for some in fields.slices(data, SLICE_BYTES):
            parts = found = fields.parts_of(some)
            if matches is not None or not with_values:
                found = []
                for name, value in zip(parts[::2], parts[1::2], strict=True):
                    if matches is None or matches(name):
                        found += (name, value) if with_values else (name,)
            count += len(found)
            said.append(b"".join(map(bulk, found)))
            yield b""
        yield b"*2\r\n$1\r\n0\r\n*%d\r\n" % count
        yield from said

    return b"".join(pieces()) if len(data) <= SLICE_BYTES else Stream(pieces(), len(data))


def members_in(data: bytes) -> Iterator[list[bytes]]:
    """Yield lists of the members of the encoded set ``data``, in the set's order; each list is short enough for one turn."""
    for some in fields.slices(data, SLICE_BYTES):
        yield fields.parts_of(some)[::2]
