"""A Redis server as the command ``import`` reads it: RESP2 over one plain connection, many commands at a time."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

from cacheflow.config import hidden
from cacheflow.errors import CacheFlowError, InvalidRequest, NotCommitted

TIMEOUT_S: Final = 30.0
PORT: Final = 6379
# What a reply may be at most; a server that says more is none, or lies.
BULK_BYTES_MAX: Final = 512 * 1024 * 1024
ARRAY_ITEMS_MAX: Final = 1_000_000
DEPTH_MAX: Final = 8


class RedisError(CacheFlowError):
    """Raised when a Redis server answers with an error, or when the bytes that come are no answer of such a server."""

    title = "Redis error"


class RedisSource:
    """A connection to a Redis server. Raises InvalidRequest for an invalid URL, NotCommitted without an answer.

    url: ``redis://[[user]:password@]host[:port][/database]``.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or PORT
            database = int(parts.path.strip("/") or 0)
            if parts.scheme != "redis" or not host:
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"{hidden(url)!r} is not redis://host:port/database") from None
        try:
            self._socket = socket.create_connection((host, port), TIMEOUT_S)
        except OSError as error:
            raise NotCommitted(f"{host}:{port} cannot be reached: {error}") from None
        self._file: BinaryIO = self._socket.makefile("rb")
        if parts.password is not None:
            user = [unquote(parts.username)] if parts.username else []
            self.ask("AUTH", *user, unquote(parts.password))
        if database:
            self.ask("SELECT", str(database))

    def close(self) -> None:
        """Close this connection to the Redis server."""
        self._file.close()
        self._socket.close()

    def ask(self, *words: str | bytes) -> Any:
        """Send one command to the Redis server and return the answer. Raises RedisError if the answer is an error."""
        [answer] = self.ask_all([words])
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def ask_all(self, commands: Sequence[Sequence[str | bytes]]) -> list[Any]:
        """Send all ``commands`` to the Redis server at once; return a list of answers, with exceptions for errors.

        Raises NotCommitted if the server does not answer."""
        sent = bytearray()
        for words in commands:
            sent += b"*%d\r\n" % len(words)
            for word in words:
                data = word.encode() if isinstance(word, str) else word
                sent += b"$%d\r\n%b\r\n" % (len(data), data)
        try:
            self._socket.sendall(sent)
            return [self._answer(0) for _ in commands]
        except OSError as error:
            raise NotCommitted(f"the Redis server broke off: {error or type(error).__name__}") from None

    def _answer(self, depth: int) -> Any:
        line = self._file.readline(64 * 1024)
        if not line.endswith(b"\r\n") or depth > DEPTH_MAX:
            raise RedisError("the Redis server broke off, or this is none")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisError(rest.decode(errors="replace"))
        try:
            number = int(rest)
        except ValueError:
            raise RedisError("this is no Redis server") from None
        if kind == b":":
            return number
        if kind == b"$" and -1 <= number <= BULK_BYTES_MAX:
            return None if number < 0 else self._bulk(number)
        if kind == b"*" and -1 <= number <= ARRAY_ITEMS_MAX:
            return None if number < 0 else [self._answer(depth + 1) for _ in range(number)]
        raise RedisError("this is no Redis server")

    def _bulk(self, size: int) -> bytes:
        data = self._file.read(size + 2)
        if len(data) != size + 2:
            raise RedisError("the Redis server broke off")
        return data[:-2]
