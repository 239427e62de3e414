"""memcached's text protocol: where a connection's bytes become requests (github.com/memcached/memcached, protocol.txt).

1. Plain gets are answered in ``data_received`` itself, in a few operations; everything else goes through ``take``.
2. A request's errors are memcached's own words. What only a replicated cache can answer: ``SERVER_ERROR not committed``
   (certainly not applied: safe to send again), ``SERVER_ERROR outcome unknown`` and ``SERVER_ERROR not ready``.
3. How the same bytes are cut into pieces never changes what is answered.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ClassVar, Final

from cacheflow.access.users import Access
from cacheflow.contract import WireStore as Store
from cacheflow.errors import NotReady, OutcomeUnknown, ReplicationError
from cacheflow.measuring.request_times import OK, UNKNOWN, RequestTimes
from cacheflow.net.slices import Slices
from cacheflow.wire.connection import REPLY_BYTES_MAX, Connection
from cacheflow.wire.memcached import lines
from cacheflow.wire.memcached.fetch import END, value_line
from cacheflow.wire.memcached.gets import answer_gets, value_lines
from cacheflow.wire.memcached.meta.commands import META
from cacheflow.wire.memcached.meta.store import meta_set
from cacheflow.wire.memcached.session import MemcachedSession, Shared
from cacheflow.wire.memcached.storage import INCOMPLETE, STORED, store, value_behind
from cacheflow.wire.memcached.text import COMMANDS, READS, version_text
from cacheflow.wire.port import WirePort

REFUSAL: Final = b"ERROR Too many open connections\r\n"
TLS_ONLY: Final = b"SERVER_ERROR this port speaks TLS only\r\n"
UNAUTHENTICATED: Final = b"CLIENT_ERROR unauthenticated\r\n"
AUTHENTICATION_BYTES_MAX: Final = 1024
# The first byte of each request in memcached's binary protocol, which is not served: its client would wait for ever.
_BINARY: Final = 0x80

_WITH_VALUE: Final = {
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), store),
    b"ms": meta_set,
}
# The names of all commands, as they are measured.
_NAMES: Final = {name: name.decode() for name in (*_WITH_VALUE, *COMMANDS, *META)}
_MANY_KEYS: Final = (b"get ", b"gets ", b"gat ", b"gats ")


def memcached_port(
    store: Store,
    *,
    value_bytes_max: int,
    access: Access | None,
    connections_max: int,
    wall_s: Callable[[], float] = time.time,
    slices: Slices | None = None,
) -> WirePort:
    """Return the port that serves memcached's protocol to clients of ``store``, a node's cache.

    slices: limits how much of each turn long work may take; shared with the other ports of the event loop.
    """
    times = RequestTimes("memcached", store.slow_log)
    shared = Shared(version_text(), value_bytes_max, access, wall_s, times, slices)
    shared.port = WirePort(
        "memcached",
        lambda closed: MemcachedConnection(store, shared, closed),
        REFUSAL,
        TLS_ONLY,
        connections_max,
        functools.partial(answer_gets, store, times),
        shared.limit_values,
        times,
    )
    return shared.port


class MemcachedConnection(MemcachedSession):
    """One client's connection that speaks memcached's protocol. Not safe for concurrent use: the event loop owns it."""

    TOO_LONG: ClassVar[bytes] = lines.TOO_LONG

    def __init__(self, store: Store, shared: Shared, on_closed: Callable[[Connection], None]) -> None:
        super().__init__(store, shared, on_closed)
        # What each get that is answered at once is noted in, and the name of the latest other request.
        self._gets = self.times.histogram("get")
        self._command = UNKNOWN

    def data_received(self, data: bytes) -> None:
        if self.at_rest and data.startswith(b"get ") and data.endswith(b"\r\n"):
            came_s, before = self._clock(), self.requests
            line = data[4:-2]
            answer = self._found(line) or self._found_row(line)
            if answer is not None:
                self.requests += 1
                self._transport.write(answer)
                seconds = self._clock() - came_s
                self._gets.note(seconds, self.requests - before)
                if seconds >= self.times.slow.from_s:
                    words = data.split(b"\r\n", 1)[0].split(b" ")
                    self.note_slow("get", OK, seconds, words, self.requests - before)
                return
        super().data_received(data)

    @property
    def is_due(self) -> bool:
        return super().is_due or not self.may_read or (self.skip > 0 and not self._paused)

    def may_rest(self) -> bool:
        return self.may_read and not self.skip and super().may_rest()

    def _found_row(self, line: bytes) -> bytes | None:
        """Return the reply to a memcached get of several keys, or to several gets of one key each; None for anything else.

        line: the client's input without the leading ``get `` and without the last end of line.
        """
        gets = line.split(b"\r\nget ")
        one_by_one = len(gets) > 1
        found = value_lines(self.store, gets if one_by_one else line.split(b" "))
        if found is None:
            return None
        self.requests += len(gets) - 1
        return (END if one_by_one else b"").join(found) + END

    def _found(self, word: bytes) -> bytes | None:
        """Return the whole reply to a memcached get of the key ``word``; None if the general, slower code has to answer."""
        if not word.isascii():
            return None
        key = word.decode()
        # A blank: these are several keys, or several requests.
        if " " in key or not (key.isprintable() and 0 < len(key) <= lines.KEY_BYTES_MAX):
            return None
        try:
            entry = self.store.lookup(key)
            return END if entry is None else value_line(word, entry) + END
        except (NotReady, lines.Refused):
            return None

    def _found_all(self, data: bytes, at: int) -> int:
        """Answer memcached gets of one key each that stand in a row from position ``at`` of the client's input ``data``.

        Returns the position behind the last get that was answered.
        """
        answers: list[bytes] = []
        size, first = 0, at
        while size < REPLY_BYTES_MAX and data.startswith(b"get ", at):
            end = data.find(b"\r\n", at)
            answer = self._found(data[at + 4 : end]) if end > 0 else None
            if answer is None:
                break
            answers.append(answer)
            size += len(answer)
            at = end + 2
        if answers:
            self.requests += len(answers)
            self.reply(b"".join(answers))
            self.asked("get", data[first : data.find(b"\r\n", first)].split(b" "), len(answers))
        return at

    def take(self, data: bytes) -> int:
        """Handle the complete requests at the start of the client's input ``data``; return how many bytes they took."""
        at, size = 0, len(data)
        while at < size and self.goes_on:
            if self.skip:
                skipped = min(self.skip, size - at)
                self.skip -= skipped
                at += skipped
                continue
            if data.startswith(b"get ", at) and self.may_read and self.fetch is None and self.answers_at_once:
                behind = self._found_all(data, at)
                if behind != at:
                    at = behind
                    continue
            end = data.find(b"\n", at)
            if self._is_too_long(data, at, size if end < 0 else end):
                self.close(self.TOO_LONG)
                return size
            if data[at] == _BINARY:
                self.close(lines.ERROR)
                return size
            if end < 0 or self.rests():
                break
            behind = self._request(data, at, end) if self.may_read else self._authenticate(data, at, end)
            if behind == INCOMPLETE:
                break
            self.requests += 1
            self.asked(self._command, self.words)
            at = behind
        return at

    def failure(self, error: ReplicationError) -> bytes:
        """Return memcached's error reply to a request that failed with ``error``: not committed, or of unknown outcome."""
        unknown = isinstance(error, OutcomeUnknown)
        return lines.server_error(f"{'outcome unknown' if unknown else 'not committed'}: {error}")

    def _is_too_long(self, data: bytes, at: int, end: int) -> bool:
        if end - at <= lines.LINE_BYTES_MAX:
            return False
        return end - at > lines.KEYS_LINE_BYTES_MAX or not data.startswith(_MANY_KEYS, at) or not self.may_read

    def _request(self, data: bytes, at: int, end: int) -> int:
        """Handle the memcached request whose command line is ``data[at:end]``, in a client's input ``data``.

        Returns the position behind the request, or INCOMPLETE when it has not arrived in full or its reply is not finished.
        """
        stop = end - 1 if end > at and data[end - 1] == 13 else end
        if self.fetch is None:
            words = self.words = lines.words_of(data[at:stop])
            name = words[0] if words else b""
            self._command = _NAMES.get(name, UNKNOWN)
            if not self.may_write and name not in READS and (name in _WITH_VALUE or name in COMMANDS or name in META):
                self._forbid(words)
                return end + 1
            with_value = _WITH_VALUE.get(name)
            if with_value is not None:
                return with_value(self, words, data, end)
            one_line = COMMANDS.get(name) or META.get(name)
            if one_line is None:
                self._unknown(words)
                return end + 1
            try:
                one_line(self, words)
            except lines.Refused as refused:
                self.reply(refused.reply)
        if self.fetch is not None:
            if not self.fetch.go_on(self):
                return INCOMPLETE
            self.fetch = None
        return end + 1

    def _forbid(self, words: list[bytes]) -> None:
        """Refuse a memcached command that writes, and skip the value that follows its command line.

        words: the words of the command line.
        """
        if words[0] in _WITH_VALUE:
            place = 2 if words[0] == b"ms" else 4
            size = lines.number_of(words[place], lines.VALUE_BYTES_LAST) if len(words) > place else None
            self.skip = 0 if size is None else size + 2
        refusal = self.forbidden(words[0])
        self.reply(b"" if words[-1] == b"noreply" else refusal)

    def _unknown(self, words: list[bytes]) -> None:
        if words and words[-1].startswith(b"HTTP/"):
            # A browser was made to send commands in the body of a request.
            self.close()
        elif len(words) < 2 and len(b"".join(words)) < 2:
            self.reply(lines.BAD_FORMAT)
        else:
            self.reply(b"" if words[-1] == b"noreply" else lines.ERROR)

    def _authenticate(self, data: bytes, at: int, end: int) -> int:
        """Handle ``set <any key> 0 0 <bytes>`` with the value ``user token``: the only request before authentication.

        Its command line is ``data[at:end]`` in the client's input ``data``. Returns the position behind the request, or
        INCOMPLETE when the value has not arrived in full.
        """
        words = self.words = lines.words_of(data[at:end].rstrip(b"\r"))
        self._command = lines.AUTH
        size = lines.number_of(words[4]) if len(words) >= 5 and words[0] == b"set" else None
        access = self.shared.access
        assert access is not None
        if size is None:
            access.refuse("memcached")
            self.reply(UNAUTHENTICATED)
            return end + 1
        if size > AUTHENTICATION_BYTES_MAX:
            self.reply(b"CLIENT_ERROR auth token too long\r\n")
            return end + 1
        shown = value_behind(self, data, end, size)
        if shown is None:
            return INCOMPLETE
        behind = end + size + 3
        _, blank, token = shown.partition(b" ")
        if not data.startswith(b"\r\n", behind - 2):
            self.reply(b"CLIENT_ERROR bad command line termination\r\n")
        elif not blank:
            self.reply(b"CLIENT_ERROR bad authentication token format\r\n")
        elif (user := access.user_of(token)) is not None:
            self.admit(user)
            self.reply(STORED)
        else:
            access.refuse("memcached")
            self.reply(b"CLIENT_ERROR authentication failure\r\n")
        return behind
