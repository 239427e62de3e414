"""A plugin for pytest: who connects to a server's usual port comes to the server under test instead.

So a suite that names ports in its tests and settings is run unchanged. CONFORMANCE_PORTS: ``usual=actual``, with commas.
"""

from __future__ import annotations

import os
import socket
from typing import Any

PORTS = {
    int(usual): int(actual)
    for usual, actual in (pair.split("=") for pair in os.environ["CONFORMANCE_PORTS"].split(","))
}
_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


def _placed(address: Any) -> Any:
    """Return the address to connect to in the place of ``address``."""
    if isinstance(address, tuple) and address[1] in PORTS:
        return (address[0], PORTS[address[1]], *address[2:])
    return address


def _connected(self: socket.socket, address: Any) -> None:
    _connect(self, _placed(address))


def _connected_ex(self: socket.socket, address: Any) -> int:
    return _connect_ex(self, _placed(address))


socket.socket.connect = _connected  # type: ignore[method-assign,assignment]
socket.socket.connect_ex = _connected_ex  # type: ignore[method-assign,assignment]
