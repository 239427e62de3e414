"""Round trip: how long a packet on a connection takes to the other side and back. The system knows; no message is sent for it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

# Linux' struct tcp_info begins with eight bytes and fifteen numbers; the next one is the smoothed round trip, in microseconds.
_RTT_AT: Final = 8 + 15 * 4
_RTT: Final = struct.Struct("=I")


def round_trip_s(transport: asyncio.BaseTransport | None) -> float | None:
    """Return the seconds that a packet on ``transport``, a TCP connection, takes to the other side and back.

    Returns None where the system does not tell, and for a connection that is closed. Any thread may call it.
    """
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":
        return None
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + _RTT.size)
    except OSError:
        return None
    if len(told) < _RTT_AT + _RTT.size:
        return None
    return float(_RTT.unpack_from(told, _RTT_AT)[0]) / 1e6
