"""A real node with a user of each role, on every port, and connections to it."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from pathlib import Path

from cluster.processes import HOST, NodeProcess, Place, wait_for
from fakes.certificates import Authority

from cacheflow.access.roles import ROLES
from cacheflow.access.users_file import line_of, new_token
from cacheflow.cli.launcher import free_ports


class Guarded:
    """A node with users. tokens: by the name of the user, which is that of the role; "nobody" has none.

    authority: signs the certificate of a node that speaks TLS; None for plain ports.
    """

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        self.tokens: dict[str, str | None] = {"nobody": None, **{role: new_token() for role in ROLES}}
        self.secret_file, self.users_file = folder / "secret", folder / "users"
        self.secret_file.write_text("the secret of all nodes")
        self.write_users(self.tokens)
        self.resp_port, self.memcached_port = free_ports(2)
        flags = ["--cluster-secret-file", str(self.secret_file), "--users-file", str(self.users_file)]
        wires = ["--resp-port", str(self.resp_port), "--memcached-port", str(self.memcached_port)]
        if authority is not None:
            flags += authority.flags()
        self.node = NodeProcess(1, folder, [*flags, *wires], place=Place(token=self.tokens["admin"]))
        self.node.ca = None if authority is None else authority.crt
        self._context = None if authority is None else authority.trusted()

    def write_users(self, tokens: dict[str, str | None], roles: dict[str, str] | None = None) -> None:
        """Write the file of users. roles: of those whose role is another than their name."""
        given = {name: ROLES[(roles or {}).get(name, name)] for name in tokens if name != "nobody"}
        lines = [line_of(name, role, tokens[name] or "") for name, role in given.items()]
        self.users_file.write_text("".join(f"{line}\n" for line in lines))

    def reload(self) -> None:
        """Send SIGHUP, and wait until it is done."""
        before = self.said()
        self.node.signal(signal.SIGHUP)
        wait_for(lambda: self.said() > before)

    def said(self) -> int:
        """How many times the node has said that it has read the users, or could not."""
        output = self.node.output()
        return output.count(" users were read") + output.count("the users of before stay")

    def dial(self, port: int) -> Wire:
        """A connection to one of its wire ports."""
        return Wire(port, self._context)


class Wire:
    """One connection to a wire port. context: how to connect with TLS; None: without."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=10)
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname=HOST)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, data: bytes) -> bytes:
        """Send ``data``, and return the first line of what comes back; nothing at the end of the connection."""
        self.send(data)
        return self.line()

    def send(self, data: bytes) -> None:
        """Send ``data``."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def line(self) -> bytes:
        """Return the next line without its end; nothing at the end of the connection."""
        try:
            return self._file.readline().rstrip(b"\r\n")
        except ConnectionResetError:
            return b""

    def rest(self) -> bytes:
        """Return everything until the end of the connection."""
        return self._file.read()
