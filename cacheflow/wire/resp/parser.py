"""RequestParser: it makes requests out of a client's bytes, RESP arrays and inline commands.

1. hiredis parses what is plain: whole requests of up to 999 arguments. It would allocate whatever a header claims, so
   it never sees a piece of input that holds an unusual one.
2. Everything else (a request that comes in pieces, inline commands, long ones, nonsense) goes through ``_Exact``, which
   says what Redis says and keeps no more than it was told to.
"""

from __future__ import annotations

import re
from typing import Final

import hiredis

Request = list[bytes]

# Redis' own limits.
ELEMENTS_MAX: Final = 1024 * 1024
LINE_BYTES_MAX: Final = 64 * 1024
# What a word of a request takes beside its bytes.
WORD_BYTES: Final = 41
STRANGER_ELEMENTS_MAX: Final = 10
STRANGER_BULK_BYTES_MAX: Final = 16 * 1024

# Input that holds one of these is parsed exactly: an array that is not one of 1 to 999 bulk strings, any other type. Inside
# a value they only cost speed.
_UNUSUAL_ARRAY = re.compile(rb"\*(?![1-9][0-9]{0,2}\r\n\$)").search
_OTHER_TYPE = re.compile(rb"\n[-+:,(=!_#%~>|]").search
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]{0,18})").fullmatch
_END: Final = b"*0\r\n"
_STAR: Final = ord("*")
_DOLLAR: Final = ord("$")


class ProtocolFault(Exception):
    """Raised for bytes from a client that are no RESP request.

    The error's text is sent in a last reply, and then the connection is closed.
    """


class RequestParser:
    """A parser of one RESP client's input: it returns the requests that are complete, and none after a ``fault``.

    fault: the first error in the input, None so far.  request_bytes_max: the most bytes of one request.
    trusted: False until the client has authenticated; until then its requests must be short.
    """

    def __init__(self, request_bytes_max: int, trusted: bool) -> None:
        self.fault: ProtocolFault | None = None
        self._exact = _Exact(request_bytes_max, trusted)
        self._reader = hiredis.Reader()
        # True if hiredis may parse input.
        self._quick = trusted
        # True if a part of a request waits in ``_exact``.
        self.holds = False

    @property
    def trusted(self) -> bool:
        """True once the client whose input is parsed has authenticated, or if it need not."""
        return self._exact.trusted

    @trusted.setter
    def trusted(self, trusted: bool) -> None:
        self._exact.trusted = trusted
        self._quick = trusted and self.fault is None

    def take_requests_of(self, bytes_max: int) -> None:
        """Let a request of the client whose input is parsed have up to ``bytes_max`` bytes from now on."""
        self._exact.request_bytes_max = bytes_max

    @property
    def kept_bytes(self) -> int:
        """The bytes of memory that are taken by the incomplete request that this parser keeps."""
        return self._exact.kept_bytes if self.holds else 0

    def complete(self, data: bytes) -> tuple[list[Request], bytes]:
        """Add ``data``, input from a client, to the client's incomplete request.

        Returns (a list with that request, empty if it is still not complete; the input behind the request).
        """
        requests: list[Request] = []
        return requests, self._complete(data, requests)

    def feed(self, data: bytes) -> list[Request]:
        """Return the client's requests that are complete with its new input ``data``, in order.

        An incomplete request at the end is kept until more input comes.
        """
        requests: list[Request] = []
        if self.holds:
            data = self._complete(data, requests)
        if data and self._quick and data[0] == _STAR and not _UNUSUAL_ARRAY(data) and not _OTHER_TYPE(data):
            data = self._parse_plain(data, requests)
        if data:
            self._parse_exactly(data, requests)
        return requests

    def _complete(self, data: bytes, requests: list[Request]) -> bytes:
        """Add ``data``, input from a client, to the client's incomplete request; append a completed request to ``requests``.

        Returns the input behind the request.
        """
        exact = self._exact
        try:
            exact.add(data)
            if not exact.step(requests):
                return b""
        except ProtocolFault as fault:
            self._end(fault)
            return b""
        self.holds = False
        return exact.rest()

    def _parse_plain(self, data: bytes, requests: list[Request]) -> bytes:
        """Parse a client's input ``data`` with hiredis; append its requests to ``requests``, return the input not parsed."""
        reader = self._reader
        feed, gets = reader.feed, reader.gets
        feed(data)
        # An empty array behind the data comes out as one only if the last request was whole.
        feed(_END)
        first = len(requests)
        try:
            while request := gets():
                for argument in request:
                    if type(argument) is not bytes:
                        raise hiredis.ProtocolError
                requests.append(request)
            if request == []:
                return b""
        except (hiredis.ProtocolError, TypeError):
            # The exact parser comes to the same place and says what is wrong with it.
            pass
        self._reader = hiredis.Reader()
        taken = sum([_wire_bytes(request) for request in requests[first:]])
        while taken > len(data):
            # hiredis has taken the empty array at the end for an argument.
            taken -= _wire_bytes(requests.pop())
        return data[taken:]

    def _parse_exactly(self, data: bytes, requests: list[Request]) -> None:
        if self.fault is not None:
            return
        exact = self._exact
        try:
            exact.add(data)
            while exact.step(requests):
                pass
        except ProtocolFault as fault:
            self._end(fault)
        else:
            self.holds = exact.holds

    def _end(self, fault: ProtocolFault) -> None:
        # Its traceback leads back here: connection and parser would stay until the garbage collector comes, which is seldom.
        self.fault = fault.with_traceback(None)
        self._exact.forget()
        self._quick = self.holds = False


