"""The commands get, gets, gat and gats: they return values by key."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from cacheflow.contract import DATA, KIND, Entry, WireStore
from cacheflow.errors import NotReady
from cacheflow.machine.language import commands
from cacheflow.machine.language.commands import Result
from cacheflow.values import VALUE_MAX
from cacheflow.wire.connection import Connection
from cacheflow.wire.memcached.expiry import OVER
from cacheflow.wire.memcached.lines import FLAGS, WRONG_KIND, Refused, server_error
from cacheflow.wire.streams import JOINED_BYTES_MAX, Failure, Stream

END = b"END\r\n"
# The keys of one gat: all are one entry of the log and one reply. A new expiry costs twice what a plain write does.
TOUCHED_KEYS_MAX = 500
# The keys of one get, as of one request over RESP.
KEYS_MAX = 5000
TOO_MANY_TO_GET = b"CLIENT_ERROR at most %d keys in one get\r\n" % KEYS_MAX
TOO_MANY_KEYS = b"CLIENT_ERROR at most %d keys in one gat\r\n" % TOUCHED_KEYS_MAX
TOO_MUCH = b"SERVER_ERROR out of memory writing get response\r\n"


def value_line(word: bytes, entry: Entry) -> bytes:
    """Return the part of memcached's reply to get that shows one entry: the VALUE line with the key ``word``, and the data.

    Raises Refused for a hash and a set.
    """
    if entry[KIND] > VALUE_MAX:
        raise Refused(WRONG_KIND)
    data, _, meta = entry[:3]
    return b"VALUE %b %d %d\r\n%b\r\n" % (word, meta & FLAGS if type(meta) is int else 0, len(data), data)


def value_line_with_cas(word: bytes, entry: Entry) -> bytes:
    """Return the part of memcached's reply to gets that shows one entry: the VALUE line with its version, and the data."""
    if entry[KIND] > VALUE_MAX:
        raise Refused(WRONG_KIND)
    data, _, meta, version, _ = entry
    return b"VALUE %b %d %d %d\r\n%b\r\n" % (
        word,
        meta & FLAGS if type(meta) is int else 0,
        len(data),
        version,
        data,
    )


def not_ready(error: NotReady) -> bytes:
    """Return memcached's error reply to a read that this node cannot answer yet, with ``error`` as the reason."""
    return server_error(f"not ready: {error}")


class Fetch:
    """A memcached client's get of several keys, answered key by key, so that many large values are not in memory at once."""

    def __init__(self, words: list[bytes], keys: list[str], with_cas: bool) -> None:
        self._words = words
        self._keys = keys
        self._show = value_line_with_cas if with_cas else value_line
        self._next = 0
        # What the reply ends with once a key could not be answered, in place of END.
        self._failure = b""

    def go_on(self, connection: Connection) -> bool:
        """Answer as many keys of this get as the client's ``connection`` may answer now; return whether all are answered."""
        if connection.answers_at_once and not self._failure:
            return self._at_once(connection)
        keys = self._keys
        while self._next < len(keys):
            if not connection.goes_on:
                return False
            connection.read(functools.partial(self._one, connection, self._next), self._refused)
            self._next += 1
        connection.read(self._end, self._end_refused)
        return True

    def _at_once(self, connection: Connection) -> bool:
        connection.answer(Stream(self._pieces(connection.store)))
        return True

    def _pieces(self, store: WireStore) -> Iterator[bytes]:
        """Yield the whole reply to this memcached get, piece by piece; a long value is a piece of its own, not copied."""
        show = self._show
        for word, key in zip(self._words, self._keys, strict=True):
            try:
                entry = store.lookup(key)
            except NotReady as error:
                yield Failure(not_ready(error))
                return
            if entry is not None and entry[KIND] > VALUE_MAX:
                yield Failure(WRONG_KIND)
                return
            if entry is None:
                yield b""
            elif len(entry[DATA]) <= JOINED_BYTES_MAX:
                yield show(word, entry)
            else:
                data, kind, meta, version, expires_at_ms = entry
                # A line for an empty value has everything but the length.
                line = show(word, (b"", kind, meta, version, expires_at_ms)).split()
                line[3] = b"%d" % len(data)
                yield b" ".join(line) + b"\r\n"
                yield data
                yield b"\r\n"
        yield END

    def _one(self, connection: Connection, number: int) -> bytes:
        if self._failure:
            return b""
        try:
            entry = connection.store.lookup(self._keys[number])
        except NotReady as error:
            return self._refused(not_ready(error))
        try:
            return b"" if entry is None else self._show(self._words[number], entry)
        except Refused as refused:
            return self._refused(refused.reply)

    def _refused(self, failure: bytes) -> bytes:
        """Have the reply to this get end with the error ``failure``, if it is the first one; return no bytes."""
        self._failure = self._failure or failure
        return b""

    def _end(self) -> bytes:
        return self._failure or END

    def _end_refused(self, failure: bytes) -> bytes:
        return self._failure or failure


def fetch_and_touch(connection: Connection, words: list[bytes], keys: list[str], ttl_ms: int, with_cas: bool) -> None:
    """Answer memcached's gat or gats: read ``keys`` and give them the TTL ``ttl_ms``, all in one entry of the log.

    words: the keys as the client wrote them.  with_cas: show versions, as gats does.
    """
    if len(keys) > TOUCHED_KEYS_MAX:
        connection.reply(TOO_MANY_KEYS)
        return
    batch = []
    for key in keys:
        # The read comes first: a removed key cannot be read. What is not shown is not touched either.
        ends = commands.TTL_ENDED if ttl_ms == OVER else ttl_ms
        batch += [commands.get(key), commands.expire(key, ends, commands.IF_ONE_VALUE)]

    def answer(result: Result) -> bytes:
        read = result[1][::2]
        if any(got[0] == commands.TOO_LARGE for got in read):
            return TOO_MUCH
        found = [(word, got[1:]) for word, got in zip(words, read, strict=True) if got[0] == commands.OK]
        show = value_line_with_cas if with_cas else value_line
        try:
            return b"".join([show(word, entry) for word, entry in found] + [END])
        except Refused as refused:
            return refused.reply

    connection.write(commands.batch(batch), answer)
