"""Raw sockets against a server: what goes out byte for byte, and answers taken apart."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection; a context manager."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Connection:
        self.socket.sendall(data)
        return self

    def reply(self, with_body: bool = True) -> Reply:
        """The next answer. Raises EOFError at the end of the connection."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(headers.get("content-length", 0)) if with_body else 0
        while len(self._buffer) < size:
            self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Reply(int(first.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes now, without another byte."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError("the server closed the connection")
        self._buffer += data


def ask(port: int, method: str, path: str, body: bytes = b"", headers: str = "") -> Reply:
    """One request on a connection of its own."""
    with Connection(port) as connection:
        connection.send(request(method, path, body, headers))
        return connection.reply(with_body=method != "HEAD")


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n".encode("latin-1") + body


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for ``condition``, with a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.005)