def _wire_bytes(request: Request) -> int:
    """Return how many bytes of input ``request`` was, a RESP request parsed by hiredis.

    The number is exact, because hiredis accepts only one spelling of each length.
    """
    size = 3 + len(b"%d" % len(request))
    for argument in request:
        length = len(argument)
        size += length + (6 if length < 10 else 7 if length < 100 else 5 + len(b"%d" % length))
    return size


class _Exact:
    """A parser of RESP input that comes in pieces of any size: it returns request after request.

    The limits and errors are those of Redis.
    """

    def __init__(self, request_bytes_max: int, trusted: bool) -> None:
        self.trusted = trusted
        self.request_bytes_max = request_bytes_max
        self._buffer = bytearray()
        # The request under way: its arguments so far, the number that is missing, the length of the next one (-1: unknown).
        self._arguments: Request = []
        self._missing = 0
        self._length = -1
        self._size = 0

    @property
    def holds(self) -> bool:
        """True if this parser keeps a part of a client's request, for which more input has to come."""
        return self._missing > 0 or len(self._buffer) > 0

    @property
    def kept_bytes(self) -> int:
        """The bytes of memory that are taken by the incomplete request that this parser keeps."""
        if not self._missing:
            return len(self._buffer)
        to_come = self._length + 2 if self._length >= 0 else 0
        return self._size - to_come + len(self._buffer) + WORD_BYTES * len(self._arguments)

    def add(self, data: bytes) -> None:
        self._buffer += data

    def rest(self) -> bytes:
        """Return the input that this parser holds behind the last complete request, and keep none of it."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def forget(self) -> None:
        self._buffer.clear()
        self._arguments = []

    def step(self, requests: list[Request]) -> bool:
        """Move the first request in this parser's buffer to the list ``requests``; return False while it is incomplete.

        Raises ProtocolFault for bytes that are no RESP request.
        """
        if not self._missing:
            if not self._buffer:
                return False
            if self._buffer[0] != _STAR:
                return self._inline(requests)
            if not self._array_header():
                return False
        position = 0
        try:
            while self._missing:
                if self._length < 0:
                    end = self._bulk_header(position)
                    if not end:
                        return False
                    position = end
                end = position + self._length
                if len(self._buffer) < end + 2:
                    return False
                self._arguments.append(bytes(self._buffer[position:end]))
                position = end + 2
                self._missing -= 1
                self._length = -1
        finally:
            del self._buffer[:position]
        if self._arguments:
            requests.append(self._arguments)
            self._arguments = []
        return True

    def _inline(self, requests: list[Request]) -> bool:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise ProtocolFault("too big inline request")
            return False
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        request = split_line(line)
        if request:
            requests.append(request)
        return True

    def _array_header(self) -> bool:
        end = self._line_end(0, "too big mbulk count string")
        if not end:
            return False
        count = _integer(self._buffer[1 : end - 2])
        if count is None or count > ELEMENTS_MAX:
            raise ProtocolFault("invalid multibulk length")
        if count > STRANGER_ELEMENTS_MAX and not self.trusted:
            raise ProtocolFault("unauthenticated multibulk length")
        del self._buffer[:end]
        self._size = end
        self._missing = max(0, count)
        return True

    def _bulk_header(self, start: int) -> int:
        """Note the length that a RESP argument's header, such as ``$5``, at ``start`` of the input gives.

        Returns the position behind the header, 0 while the header is incomplete. Raises ProtocolFault for a wrong header.
        """
        end = self._line_end(start, "too big bulk count string")
        if not end:
            return 0
        if self._buffer[start] != _DOLLAR:
            raise ProtocolFault(f"expected '$', got '{chr(self._buffer[start])}'")
        length = _integer(self._buffer[start + 1 : end - 2])
        if length is None or length < 0:
            raise ProtocolFault("invalid bulk length")
        if length > STRANGER_BULK_BYTES_MAX and not self.trusted:
            raise ProtocolFault("unauthenticated bulk length")
        self._size += end - start + length + 2
        if self._size > self.request_bytes_max:
            raise ProtocolFault("invalid bulk length")
        self._length = length
        return end

    def _line_end(self, start: int, too_long: str) -> int:
        """Return the position behind the line that begins at ``start`` of this parser's buffer; 0 for an incomplete line.

        Raises ProtocolFault with the text ``too_long`` when the line is too long.
        """
        end = self._buffer.find(b"\r", start, start + LINE_BYTES_MAX + 1)
        if end < 0:
            if len(self._buffer) - start > LINE_BYTES_MAX:
                raise ProtocolFault(too_long)
            return 0
        return end + 2 if end + 2 <= len(self._buffer) else 0


def _integer(digits: bytearray) -> int | None:
    return int(digits) if _INTEGER(digits) is not None else None


_WORD = re.compile(
    rb"""[\0\t-\r\x20]*
    (?:"((?:[^"\\]|\\.)*)"(?=[\0\t-\r\x20]|\Z)
      |'((?:[^'\\]|\\'|\\(?!'))*)'(?=[\0\t-\r\x20]|\Z)
      |([^\0\t-\r\x20"']+))""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_line(line: bytes) -> Request:
    """Return the words of ``line``, a Redis command that is not sent as an array; quotes work as in a shell.

    Raises ProtocolFault for unbalanced quotes.
    """
    if b'"' not in line and b"'" not in line:
        return line.replace(b"\0", b" ").split()
    words: Request = []
    position = 0
    word = b""
    glued = False
    while position < len(line):
        match = _WORD.match(line, position)
        if match is None:
            if line[position:].strip(b"\0\t\n\v\f\r "):
                raise ProtocolFault("unbalanced quotes in request")
            break
        double, single, bare = match.groups()
        if double is not None:
            piece = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]) if m[1] else _ESCAPED.get(m[2], m[2]), double)
        elif single is not None:
            piece = single.replace(b"\\'", b"'")
        else:
            piece = bare
        position = match.end()
        # A quote may open behind bare letters: both are one word. A closing one ends the word.
        glued = bare is not None and position < len(line) and line[position : position + 1] in (b'"', b"'")
        word += piece
        if not glued:
            words.append(word)
            word = b""
    return words
