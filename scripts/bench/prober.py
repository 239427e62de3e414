"""A process that asks a node for a PONG again and again: ``prober.py PORT SCHEDSTAT``; for each line of input it tells one back.

The line is the longest time, in ms, that the node's loop kept an answer waiting since the last line: without the time for which
the loop's thread, whose file is SCHEDSTAT, or this process was ready and had no core.
"""

from __future__ import annotations

import gc
import select
import socket
import sys
import time
from pathlib import Path

EVERY_S = 0.0005
OWN = Path("/proc/thread-self/schedstat")


def main(port: int, schedstat: Path) -> None:
    """Ask until the input ends."""
    gc.disable()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    longest_ms = 0.0
    while True:
        waited_s, asked_s = _waited_s(schedstat) + _waited_s(OWN), time.monotonic()
        connection.sendall(b"PING\r\n")
        if not connection.recv(64):
            return
        took_s = time.monotonic() - asked_s
        longest_ms = max(longest_ms, (took_s - (_waited_s(schedstat) + _waited_s(OWN) - waited_s)) * 1000)
        ready, _, _ = select.select([sys.stdin], [], [], EVERY_S)
        if ready:
            if not sys.stdin.readline():
                return
            print(f"{longest_ms:.2f}", flush=True)
            longest_ms = 0.0


def _waited_s(schedstat: Path) -> float:
    return int(schedstat.read_text().split()[1]) / 1e9


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
